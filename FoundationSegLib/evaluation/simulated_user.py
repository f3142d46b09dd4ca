"""The simulated user: a box, clicks or both on one object, and Dice and surface Dice (NSD) after each of them.

After the CVPR 2025 challenge "Foundation Models for Interactive 3D Biomedical Image Segmentation"
(``CVPR25_iter_eval.py``, github.com/JunMa11/CVPR-MedSegFMCompetition): an optional box, then five clicks, each in the
middle of the largest error that is left, and a new prediction from all prompts so far after each. One rule differs on
purpose: distances are in mm here and in voxels there, so that with thick slices the click still lands in the middle
of the error. With a spacing of 1, 1, 1 the clicks are the challenge's, voxel by voxel.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from monai.metrics import compute_dice, compute_surface_dice
from numpy.typing import ArrayLike, NDArray

from ..errors import InferenceError, PromptError
from ..imaging.geometry import Geometry, Vector, as_vector, bounding_box
from ..imaging.volume import Volume
from ..prompts.kinds import BoxPrompt, PointPrompt, Polarity, Prompt, SegmentPrompts
from ..prompts.placement import box_prompt
from ..requests.segmentation import Prediction, PredictRequest, Propagation
from .protocol import ObjectScores, ProtocolSettings, ProtocolStep, StepPrompt
from .simulated_prompts import Click as Click
from .simulated_prompts import interior_depth as interior_depth
from .simulated_prompts import next_click

# One empty voxel on each side: an object has a surface at the border of the image, too.
_MARGIN = 1


def dice(truth_kji: NDArray[np.bool_], mask_kji: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient, 0..1, of two masks (K, J, I), by MONAI; 1 where both are empty, 0 where one is."""
    if not (truth_kji.any() and mask_kji.any()):
        return _of_empty(truth_kji, mask_kji)
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


# Tight boxes cut off what a person would leave room for. The challenge's boxes are wider by a random part; one voxel is
# what this project's other figures are measured with.
_BOX_MARGIN = 1


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
