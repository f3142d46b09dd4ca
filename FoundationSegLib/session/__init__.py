"""The interactive session: steps, plan, history, undo, recovery. Numpy only."""
