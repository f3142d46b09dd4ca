"""Measures of segments as tables and panels show them: voxels, millilitres, the longest diameter, doubt, a summary."""

import csv
import io
import json
from collections.abc import Hashable, Mapping
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from ..catalog.model_cards import ModelCard
from ..codec import frozen, mutable
from ..errors import InputError
from ..imaging.geometry import Geometry
from ..imaging.masks import PackedMask
from ..imaging.volume import Volume
from ..prompts.kinds import Prompt, SegmentPrompts
from ..prompts.regions import seen_box
from ..requests.segmentation import PredictRequest
from ..requests.uncertainty import SliceDoubts
from .plan import hand_slices
from .segments import SegmentSession
from .session import Session
from .steps import restated, state_of


@frozen
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
        volume_ml(session.volume, voxels),
        session.is_locked(segment_id),
        SegmentSession(session, segment_id).prompts,
        cards[model_id].title if model_id in cards else model_id,
    )


def volume_ml(volume: Volume, voxels: int) -> float | None:
    """The volume of voxels in ml; None where it means nothing: an image in pixels, or of one slice."""
    return None if volume.voxel_ml is None or 1 in volume.geometry.shape_kji else voxels * volume.voxel_ml


@frozen
class SegmentMeasures:
    """Size of a segment, and the slice across k that it is longest on, from 0.

    ``volume_ml`` and ``diameter_mm`` are None where the image has no such measure, the slice where there are no voxels.
    """

    voxels: int
    volume_ml: float | None
    diameter_mm: float | None
    slice_number: int | None = None


@mutable
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
        self.measures[segment_id] = measure(session, segment_id)
        self._stamps[segment_id] = stamps[segment_id]
        return True


def measure(session: Session, segment_id: str) -> SegmentMeasures:
    """Measure a segment, which takes up to a tenth of a second."""
    return measure_mask(session.mask(segment_id), session.volume)


def measure_mask(mask: PackedMask, volume: Volume) -> SegmentMeasures:
    """Measure a mask on the grid of an image, which takes up to a tenth of a second."""
    voxels, (diameter_mm, number) = mask.voxels, longest_diameter(mask, volume.geometry)
    return SegmentMeasures(voxels, volume_ml(volume, voxels), None if volume.in_pixels else diameter_mm, number)


def measures_csv(session: Session, groups: Mapping[str, str]) -> str:
    """A table of measures as CSV: a line for each of the segments, by their ids with the names of their groups."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(("segment", "group", "volume_ml", "longest_diameter_mm", "slice", "voxels", "model"))
    for segment_id, group in groups.items():
        sizes = measure(session, segment_id)
        numbers = [None if size is None else round(size, 3) for size in (sizes.volume_ml, sizes.diameter_mm)]
        origin = (sizes.slice_number, sizes.voxels, session.provenance(segment_id).get("Model", ""))
        writer.writerow((session.segment_name(segment_id), group, *numbers, *origin))
    return text.getvalue()


def longest_diameter(mask: PackedMask, geometry: Geometry) -> tuple[float, int | None]:
    """The longest diameter of a mask within one slice across k, from edge to edge, in mm, and the slice's number.

    Zero and None for an empty mask. That is how lesions are measured (RECIST 1.1), the acquired slices being axial as
    a rule.
    """
    axes, longest, number = geometry.ijk_to_ras[:3, :2], 0.0, None
    slices = {k: flat for k, flat in enumerate(mask.unpack(), mask.box.start_kji[0]) if flat.any()}
    diagonals = {k: float(np.linalg.norm(np.abs(axes) @ _extent_ij(flat))) for k, flat in slices.items()}
    for k in sorted(slices, key=lambda k: -diagonals[k]):
        if diagonals[k] <= longest:
            break
        for points_ij in _edges(slices[k]), _edges(slices[k].T)[:, ::-1]:
            points = points_ij @ axes.T
            squares = (points**2).sum(axis=1)
            distances = squares[:, None] + squares - 2 * points @ points.T
            reach = float(np.sqrt(max(0.0, distances.max())))
            longest, number = (reach, k) if reach > longest else (longest, number)
    return longest, number


def _extent_ij(flat: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.array([np.ptp(np.flatnonzero(flat.any(axis=axis))) + 1 for axis in (0, 1)])


def _edges(flat: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The (i, j) of the outer faces of the first and the last voxel of each row: two points of any longest line."""
    rows = np.flatnonzero(flat.any(axis=1))
    first = flat[rows].argmax(axis=1) - 0.5
    last = flat.shape[1] - 0.5 - flat[rows, ::-1].argmax(axis=1)
    return np.column_stack([np.concatenate([first, last]), np.concatenate([rows, rows])])


def slice_doubts(session: Session, segment_id: str) -> SliceDoubts | None:
    """The model's doubt of the slices that it answered and nobody has corrected since; None where it told none.

    Raises as :meth:`.segment_history.SegmentHistory.segment`.
    """
    state = session.history.segment(segment_id).state
    slices = json.loads(state.provenance.get("Options") or "{}").get("slices")
    if slices is None:
        return None
    axis = slices["axis"]
    drawn = hand_slices(state, session.history.masks, axis)
    scores = zip(slices["numbers"], slices["scores"], strict=True)
    doubts = {number: 1 - score for number, score in scores if number not in drawn}
    return SliceDoubts(axis, doubts) if doubts else None


def repeated_request(session: Session, segment_id: str) -> PredictRequest:
    """The request that asks the chosen model again with all prompts of a segment, propagated as they were last.

    Raises:
        InputError: no model was chosen, or the segment has no prompts. And as
            :meth:`.queries.SessionQueries.written_state`.
    """
    choice = session.options.choice
    if choice is None:
        raise InputError("choose a model first")
    state = state_of(restated(session.written_state(segment_id).steps, choice))
    prompts = state.all_prompts
    if not prompts:
        raise InputError("the segment has no prompts: draw one first")
    seen = seen_box(choice.region, prompts, session.volume.geometry) if choice.region is not None else None
    segments = (SegmentPrompts(session.segment_name(segment_id) or "Segment", prompts),)
    key = session.volume.key
    return PredictRequest(0, choice.model_id, key, segments, choice.intensity, state.propagation, seen)
