"""Prompts: kinds, files, placement, translation. Numpy only."""
