"""Adapters, one file per model family. Loaded only where inference runs; never in Slicer's own process."""
