"""One picture of a volume and its segments, drawn off screen by Slicer's own views."""

from .overview import render_overview

__all__ = ["render_overview"]
