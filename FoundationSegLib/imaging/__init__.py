"""Geometry, volumes, masks and intensity. Numpy only."""
