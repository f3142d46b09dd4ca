"""Simulated prompts and the user who gives them: clicks in errors, jittered boxes, Dice and NSD after each prompt.

The interactive protocol is that of the CVPR 2025 challenge "Foundation Models for Interactive 3D Biomedical Image
Segmentation" (``CVPR25_iter_eval.py``, github.com/JunMa11/CVPR-MedSegFMCompetition): an optional box, then five clicks,
each in the middle of the largest error that is left, and a new prediction from all prompts so far after each. One rule
differs on purpose: distances are in mm here and in voxels there, so that with thick slices the click still lands in the
middle of the error. With a spacing of 1, 1, 1 the clicks are the challenge's, voxel by voxel.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..errors import InferenceError, PromptError
from ..imaging.geometry import Geometry, Vector, as_vector, bounding_box
from ..imaging.volume import Volume
from ..prompts.kinds import BoxPrompt, PointPrompt, Polarity, Prompt, SegmentPrompts
from ..prompts.placement import box_prompt
from ..requests.segmentation import Prediction, PredictRequest, Propagation
from ..requests.uncertainty import BOX_JITTER
from .protocol import CHALLENGE_SEED, ObjectScores, ProtocolSettings, ProtocolStep, StepPrompt

# 26 neighbours, as the challenge has it: errors that touch at a corner are one to the eye, and one click is for them.
_NEIGHBOURS = np.ones((3, 3, 3), np.bool_)
# Depths that differ by less are equal: the same distance, summed up in another order.
_SAME_DEPTH = 1e-9
# Of a slice by itself: beyond it there is nothing that a click could be near to.
_ALONE = (1.0, 1.0, 1e6)
# Pixels that a person leaves around an object: tight boxes cut off what a person would leave room for. The challenge's
# boxes are wider by a random part; one voxel is what this project's other figures are measured with.
_BOX_MARGIN = 1
_INNER_DEPTH = 0.5  # of the largest depth: the part of an object that a person clicks into

Xyxy = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Click:
    """A voxel (i, j, k) to click on, and the polarity of the click."""

    index_ijk: tuple[int, int, int]
    polarity: Polarity


def next_click(
    truth_kji: NDArray[np.bool_],
    mask_kji: NDArray[np.bool_],
    spacing_mm: Vector = (1.0, 1.0, 1.0),
    seed: int = CHALLENGE_SEED,
) -> Click | None:
    """Place a click in the middle of the largest error; None where there is no error.

    Wherever the mask differs from the truth is an error, too much and too little alike; errors that touch, be it at a
    corner, are one. The largest by volume (which on a grid is that by voxels; of equal ones the first in the order of
    k, j, i) gets a click on its most interior voxel: that with the largest Euclidean distance to the outside of the
    error, where the world beyond the image counts as outside. Of several such voxels, the seed chooses one. The click
    is positive where the truth has the voxel.

    Args:
        truth_kji, mask_kji: the object and the present segment, (K, J, I) bool.
        spacing_mm: between voxels along i, j, k.
        seed: of the choice among voxels that are equally deep.
    """
    error_kji = truth_kji != mask_kji
    region = bounding_box(error_kji)
    if region.is_empty:
        return None
    numbered, _ = ndimage.label(error_kji[region.slices], _NEIGHBOURS)
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    component = numbered == int(np.argmax(sizes))
    tight = bounding_box(component)
    depth_kji = interior_depth(component[tight.slices], spacing_mm)
    deepest = np.argwhere(depth_kji >= depth_kji.max() * (1 - _SAME_DEPTH))
    # The generator of numpy's early days, since the challenge's choice is one of its numbers.
    chosen = deepest[np.random.RandomState(seed).choice(len(deepest))]
    k, j, i = (chosen + tight.start_kji + region.start_kji).tolist()
    return Click((i, j, k), Polarity.POSITIVE if truth_kji[k, j, i] else Polarity.NEGATIVE)


def interior_depth(mask_kji: NDArray[np.bool_], spacing_mm: Vector) -> NDArray[np.float64]:
    """Return the depth of each voxel in the mask: mm to the centre of the nearest voxel outside, 0 outside; (K, J, I).

    Beyond the array is outside.
    """
    depth_kji = ndimage.distance_transform_edt(np.pad(mask_kji, 1), sampling=spacing_mm[::-1])
    return np.asarray(depth_kji)[1:-1, 1:-1, 1:-1]


def first_click(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Place a click on the most interior pixel of an object on a slice; (x, y)."""
    click = slice_click(mask, np.zeros_like(mask))
    assert click is not None  # an object has a pixel
    return click.index_ijk[0], click.index_ijk[1]


def slice_click(truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> Click | None:
    """Place a click in the middle of the largest error on a slice, (rows, columns), as :func:`next_click` does."""
    return next_click(truth[None], mask[None], _ALONE)


def random_click(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
    """Choose a pixel in the inner part of an object on a slice; (x, y)."""
    depth = interior_depth(mask[None], _ALONE)[0]
    inner = np.argwhere(depth >= max(1.0, _INNER_DEPTH * depth.max()))
    row, column = inner[rng.integers(len(inner))].tolist()
    return column, row


def slice_box(mask: NDArray[np.bool_], rng: np.random.Generator | None = None) -> Xyxy:
    """Draw a box around an object on a slice, a pixel wider within the slice; with a generator, each edge jittered."""
    rows, columns = np.nonzero(mask)
    low = np.array([columns.min(), rows.min()]) - _BOX_MARGIN
    high = np.array([columns.max(), rows.max()]) + _BOX_MARGIN
    limit = np.array(mask.shape[::-1]) - 1
    corners = np.concatenate([np.maximum(low, 0), np.minimum(high, limit)]).astype(np.float64)
    if rng is not None:
        sides = np.tile(corners[2:] - corners[:2], 2)
        corners += rng.uniform(-BOX_JITTER, BOX_JITTER, 4) * sides
        corners = np.clip(corners, 0, np.tile(limit, 2))
    x0, y0, x1, y1 = corners.tolist()
    return x0, y0, x1, y1


def random_box(shape: tuple[int, int], rng: np.random.Generator) -> Xyxy:
    """Draw a box anywhere on a slice, its sides from a sixteenth to a half of it."""
    extent = np.array(shape[::-1]) - 1
    sides = extent * 2.0 ** rng.uniform(-4, -1, 2)
    x0, y0 = rng.uniform(0, extent - sides).tolist()
    return x0, y0, x0 + float(sides[0]), y0 + float(sides[1])


def disc(centre_xy: tuple[float, float], radius: float, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw a disc: the best guess from a click without a model."""
    rows, columns = np.indices(shape)
    return (columns - centre_xy[0]) ** 2 + (rows - centre_xy[1]) ** 2 <= radius**2


def ellipse(box: Xyxy, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw the ellipse in a box: the best guess from a box without a model."""
    x0, y0, x1, y1 = box
    rows, columns = np.indices(shape)
    across, down = max((x1 - x0) / 2, 0.5), max((y1 - y0) / 2, 0.5)
    return ((columns - (x0 + x1) / 2) / across) ** 2 + ((rows - (y0 + y1) / 2) / down) ** 2 <= 1


def overlap(truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    """Return the Dice of two masks, 0..1; 1 where both are empty."""
    both = int(np.count_nonzero(truth)) + int(np.count_nonzero(mask))
    return 2 * int(np.count_nonzero(truth & mask)) / both if both else 1.0


# One empty voxel on each side: an object has a surface at the border of the image, too.
_MARGIN = 1


def dice(truth_kji: NDArray[np.bool_], mask_kji: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient, 0..1, of two masks (K, J, I), by MONAI; 1 where both are empty, 0 where one is."""
    if not (truth_kji.any() and mask_kji.any()):
        return _of_empty(truth_kji, mask_kji)
    from monai.metrics import compute_dice  # here, and below: an adaptation needs no MONAI, which takes seconds to load

    truth, mask = _cropped(truth_kji, mask_kji)
    return float(compute_dice(mask, truth, include_background=True).item())


def surface_dice(
    truth_kji: NDArray[np.bool_], mask_kji: NDArray[np.bool_], spacing_mm: Vector, tolerance_mm: float
) -> float:
    """Return the normalised surface Dice (NSD), 0..1: the part of both surfaces that is near the other.

    MONAI's, with surfaces between the voxels that are weighted by their areas, which is the definition of DeepMind's
    ``surface-distance`` and that of the challenge (``SurfaceDice.py``). Unlike there, it is computed where the Dice is
    below 0.2, too, where the challenge puts 0.

    Args:
        truth_kji, mask_kji: (K, J, I) bool. 1 where both are empty, 0 where one is.
        spacing_mm: between voxels along i, j, k.
        tolerance_mm: how far a surface may lie from the other; the challenge's is 2.
    """
    if not (truth_kji.any() and mask_kji.any()):
        return _of_empty(truth_kji, mask_kji)
    from monai.metrics import compute_surface_dice

    truth, mask = _cropped(truth_kji, mask_kji)
    spacing = tuple(float(n) for n in spacing_mm[::-1])
    score = compute_surface_dice(
        mask, truth, [float(tolerance_mm)], include_background=True, spacing=spacing, use_subvoxels=True
    )
    return min(1.0, float(score.item()))


def _of_empty(truth_kji: NDArray[np.bool_], mask_kji: NDArray[np.bool_]) -> float:
    return 0.0 if truth_kji.any() or mask_kji.any() else 1.0


def _cropped(truth_kji: NDArray[np.bool_], mask_kji: NDArray[np.bool_]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut both masks to the box that holds them, with a margin, in MONAI's form: (1, 1, K, J, I)."""
    region = bounding_box(truth_kji | mask_kji)
    truth, mask = (torch.from_numpy(np.pad(array[region.slices], _MARGIN)) for array in (truth_kji, mask_kji))
    return truth[None, None], mask[None, None]


def box_around(mask_kji: NDArray[np.bool_], geometry: Geometry) -> BoxPrompt:
    """Draw the 3-D box around an object, one voxel wider within the slices (along i and j) as far as the image reaches.

    The challenge's box is that of the object's middle slice, widened by a random number of pixels (``get_boxes.py``);
    this one holds the whole object, and is the same in every run.
    """
    tight = bounding_box(mask_kji)
    margin = (0, _BOX_MARGIN, _BOX_MARGIN)
    return box_prompt(tight.grown(margin).intersection(geometry.box), geometry)


def _position(index_ijk: ArrayLike, geometry: Geometry) -> Vector:
    return as_vector(geometry.to_ras(index_ijk))


def evaluate_object(
    ask: Callable[[PredictRequest], Prediction],
    model_id: str,
    volume: Volume,
    truth_kji: NDArray[np.bool_],
    settings: ProtocolSettings,
    on_step: Callable[[], None] = lambda: None,
) -> ObjectScores:
    """Evaluate a model on one object by the protocol.

    A step that fails (:class:`PromptError`, :class:`InferenceError`) has found nothing, as in the challenge, and the
    next click is placed accordingly. Once the segment is perfect nothing is asked any more: a model asked the same
    again answers the same.

    Args:
        ask: answers a request, with the image known already.
        model_id: the model.
        volume: the image.
        truth_kji: the object, (K, J, I) bool, not empty.
        settings: the protocol.
        on_step: called after each step.

    Raises:
        FoundationSegError: the model cannot be asked at all, or the user stopped it.
    """
    dialogue = _Dialogue(ask, model_id, volume, truth_kji, settings, np.zeros_like(truth_kji))
    steps = []
    for step in dialogue.steps():
        steps.append(step)
        on_step()
    return ObjectScores(tuple(steps), dialogue.origin, dialogue.load_s, tuple(dict.fromkeys(dialogue.notes)))


@dataclass(slots=True)
class _Dialogue:
    """An object under evaluation: the prompts so far, and the segment of the last answer."""

    ask: Callable[[PredictRequest], Prediction]
    model_id: str
    volume: Volume
    truth_kji: NDArray[np.bool_]
    settings: ProtocolSettings
    mask_kji: NDArray[np.bool_]
    prompts: list[Prompt] = field(default_factory=list)
    origin: Prediction | None = None
    load_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def spacing_mm(self) -> Vector:
        """The distance between voxel centres along i, j and k; in pixels for images without physical geometry."""
        return (1.0, 1.0, 1.0) if self.volume.in_pixels else self.volume.geometry.spacing_mm

    def steps(self) -> Iterator[ProtocolStep]:
        """Yield every step as it is made."""
        geometry, settings = self.volume.geometry, self.settings
        if settings.has_box:
            yield self._step("box", box_around(self.truth_kji, geometry))
        for _ in range(settings.click_steps):
            click = next_click(self.truth_kji, self.mask_kji, self.spacing_mm, settings.seed)
            if click is None:
                yield ProtocolStep("none", 1.0, 1.0)
                continue
            kind: StepPrompt = "positive click" if click.polarity is Polarity.POSITIVE else "negative click"
            point = PointPrompt(_position(click.index_ijk, geometry), click.polarity, "k")
            yield self._step(kind, point, click.index_ijk)

    def _step(self, kind: StepPrompt, prompt: Prompt, index_ijk: tuple[int, int, int] | None = None) -> ProtocolStep:
        self.prompts.append(prompt)
        begin = time.perf_counter()
        try:
            prediction = self.ask(self._request())
        except (PromptError, InferenceError) as error:
            self.mask_kji = np.zeros_like(self.truth_kji)
            return ProtocolStep(kind, 0.0, 0.0, None, index_ijk, error)
        load_s = prediction.timings_s.get("load", 0.0)
        seconds = max(0.0, time.perf_counter() - begin - load_s)
        self.mask_kji = prediction.segments[0].mask.expand(self.truth_kji.shape)
        self.origin = prediction
        self.load_s += load_s
        self.notes += prediction.notes
        nsd = surface_dice(self.truth_kji, self.mask_kji, self.spacing_mm, self.settings.nsd_tolerance_mm)
        return ProtocolStep(kind, dice(self.truth_kji, self.mask_kji), nsd, seconds, index_ijk)

    def _request(self) -> PredictRequest:
        segment = SegmentPrompts("object", tuple(self.prompts))
        # A click lies on one slice: what it says has to be carried on. A box says how far by itself.
        propagation = None if self.settings.has_box else Propagation()
        key = self.volume.key
        return PredictRequest(next(self.numbers), self.model_id, key, (segment,), self.settings.intensity, propagation)
