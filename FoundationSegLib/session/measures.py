"""Measures of segments as tables and panels show them: voxels, millilitres, the longest diameter, and a summary."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..catalog.model_cards import ModelCard
from ..imaging.geometry import Geometry
from ..imaging.masks import PackedMask
from ..prompts.kinds import Prompt
from .segments import SegmentSession
from .session import Session


@dataclass(frozen=True, slots=True)
class SegmentSummary:
    """A segment as a panel shows it: ``volume_ml`` is None for an image in pixels, ``model`` empty for none."""

    voxels: int
    volume_ml: float | None
    is_locked: bool
    prompts: Mapping[str, Prompt]
    model: str


def summarize(session: Session | None, segment_id: str, cards: Mapping[str, ModelCard]) -> SegmentSummary | None:
    """Summarize a segment, whose model goes by its card's title; None while it cannot be read, or without a session."""
    if session is None or not session.can_read(segment_id):
        return None
    voxels, model_id = session.voxels(segment_id), session.provenance(segment_id).get("Model", "")
    return SegmentSummary(
        voxels,
        volume_ml(session, voxels),
        session.is_locked(segment_id),
        SegmentSession(session, segment_id).prompts,
        cards[model_id].title if model_id in cards else model_id,
    )


def volume_ml(session: Session, voxels: int) -> float | None:
    """The volume of voxels in ml; None where it means nothing: an image in pixels, or of one slice."""
    voxel_ml = session.volume.voxel_ml
    return None if voxel_ml is None or 1 in session.volume.geometry.shape_kji else voxels * voxel_ml


@dataclass(frozen=True, slots=True)
class SegmentMeasures:
    """Size of a segment; ``volume_ml`` and ``diameter_mm`` are None where the image has no such measure."""

    voxels: int
    volume_ml: float | None
    diameter_mm: float | None


@dataclass(slots=True)
class MeasuresTable:
    """Measures of the segments of one session at a time, each taken anew once its voxels may have changed.

    Attributes:
        measures: those that are known, by segment id.
    """

    measures: dict[str, SegmentMeasures] = field(default_factory=dict)
    _stamps: dict[str, Hashable] = field(default_factory=dict)
    _session: Session | None = None

    def measure_next(self, session: Session) -> bool:
        """Measure one segment that is new or changed; False where there is none left. Takes up to a tenth of a second.

        To be called when nothing else goes on, until it returns False.
        """
        if session is not self._session:
            self._session, self._stamps = session, {}
        stamps = session.store.stamps()
        self.measures = {key: known for key, known in self.measures.items() if key in stamps and key in self._stamps}
        changed = (key for key, stamp in stamps.items() if stamp is not None and self._stamps.get(key) != stamp)
        segment_id = next(changed, None)
        if segment_id is None:
            return False
        mask, geometry = session.mask(segment_id), session.volume.geometry
        diameter_mm = None if session.volume.in_pixels else longest_diameter_mm(mask, geometry)
        voxels = mask.voxels
        self.measures[segment_id] = SegmentMeasures(voxels, volume_ml(session, voxels), diameter_mm)
        self._stamps[segment_id] = stamps[segment_id]
        return True


def longest_diameter_mm(mask: PackedMask, geometry: Geometry) -> float:
    """The longest diameter of a mask within one slice across k, from edge to edge, in mm; 0 for an empty mask.

    That is how lesions are measured (RECIST 1.1), the acquired slices being axial as a rule.
    """
    axes, longest = geometry.ijk_to_ras[:3, :2], 0.0
    slices = [flat for flat in mask.unpack() if flat.any()] if not mask.box.is_empty else []
    diagonals = [float(np.linalg.norm(np.abs(axes) @ _extent_ij(flat))) for flat in slices]
    for n in np.argsort(diagonals)[::-1]:
        if diagonals[n] <= longest:
            break
        for points_ij in _edges(slices[n]), _edges(slices[n].T)[:, ::-1]:
            points = points_ij @ axes.T
            squares = (points**2).sum(axis=1)
            distances = squares[:, None] + squares - 2 * points @ points.T
            longest = max(longest, float(np.sqrt(max(0.0, distances.max()))))
    return longest


def _extent_ij(flat: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.array([np.ptp(np.flatnonzero(flat.any(axis=axis))) + 1 for axis in (0, 1)])


def _edges(flat: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The (i, j) of the outer faces of the first and the last voxel of each row: two points of any longest line."""
    rows = np.flatnonzero(flat.any(axis=1))
    first = flat[rows].argmax(axis=1) - 0.5
    last = flat.shape[1] - 0.5 - flat[rows, ::-1].argmax(axis=1)
    return np.column_stack([np.concatenate([first, last]), np.concatenate([rows, rows])])
