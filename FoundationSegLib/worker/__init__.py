"""The boundary between whoever asks and the engine that answers."""
