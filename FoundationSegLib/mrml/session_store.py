"""A session's segments in a segmentation node of the scene."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, GoneError, InputError
from ..imaging.geometry import Box, Geometry
from ..imaging.masks import Edit, SegmentChange
from ..session.segment_store import NewSegment, OverlapPolicy
from . import segment_tags
from .alignment import Alignment
from .labelmaps import BINARY_LABELMAP, occupied_box
from .segment_tags import Colour, find_term, generic_colour
from .segments import SegmentWriter
from .surfaces import drop_surfaces, has_surfaces


@dataclass(frozen=True, slots=True)
class _Appearance:
    """Name, colour and term that a segment was made with: others mean that somebody changed it."""

    name: str
    colour: Colour
    terminology: str

    @staticmethod
    def of(segment: Any) -> "_Appearance":
        return _Appearance(segment.GetName(), tuple(segment.GetColor()), segment.GetTerminology())


class SceneStore:
    """The segments of a segmentation node in the voxels of a volume node. See
    :class:`FoundationSegLib.session.segment_store.SegmentStore`.

    Attributes:
        masking_node: a `vtkMRMLSegmentEditorNode` whose editable area and intensity range are to be kept to ("same as
            Segment Editor"); None for none.
        defers_surfaces: the surface of a segment that changes is dropped, and not made anew within the change, which
            takes up to seconds; whoever says so calls :func:`.surfaces.make_surfaces` when there is time.
        owes_surfaces: surfaces were dropped so; they may be somebody else's.

    Raises:
        InputError, GeometryError: as :class:`.segments.SegmentWriter`.
    """

    def __init__(
        self, segmentation_node: Any, volume_node: Any, masking_node: Any | None = None, defers_surfaces: bool = False
    ) -> None:
        self._writer = SegmentWriter(segmentation_node, volume_node)
        self._segmentation_node, self._volume_node = segmentation_node, volume_node
        self._scene = segmentation_node.GetScene()
        self.masking_node = masking_node
        self.defers_surfaces = defers_surfaces
        self.owes_surfaces = False
        self._made: dict[str, _Appearance] = {}

    @property
    def writer(self) -> SegmentWriter:
        """The door that everything goes through."""
        return self._writer

    @property
    def alignment(self) -> Alignment:
        """Keeps the segments where they are on the image."""
        return self._writer.alignment

    @property
    def geometry(self) -> Geometry:
        """The volume's grid, in which all boxes, masks and edits are given."""
        return self._writer.geometry

    @property
    def is_gone(self) -> bool:
        """True once a node was deleted or the scene was closed."""
        scenes = self._segmentation_node.GetScene(), self._volume_node.GetScene()
        return self._scene is None or scenes[0] is not self._scene or scenes[1] is not self._scene

    @property
    def is_readable(self) -> bool:
        """False while the segments are no binary label maps, or were moved relative to the volume."""
        return self._writer.is_readable

    def require_writable(self) -> None:
        """Make sure that segments can be written where they belong.

        Raises:
            GoneError: a node was deleted.
            InputError, GeometryError: as :meth:`.segments.SegmentWriter.require_writable`.
        """
        if self.is_gone:
            raise GoneError("the volume or the segmentation was deleted: nothing was written")
        self._writer.require_writable()

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """The ids of all segments, in Slicer's order."""
        return self._writer.segment_ids

    def is_locked(self, segment_id: str) -> bool:
        """True for a segment that may not be written."""
        return segment_tags.is_locked(self._writer.segment(segment_id))

    def name(self, segment_id: str) -> str:
        """The name that the user calls the segment by."""
        return self._writer.segment(segment_id).GetName() or ""

    def stamps(self) -> dict[str, Hashable]:
        """Each label map's own address and modification time, and the label in it: Slicer's undo puts in another one.

        None while the voxels cannot be read; no segment once all of them are gone.
        """
        if self.is_gone:
            return {}
        try:
            self._writer.require_readable()
        except (InputError, GeometryError):
            return dict.fromkeys(self.segment_ids)
        stamps: dict[str, Hashable] = {}
        segmentation = self._segmentation_node.GetSegmentation()
        for segment_id in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segment_id)
            labelmap = segment.GetRepresentation(BINARY_LABELMAP)
            labels = labelmap and (labelmap.GetAddressAsString(""), labelmap.GetMTime())
            stamps[segment_id] = labels, segment.GetLabelValue()
        return stamps

    def read(self, segment_id: str, box: Box) -> NDArray[np.bool_]:
        """The segment in a box of the volume: a new (K, J, I) boolean array."""
        return self._writer.read_mask(segment_id, box)

    def occupied(self, segment_id: str) -> Box:
        """A box that holds every voxel of the segment."""
        return occupied_box(self._writer.labelmap(segment_id), self.geometry)

    def add(self, new: NewSegment) -> str:
        """Make an empty segment; the term goes by the kind, and numbered segments have colours of their own."""
        self.require_writable()
        term = find_term(new.kind or new.name)
        colour = generic_colour(len(self.segment_ids)) if new.number or term is None else term.colour
        made = self._made.get(new.segment_id)
        segment_id = self._writer.add_segment(
            new.name,
            colour=made.colour if made is not None else colour,
            terminology=term.serialized if term else None,
            segment_id=new.segment_id,
        )
        self._made[segment_id] = _Appearance.of(self._writer.segment(segment_id))
        return segment_id

    def withdraw(self, segment_id: str) -> bool:
        """Delete a segment that was made here; who names, colours, codes, locks or draws one makes it his."""
        self._require_there()
        if not self.is_readable:
            return False
        segment = self._writer.segment(segment_id)
        is_as_made = self._made.get(segment_id) == _Appearance.of(segment)
        if not is_as_made or self.is_locked(segment_id) or self.read(segment_id, self.occupied(segment_id)).any():
            return False
        self._segmentation_node.GetSegmentation().RemoveSegment(segment_id)
        return True

    def write(self, segment_id: str, change: SegmentChange, policy: OverlapPolicy) -> Edit:
        """Make a change as far as the policy and the locks of others allow, and return what really changed."""
        if self.is_gone or self.defers_surfaces:
            self.require_writable()
            self._drop_surfaces()
        return self._writer.write_change(segment_id, change, policy, self.masking_node)

    def apply(self, edit: Edit) -> Edit:
        """Make exactly the changes of an edit. The session has just looked whether the segments are as they were."""
        self._require_there()
        self._writer.require_readable()
        self._drop_surfaces()
        return self._writer.apply_known(edit)

    def provenance(self, segment_id: str) -> Mapping[str, str]:
        """The origin of the segment, by the names of :data:`.segment_tags.PROVENANCE`."""
        return segment_tags.provenance(self._writer.segment(segment_id))

    def describe(self, segment_id: str, provenance: Mapping[str, str]) -> None:
        """Keep in the segment's tags where it comes from."""
        segment_tags.set_provenance(self._writer.segment(segment_id), provenance)

    def _drop_surfaces(self) -> None:
        if self.defers_surfaces and has_surfaces(self._segmentation_node):
            self.owes_surfaces = True
            drop_surfaces(self._segmentation_node)

    def _require_there(self) -> None:
        if self.is_gone:
            raise GoneError("the volume or the segmentation was deleted: nothing was written")
