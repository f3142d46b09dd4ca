"""A training course on objects of slices: the prompts of each step, early stop, a state on disk; and the final test."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..evaluation.held_out import LabelledSlice, gain_over
from ..evaluation.simulated_prompts import (
    disc,
    ellipse,
    first_click,
    overlap,
    random_box,
    random_click,
    slice_box,
    slice_click,
)
from ..models.adaptation import AdaptableModel, Sample, State, Trainer, encoder_rank
from ..models.protocols import SliceAnswer, SliceModel, SlicePoint, SlicePrompt
from ..models.weights import DAMAGED
from ..progress import Progress
from ..prompts.kinds import Polarity
from ..requests.adaptation import KINDS, CurvePoint, KindScores, LabelScores, LearnedKind, Training, curve_report
from .slices import spread

SAVED_EVERY = 50  # steps between two states on the disk, at each of which the held-out loss is measured, too
_PATIENCE = 3  # held-out losses in a row without a better one, after which the training ends
_WATCHED = 24  # prompts that the held-out loss is the mean of
_BOXES, _CORRECTIONS = 1 / 3, 1 / 6  # shares of the prompts; the rest are first clicks
_KNOTS = 5  # of the curves that disguise a slice
_TESTED_CLICKS = 3  # of the test of corrections, the first one included

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class SliceObject:
    """An object on a slice, its mask (rows, columns) as the model sees the slice."""

    slice: LabelledSlice
    name: str
    mask: Bools
    elsewhere: bool = False


@dataclass(slots=True)
class Course:
    """A training.

    Attributes:
        model: the base.
        training, test: the objects.
        embeddings: the encoded slices.
        pictures: the slices as the model sees them; none where its image encoder stays as it is.
        disguises: pictures as another modality may show the slices, and their embeddings: the base's answers on them
            are what must not be forgotten.
        settings: of the request.
        state_file: where the state is kept; a state with another ``fingerprint`` is another training's.
        best: the difference to the base after ``best_step``, where the held-out loss was lowest.
        curve: the losses so far.
    """

    model: AdaptableModel
    training: Sequence[SliceObject]
    test: Sequence[SliceObject]
    embeddings: Mapping[LabelledSlice, Any]
    pictures: Mapping[LabelledSlice, NDArray[np.uint8]]
    disguises: Sequence[tuple[NDArray[np.uint8], Any]]
    settings: Training
    state_file: Path
    fingerprint: str
    best: State = field(default_factory=dict)
    best_step: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    _losses: list[float] = field(default_factory=list)

    def run(self, progress: Progress) -> None:
        """Train until the last step, or until the held-out loss has long been rising.

        Raises:
            Cancelled: the user stopped it; another run goes on from the last state.
        """
        rank = encoder_rank(self.model, self.settings.encoder_rank)
        trainer = Trainer(self.model, self.settings.rate, rank, self.settings.seed)
        watched = self._watched()
        self._restore(trainer)
        for point in self.curve:
            progress.report(curve_report(point, self.settings.steps))
        if not self.curve:
            self._look(trainer, watched, progress)
        while trainer.steps < self.settings.steps and not self._is_over:
            progress.step("train", trainer.steps, self.settings.steps)
            rng = np.random.default_rng([self.settings.seed, trainer.steps])
            loss = trainer.loss(self._sample(trainer, rng))
            self._losses.append(float(loss.detach()))
            progress.check()
            if self.disguises and trainer.steps % 2:
                loss = loss + self.settings.distillation * trainer.loss(self._base_sample(rng))
                progress.check()
            trainer.step(loss)
            if trainer.steps % SAVED_EVERY == 0 or trainer.steps == self.settings.steps:
                self._look(trainer, watched, progress)
                self._save(trainer)

    @property
    def _is_over(self) -> bool:
        return len(self.curve) > _PATIENCE and self.curve[-1].step - self.best_step >= _PATIENCE * SAVED_EVERY

    def _look(self, trainer: Trainer, watched: Sequence[Sample], progress: Progress) -> None:
        """Measure the held-out loss, and keep the weights where it is the lowest so far."""
        losses = []
        for sample in watched:
            progress.check()
            with torch.no_grad():
                losses.append(float(trainer.loss(sample, is_average=True)))
        held_out = float(np.mean(losses))
        lowest = min((point.held_out for point in self.curve), default=np.inf)
        mean = float(np.mean(self._losses)) if self._losses else held_out
        self._losses.clear()
        self.curve.append(CurvePoint(trainer.steps, mean, held_out))
        if held_out < lowest:
            self.best, self.best_step = trainer.delta(), trainer.steps
        progress.report(curve_report(self.curve[-1], self.settings.steps))

    def _watched(self) -> list[Sample]:
        """The same prompts at every look: a box and a click in turn, over the test objects."""
        prompts = (box_prompt, click_prompt)
        return [self._of(item, prompts[n % 2](item.mask)) for n, item in enumerate(spread(self.test, _WATCHED))]

    def _of(self, item: SliceObject, prompt: SlicePrompt, coarse: Tensor | None = None) -> Sample:
        target = torch.from_numpy(item.mask.astype(np.float32)).to(self.model.device)
        return Sample(self.embeddings[item.slice], prompt, target, coarse, self.pictures.get(item.slice))

    def _sample(self, trainer: Trainer, rng: np.random.Generator) -> Sample:
        """A simulated prompt for any of the objects: a jittered box, a first click, or corrections of an answer.

        A correction is for the object or against it, by the largest error of the answer before.
        """
        item = self.training[rng.integers(len(self.training))]
        kind = rng.random()
        corrections = rng.integers(1, _TESTED_CLICKS) if kind >= 1 - _CORRECTIONS else 0
        if kind < _BOXES or (corrections and rng.random() < 0.5):
            sample = self._of(item, SlicePrompt(slice_box(item.mask, rng)))
        else:
            x, y = random_click(item.mask, rng)
            sample = self._of(item, SlicePrompt(points=(SlicePoint(float(x), float(y)),)))
        for _ in range(corrections):
            answer = trainer.answer(sample)
            corrected = correction(sample.prompt, item.mask, answer.mask)
            if corrected is None:
                break
            # Some models keep nothing of their answer to a box alone.
            is_kept = bool(sample.prompt.points) or rng.random() < 0.5
            sample = self._of(item, corrected, answer.logits if is_kept else None)
        return sample

    def _base_sample(self, rng: np.random.Generator) -> Sample:
        """The base's own answer on a disguised slice, to a box around what it sees in a random box."""
        picture, embedding = self.disguises[rng.integers(len(self.disguises))]
        prompt = SlicePrompt(random_box((picture.shape[0], picture.shape[1]), rng))
        with torch.no_grad():
            seen = self.model.decode(embedding, prompt).mask
            if seen.any():
                prompt = SlicePrompt(slice_box(seen, rng))
            guesses, scores = self.model.guess(embedding, prompt, None)
            best = int(scores.argmax())
            target = self.model.on_slice(guesses[None, best : best + 1], embedding).sigmoid()
        return Sample(embedding, prompt, target, picture=picture)

    def _save(self, trainer: Trainer) -> None:
        curve = [[point.step, point.loss, point.held_out] for point in self.curve]
        state = {"fingerprint": self.fingerprint, "curve": curve, "best": self.best, "best_step": self.best_step}
        partial = self.state_file.with_suffix(".partial")
        torch.save(state | trainer.state(), partial)
        partial.replace(self.state_file)

    def _restore(self, trainer: Trainer) -> None:
        """Go on from the state on the disk, if it is this training's and whole."""
        if not self.state_file.is_file():
            return
        with contextlib.suppress(*DAMAGED):
            state = torch.load(self.state_file, map_location=self.model.device, weights_only=True)
            if state["fingerprint"] == self.fingerprint:
                curve = [CurvePoint(*point) for point in state["curve"]]
                trainer.restore(state)
                self.best, self.best_step, self.curve = state["best"], int(state["best_step"]), curve


def disguised(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Map the grey levels by a random curve: the same anatomy as another modality may show it.

    Random appearances stand for modalities that are not at hand (Ouyang et al., arXiv:2111.12525).
    """
    knots = np.linspace(0, 255, _KNOTS)
    return np.interp(picture, knots, rng.uniform(0, 255, _KNOTS)).astype(np.uint8)


def box_prompt(mask: Bools) -> SlicePrompt:
    """A box around an object, as a person draws it."""
    return SlicePrompt(slice_box(mask))


def click_prompt(mask: Bools) -> SlicePrompt:
    """A click in the middle of an object."""
    x, y = first_click(mask)
    return SlicePrompt(points=(SlicePoint(float(x), float(y)),))


def correction(prompt: SlicePrompt, truth: Bools, answer: Bools) -> SlicePrompt | None:
    """The prompt with a further click in the middle of the largest error; None where there is no error."""
    click = slice_click(truth, answer)
    if click is None:
        return None
    x, y, _ = click.index_ijk
    point = SlicePoint(float(x), float(y), click.polarity is Polarity.POSITIVE)
    return SlicePrompt(prompt.box, (*prompt.points, point))


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores the base and the adapted model side by side.

    Attributes:
        models: the base, and the adapted model.
        embeddings: the slices as each of them encodes them.
        radius: the mean radius of what was learned from, in pixels.
        seed: of the intervals.
        progress: asked whether to go on.
    """

    models: tuple[SliceModel, SliceModel]
    embeddings: tuple[Mapping[LabelledSlice, Any], Mapping[LabelledSlice, Any]]
    radius: float
    seed: int
    progress: Progress

    def score(self, objects: Sequence[SliceObject], units: Mapping[LabelledSlice, str]) -> tuple[KindScores, ...]:
        """Score every kind of prompt on the objects; ``units`` names what each slice counts as in the intervals.

        Raises:
            Cancelled: the user stopped it.
        """
        if not objects:
            return ()
        rows = []
        for done, item in enumerate(objects):
            self.progress.step("score", done, len(objects))
            rows.append(self._row(item))
        names = [item.name for item in objects]
        keys = [units[item.slice] for item in objects]
        return tuple(self._kind(kind, np.array([row[n] for row in rows]), names, keys) for n, kind in enumerate(KINDS))

    def _row(self, item: SliceObject) -> list[tuple[float, float, float]]:
        """Dice before, after and without a model, for each kind of prompt."""
        truth, shape = item.mask, item.mask.shape
        box, click = box_prompt(truth), click_prompt(truth)
        seen = [(model, of_model[item.slice]) for model, of_model in zip(self.models, self.embeddings, strict=True)]
        boxes = [overlap(truth, model.decode(embedding, box).mask) for model, embedding in seen]
        guess = overlap(truth, ellipse(box.box, (shape[0], shape[1]))) if box.box else 0.0
        clicks = [
            [overlap(truth, mask) for mask in self._clicked(model, embedding, click, truth)]
            for model, embedding in seen
        ]
        point = click.points[0]
        blind = overlap(truth, disc((point.x, point.y), self.radius, (shape[0], shape[1])))
        first, last = zip(*((dice[0], dice[-1]) for dice in clicks), strict=True)
        return [(boxes[0], boxes[1], guess), (first[0], first[1], blind), (last[0], last[1], first[1])]

    def _clicked(self, model: SliceModel, embedding: Any, prompt: SlicePrompt, truth: Bools) -> list[Bools]:
        """The masks after each of the clicks."""
        answer: SliceAnswer = model.decode(embedding, prompt)
        masks = [answer.mask]
        while len(masks) < _TESTED_CLICKS:
            corrected = correction(prompt, truth, answer.mask)
            if corrected is None:
                break
            prompt = corrected
            answer = model.decode(embedding, prompt, answer)
            masks.append(answer.mask)
        return masks

    def _kind(
        self, kind: LearnedKind, dice: NDArray[np.float64], names: Sequence[str], units: Sequence[str]
    ) -> KindScores:
        """Join the rows of one kind: (objects, 3), before, after and without a model."""
        before, after, baseline = dice.mean(axis=0).tolist()
        labels = []
        for name in sorted(set(names)):
            own = [n for n, other in enumerate(names) if other == name]
            mean = dice[own].mean(axis=0).tolist()
            gain = gain_over(_by_unit(dice[own, 1] - dice[own, 0], [units[n] for n in own]), self.seed)
            labels.append(LabelScores(name, len(own), mean[0], mean[1], gain))
        gain, lead = (gain_over(_by_unit(dice[:, 1] - dice[:, n], units), self.seed) for n in (0, 2))
        return KindScores(kind, len(dice), before, after, baseline, gain, lead, tuple(labels))


def _by_unit(values: NDArray[np.float64], units: Sequence[str]) -> dict[str, list[float]]:
    joined: dict[str, list[float]] = {}
    for value, unit in zip(values.tolist(), units, strict=True):
        joined.setdefault(unit, []).append(value)
    return joined
