"""Surfaces of segments in the 3-D views: made when there is time, never inside a click."""

from typing import Any

import slicer

_SURFACE: str = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()


def has_surfaces(segmentation_node: Any) -> bool:
    """True while a segment has a surface, made by whomever."""
    return bool(segmentation_node.GetSegmentation().ContainsRepresentation(_SURFACE))


def make_surfaces(segmentation_node: Any) -> None:
    """Give every segment a surface, those that have one keep it, and show them; takes up to seconds."""
    segmentation = segmentation_node.GetSegmentation()
    if segmentation.CreateRepresentation(_SURFACE) and segmentation_node.GetDisplayNode() is not None:
        segmentation_node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(_SURFACE)


def drop_surfaces(segmentation_node: Any) -> None:
    """Take the surfaces of all segments away: while there is one, Slicer makes it anew within every write.

    Where a surface is all that there is of a segment, all of them stay.
    """
    segmentation = segmentation_node.GetSegmentation()
    if has_surfaces(segmentation_node) and not any(
        _is_only_copy(segmentation, key) for key in segmentation.GetSegmentIDs()
    ):
        segmentation.RemoveRepresentation(_SURFACE)


def _is_only_copy(segmentation: Any, segment_id: str) -> bool:
    source = segmentation.GetSourceRepresentationName()
    segment = segmentation.GetSegment(segment_id)
    has_surface = segment.GetRepresentation(_SURFACE) is not None
    return has_surface and (source == _SURFACE or segment.GetRepresentation(source) is None)
