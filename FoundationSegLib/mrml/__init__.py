"""Slicer's nodes to values and back. Needs `slicer` and `vtk`; no Qt, no torch."""
