"""The parts of the panel. Qt is used here and in FoundationSeg.py, and nowhere else."""
