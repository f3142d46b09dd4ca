"""One picture of a volume and its segments, drawn off screen by Slicer's own views."""
