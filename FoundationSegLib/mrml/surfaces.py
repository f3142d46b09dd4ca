"""Segments in views: surfaces made one by one when there is time, and voxels that no segment has yet."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import vtk_to_numpy

from ..imaging.geometry import Box, Geometry, bounding_box
from ..imaging.masks import EMPTY_MASK, PackedMask, SegmentChange, merge_masks
from ..prompts.kinds import Polarity
from ..session.session import Session
from .labelmaps import BINARY_LABELMAP, image_to_world, label_image
from .prompt_nodes import COLOURS
from .scene import remove_node
from .terminology import Colour

CLOSED_SURFACE: str = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()

# A panel of a picture has under a million pixels: more voxels would cost seconds and show nothing.
_MOST_VOXELS = 1_000_000
# Smoothing would shrink smaller segments to nothing: they keep the surface of their voxels.
_FEW_VOXELS = 64
_SMOOTHING = 0.5


def has_surfaces(segmentation_node: Any) -> bool:
    """True while a segment has a surface, made by whomever."""
    return bool(segmentation_node.GetSegmentation().ContainsRepresentation(CLOSED_SURFACE))


def smoothing(segmentation_node: Any) -> float:
    """The smoothing factor of a segmentation's surfaces: 0 for the edges of the voxels, to 1."""
    return float(segmentation_node.GetSegmentation().GetConversionParameter(_smoothing_name()) or _SMOOTHING)


def set_smoothing(segmentation_node: Any, factor: float) -> tuple[str, ...]:
    """Smooth surfaces otherwise; voxels stay. Returns the segments that have one, for :func:`make_surface`."""
    segmentation = segmentation_node.GetSegmentation()
    segmentation.SetConversionParameter(_smoothing_name(), f"{factor:g}")
    return tuple(segmentation.GetSegmentIDs()) if has_surfaces(segmentation_node) else ()


def _smoothing_name() -> str:
    return slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule.GetSmoothingFactorParameterName()


def make_surfaces(segmentation_node: Any) -> None:
    """Give every segment a surface, those that have one keep it, and show them; takes up to seconds."""
    for segment_id in begin_surfaces(segmentation_node):
        make_surface(segmentation_node, segment_id)


def begin_surfaces(segmentation_node: Any) -> tuple[str, ...]:
    """Have surfaces shown, empty ones where there are none yet. Returns the segments for :func:`make_surface`.

    All segments have one then: while one has not, Slicer's 3-D views make those of all, at every change.
    """
    segmentation, display = segmentation_node.GetSegmentation(), segmentation_node.GetDisplayNode()
    ids = segmentation.GetSegmentIDs()
    missing = tuple(key for key in ids if segmentation.GetSegment(key).GetRepresentation(CLOSED_SURFACE) is None)
    _put_back(segmentation, {})
    if display is not None and ids:
        display.SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
    return missing


def make_surface(segmentation_node: Any, segment_id: str) -> None:
    """Make the surface of one segment anew, with the segmentation's own settings; nothing without voxels or surface."""
    segmentation = segmentation_node.GetSegmentation()
    segment = segmentation.GetSegment(segment_id)
    surface = segment.GetRepresentation(CLOSED_SURFACE) if segment is not None else None
    labelmap = segment.GetRepresentation(BINARY_LABELMAP) if segment is not None else None
    if surface is not None and labelmap is not None:
        parameters = segmentation.SerializeAllConversionParameters()
        surface.ShallowCopy(_to_surface(labelmap, segment.GetLabelValue(), parameters))
        segment.Modified()


@contextmanager
def surfaces_kept(segmentation_node: Any) -> Iterator[None]:
    """Keep all surfaces as they are while segments are written: Slicer makes them anew within each write.

    Afterwards the surfaces of segments that were written are out of date. Where a surface is all that there is of a
    segment, nothing is done.
    """
    segmentation = segmentation_node.GetSegmentation()
    ids = segmentation.GetSegmentIDs() if _can_drop(segmentation) else ()
    surfaces = {key: segmentation.GetSegment(key).GetRepresentation(CLOSED_SURFACE) for key in ids}
    if surfaces:
        segmentation.RemoveRepresentation(CLOSED_SURFACE)
    try:
        yield
    finally:
        if surfaces:
            _put_back(segmentation, surfaces)


def _put_back(segmentation: Any, surfaces: Mapping[str, Any]) -> None:
    """Give segments without a surface theirs, or an empty one. The first segment, by which views go, comes last."""
    for segment_id in reversed(segmentation.GetSegmentIDs()):
        segment = segmentation.GetSegment(segment_id)
        if segment.GetRepresentation(CLOSED_SURFACE) is None:
            segment.AddRepresentation(CLOSED_SURFACE, surfaces.get(segment_id) or vtk.vtkPolyData())


def drop_surfaces(segmentation_node: Any) -> None:
    """Take the surfaces of all segments away. Where a surface is all that there is of a segment, all of them stay."""
    segmentation = segmentation_node.GetSegmentation()
    if _can_drop(segmentation):
        segmentation.RemoveRepresentation(CLOSED_SURFACE)


def _can_drop(segmentation: Any) -> bool:
    """True where there are surfaces, and each segment is more than that."""
    source = segmentation.GetSourceRepresentationName()

    def is_only_copy(segment: Any) -> bool:
        has_surface = segment.GetRepresentation(CLOSED_SURFACE) is not None
        return has_surface and (source == CLOSED_SURFACE or segment.GetRepresentation(source) is None)

    has_any = bool(segmentation.ContainsRepresentation(CLOSED_SURFACE))
    return has_any and not any(is_only_copy(segmentation.GetSegment(key)) for key in segmentation.GetSegmentIDs())


def add_coarse_surface(segment: Any, most_voxels: int = _MOST_VOXELS) -> Any:
    """Give a `vtkSegment` with voxels a surface for a picture, and return it (``vtkPolyData``).

    It is made of the segment's own box; of one with more than ``most_voxels``, of every n-th voxel.
    """
    labelmap = segment.GetRepresentation(BINARY_LABELMAP)
    labels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
    mask = labels == segment.GetLabelValue()
    box, to_ras = bounding_box(mask), image_to_world(labelmap)
    steps = _steps(box.shape_kji[::-1], np.linalg.norm(to_ras[:3, :3], axis=0), most_voxels)
    to_ras[:3, 3] += to_ras[:3, :3] @ (np.array(labelmap.GetExtent()[::2]) + box.start_kji[::-1])
    to_ras[:3, :3] *= steps
    coarse = mask[box.slices][:: steps[2], :: steps[1], :: steps[0]]
    factor = _SMOOTHING if np.count_nonzero(mask) > _FEW_VOXELS else 0.0
    image = label_image(coarse.astype(np.uint8), Box((0, 0, 0), coarse.shape), to_ras)
    surface = _to_surface(image, 1, factor=factor)
    segment.AddRepresentation(CLOSED_SURFACE, surface)
    return surface


def _steps(shape_ijk: Sequence[int], spacing_mm: NDArray[np.float64], most_voxels: int) -> NDArray[np.int64]:
    """The number of voxels to go on along i, j, k, doubled where they are closest until few enough are left."""
    steps = np.ones(3, dtype=np.int64)
    while np.prod(np.ceil(shape_ijk / steps)) > most_voxels:
        steps[np.argmin(spacing_mm * steps)] *= 2
    return steps


def _to_surface(labelmap: Any, label: int, parameters: str = "", factor: float | None = None) -> Any:
    """The surface of a label in a label map, with serialized conversion parameters or a smoothing factor."""
    segment, segmentation = slicer.vtkSegment(), slicer.vtkSegmentation()
    segment.AddRepresentation(BINARY_LABELMAP, labelmap)
    segment.SetLabelValue(label)
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    segmentation.AddSegment(segment, "1")
    if parameters:
        segmentation.DeserializeConversionParameters(parameters)
    if factor is not None:
        segmentation.SetConversionParameter(_smoothing_name(), str(factor))
    segmentation.CreateRepresentation(CLOSED_SURFACE, True)
    return segment.GetRepresentation(CLOSED_SURFACE)


NODE_NAME = "FoundationSeg preview"
_FILL_OPACITY = 0.4


class VoxelPreview:
    """A segmentation node that is hidden from lists and never saved. It is replaced as a whole at each change.

    Slicer's subject hierarchy complains about segments of hidden nodes; it hears of none, since they are there first.
    """

    def __init__(self) -> None:
        self._node: Any = None
        self._parts: dict[str, tuple[PackedMask, Colour]] = {}

    @property
    def node(self) -> Any:
        """The node; None while nothing is shown."""
        is_there = self._node is not None and self._node.GetScene() is not None
        return self._node if is_there else None

    def show_changes(self, segmentation_node: Any, geometry: Geometry, changes: Sequence[SegmentChange]) -> None:
        """Show what segments of an image's grid would gain and lose, in the colours of the signs of prompts."""
        gained, lost = ([getattr(change, side) for change in changes] for side in ("gained", "lost"))
        self._parts = {
            "gained": (merge_masks(gained), COLOURS[Polarity.POSITIVE]),
            "lost": (merge_masks(lost), COLOURS[Polarity.NEGATIVE]),
        }
        self._draw(segmentation_node, geometry)

    def add_segments(self, segmentation_node: Any, geometry: Geometry, masks: Mapping[str, PackedMask]) -> None:
        """Show further voxels of segments, by their ids, in their colours, beside those that are shown."""
        for segment_id, mask in masks.items():
            segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
            if segment is not None:
                before = self._parts[segment_id][0] if segment_id in self._parts else EMPTY_MASK
                self._parts[segment_id] = merge_masks((before, mask)), segment.GetColor()
        self._draw(segmentation_node, geometry)

    def settle(self, session: Session | None) -> None:
        """Show nothing any more, unless a session still propagates, or waits to be confirmed."""
        if session is None or (session.confirmation is None and not session.is_propagating):
            self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self._parts = {}
        self._remove()

    def _remove(self) -> None:
        node, self._node = self.node, None
        if node is not None:
            remove_node(node)

    def _draw(self, segmentation_node: Any, geometry: Geometry) -> None:
        self._remove()
        parts = {name: part for name, part in self._parts.items() if not part[0].box.is_empty}
        scene = segmentation_node.GetScene()
        if not parts or scene is None:
            return
        display, node = slicer.vtkMRMLSegmentationDisplayNode(), slicer.vtkMRMLSegmentationNode()
        for own_node in (display, node):
            own_node.SetHideFromEditors(True)
            own_node.SetSaveWithScene(False)
        display.SetVisibility3D(False)
        display.SetOpacity2DFill(_FILL_OPACITY)
        node.SetName(NODE_NAME)
        node.GetSegmentation().SetSourceRepresentationName(BINARY_LABELMAP)
        for name, (mask, colour) in parts.items():
            segment = slicer.vtkSegment()
            segment.SetName(name)
            segment.SetColor(*colour)
            labels = mask.unpack().astype(np.uint8)
            segment.AddRepresentation(BINARY_LABELMAP, label_image(labels, mask.box, geometry.ijk_to_ras))
            node.GetSegmentation().AddSegment(segment, name)
        node.SetAndObserveDisplayNodeID(scene.AddNode(display).GetID())
        node.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
        self._node = scene.AddNode(node)
