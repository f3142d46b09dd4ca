"""Adaptation of a model to corrected segments: slices and objects, training with a state on disk, and a test.

Slices are encoded once, by the same cache that prompts use. Then the prompt encoder and the mask decoder are trained on
simulated prompts, and held near the base's own answers on the same slices in other grey levels, so that what it knew of
other modalities is not forgotten. What is left in the store is a file with the difference to the base and a card, which
nobody uses before they are kept.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..catalog.catalogue import CARD_FILE, DELTA_FILE, adapted_id, make_card
from ..catalog.model_cards import LearnedFrom, ModelCard
from ..catalog.resource_files import toml_text
from ..codec import pack
from ..errors import InputError
from ..evaluation.held_out import LabelledSlice, Split, joined_patients, split_slices
from ..folders import Locked, locked
from ..hub.exchange import adaptation_folder
from ..hub.records import digest_file, write_whole
from ..imaging.geometry import array_axis
from ..models.adaptation import AdaptableModel, DeltaOrigin, adapted, encoder_rank, is_adaptable, plain, write_delta
from ..models.protocols import SliceModel
from ..progress import Progress
from ..requests.adaptation import DISGUISES, Adaptation, AdaptRequest, HeldOutExample, KindScores
from .course import Course, Scorer, SliceObject, box_prompt, click_prompt, disguised
from .slice_inference import LoadedModel, SliceInference
from .slices import spread

_TESTED = 150  # objects that are scored at most, and as many elsewhere
_FEWEST_SLICES = 12  # that are encoded in any case, whatever the budget
_EXAMPLES = 3  # of what was held out, to be looked at
_STATE_FILE = "state.pt"


@dataclass(slots=True)
class AdaptationRun:
    """One request under way.

    Attributes:
        request: the request.
        card: the base.
        loaded: its weights.
        views: the images by key, as the model sees them.
        store_folder: where the result waits.
        budget: of the embeddings, in bytes.
        progress: told of every step, and asked whether to go on.
    """

    request: AdaptRequest
    card: ModelCard
    loaded: LoadedModel[Any]
    views: Mapping[str, SliceInference]
    store_folder: Path
    budget: int
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _embeddings: dict[LabelledSlice, Any] = field(default_factory=dict)
    _disguises: list[tuple[NDArray[np.uint8], Any]] = field(default_factory=list)

    def adapt(self) -> Adaptation:
        """Train and test; raises as :meth:`~.engine.Engine.adapt`."""
        model_id = adapted_id(self.card, self.request.name)
        model = self.loaded.model
        if not is_adaptable(model):
            raise InputError(f"{self.card.title} cannot be adapted: nothing of its family can be trained here")
        folder = adaptation_folder(self.store_folder, model_id)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder.with_name(f"{folder.name}.lock")):
                return self._adapt(model, model_id, folder)
        except Locked:
            raise InputError(f"{model_id} is being adapted by another program; wait, or choose another name") from None

    def _adapt(self, model: AdaptableModel, model_id: str, folder: Path) -> Adaptation:
        settings = self.request.training
        objects = self._objects()
        own = [item for item in objects if not item.elsewhere]
        slices = sorted({item.slice for item in own}, key=_order)
        split = split_slices(slices, settings.seed, interleaved=settings.interleaved)
        with _timed(self.seconds, "encode"):
            self._encode(model, split, [item for item in objects if item.elsewhere])
        training = [item for item in own if item.slice in split.training and item.slice in self._embeddings]
        test = spread([item for item in own if item.slice in split.units and item.slice in self._embeddings], _TESTED)
        elsewhere = spread([item for item in objects if item.elsewhere and item.slice in self._embeddings], _TESTED)
        fingerprint = _fingerprint(self.request, self.loaded)
        rank = encoder_rank(model, settings.encoder_rank)
        pictures = {item: self._picture(item) for item in self._embeddings} if rank else {}
        state = (settings, folder / _STATE_FILE, fingerprint)
        course = Course(model, training, test, self._embeddings, pictures, self._disguises, *state)
        with _timed(self.seconds, "train"):
            course.run(self.progress)
        origin = DeltaOrigin(self.card.id, self.loaded.weights.checkpoint.sha256)
        write_delta(folder / DELTA_FILE, course.best, origin)
        radius = float(np.mean([np.sqrt(item.mask.sum() / np.pi) for item in training]))
        changed = adapted(model, course.best)
        with _timed(self.seconds, "score"):
            embeddings = self._embeddings
            if rank:
                self.notes.append(f"the image encoder learned, too (LoRA, rank {rank})")
                tested = {item.slice for item in (*test, *elsewhere)}
                embeddings = {item: plain(changed.encode(pictures[item], self.progress.check)) for item in tested}
            pair = (self._embeddings, embeddings)
            scorer = Scorer((model, changed), pair, radius, settings.seed, self.progress)
            kinds = scorer.score(test, split.units)
            lost = scorer.score(elsewhere, {item.slice: item.slice.patient for item in elsewhere})
            takes_clicks = any(score.kind == "point" and score.passed for score in kinds)
            seen = tuple(zip((model, changed), pair, strict=True))
            examples = [self._example(item, seen, takes_clicks) for item in spread(test, _EXAMPLES)]
        result = Adaptation(
            model_id=model_id,
            base=self.card.id,
            base_sha256=origin.base_sha256,
            sha256=digest_file(folder / DELTA_FILE).sha256,
            bytes=(folder / DELTA_FILE).stat().st_size,
            kinds=kinds,
            elsewhere=lost,
            split=split.kind,
            units=split.unit_count,
            cases=len({item.slice.case for item in training}),
            patients=len({item.slice.patient for item in training}),
            prompts=course.best_step,
            steps=course.best_step,
            curve=tuple(course.curve),
            seconds=self.seconds,
            notes=tuple(self.notes),
            settings=settings,
            examples=tuple(examples),
        )
        self._write_card(result, folder)
        (folder / _STATE_FILE).unlink(missing_ok=True)
        return result

    def _write_card(self, result: Adaptation, folder: Path) -> None:
        """Write the card of a result that may be kept; without one it cannot be."""
        (folder / CARD_FILE).unlink(missing_ok=True)
        if not result.passed:
            return
        now = datetime.now(UTC).date().isoformat()
        scores = tuple(_score_text(item, result) for item in result.kinds if item.kind in result.passed)
        origin = (result.base_sha256, result.cases, result.patients, result.prompts, now, __version__, scores)
        learned_from = LearnedFrom(*origin)
        card = make_card(self.card, self.request.name, result.passed, learned_from, result.sha256, result.bytes)
        write_whole(folder / CARD_FILE, toml_text(card))

    def _example(
        self, item: SliceObject, seen: Sequence[tuple[SliceModel, Mapping[LabelledSlice, Any]]], takes_clicks: bool
    ) -> HeldOutExample:
        """The answers of the base and of the adapted model to the same prompt."""
        prompt = (click_prompt if takes_clicks else box_prompt)(item.mask)
        before, after = (model.decode(embeddings[item.slice], prompt).mask for model, embeddings in seen)
        return HeldOutExample(item.name, item.slice.index, self._picture(item.slice), item.mask, before, after)

    def _picture(self, item: LabelledSlice) -> NDArray[np.uint8]:
        return self.views[self.request.volume_keys[item.case]].picture(self.request.training.axis, item.index)

    def _objects(self) -> list[SliceObject]:
        """Every segment's part on every slice, as the model sees it.

        Raises:
            InputError: there is none to learn from.
        """
        axis, objects, small = self.request.training.axis, [], 0
        n = array_axis(axis)
        cases = {key: number for number, key in enumerate(self.request.volume_keys)}
        patients = self._patients()
        for segment in self.request.segments:
            view = self.views[segment.volume_key]
            shape = view.volume.geometry.shape_kji
            if not view.volume.geometry.box.contains(segment.mask.box):
                raise InputError(f"{segment.name!r} reaches out of its image; take the segment of that image")
            planes = np.moveaxis(segment.mask.expand(shape), n, 0)
            for index in range(segment.mask.box.start_kji[n], segment.mask.box.stop_kji[n]):
                count = int(np.count_nonzero(planes[index]))
                small += 0 < count < self.request.training.least_pixels
                if count < max(1, self.request.training.least_pixels):
                    continue
                at = LabelledSlice(cases[segment.volume_key], patients[segment.volume_key], index)
                mask = view.orientation(axis).turn(planes[index])
                objects.append(SliceObject(at, segment.name, mask, segment.elsewhere))
        if small:
            least = self.request.training.least_pixels
            self.notes.append(f"left out: {small} objects with fewer than {least} pixels on their slice")
        if all(item.elsewhere for item in objects):
            raise InputError("there is no segment to learn from that is large enough on any slice")
        return objects

    def _patients(self) -> dict[str, str]:
        """The patient of each image."""
        named = {segment.volume_key: segment.patient for segment in self.request.segments}
        images = [(patient, self.views[key].volume.array_kji) for key, patient in named.items()]
        patients = dict(zip(named, joined_patients(images), strict=True))
        joined = sorted({f"{named[key]} and {patients[key]}" for key in named if named[key] != patients[key]})
        self.notes.extend(f"taken for one patient, since their images share slices: {names}" for names in joined)
        return patients

    def _encode(self, model: AdaptableModel, split: Split, elsewhere: Sequence[SliceObject]) -> None:
        """Encode what is needed, as far as the budget goes: half of it for what is learned from."""
        settings = self.request.training
        groups = [
            sorted(split.training, key=_order),
            sorted(split.units, key=_order),
            sorted({item.slice for item in elsewhere}, key=_order),
        ]
        nbytes = max(1, self._embed(groups[0][0]).nbytes)
        most = max(_FEWEST_SLICES, self.budget // nbytes)
        chosen = [spread(group, max(2, most * share // 6)) for group, share in zip(groups, (3, 1, 1), strict=True)]
        left_out = sum(map(len, groups)) - sum(map(len, chosen))
        if left_out:
            self.notes.append(f"left out for want of memory: {left_out} slices, evenly spread")
        every = [item for group in chosen for item in group]
        count = min(DISGUISES, most // 6) if settings.distillation else 0
        for done, item in enumerate(every):
            self.progress.step("encode", done, len(every) + count)
            self._embeddings[item] = self._embed(item)
        for n in range(count):
            self.progress.step("encode", len(every) + n, len(every) + count)
            shown = self._picture(chosen[0][n * len(chosen[0]) // count])
            picture = disguised(shown, np.random.default_rng([settings.seed, n]))
            self._disguises.append((picture, plain(model.encode(picture, self.progress.check))))

    def _embed(self, item: LabelledSlice) -> Any:
        key = self.request.volume_keys[item.case]
        return plain(self.views[key].embed(self.request.training.axis, item.index))


def _order(item: LabelledSlice) -> tuple[int, int]:
    return item.case, item.index


def _score_text(scores: KindScores, result: Adaptation) -> str:
    low = "unknown" if scores.gain.low is None else f"{scores.gain.low:+.3f}"
    words = "one click" if scores.kind == "point" else scores.kind
    return f"{words}: {scores.before:.3f} to {scores.after:.3f}, at least {low} ({result.units} {result.split})"


def _fingerprint(request: AdaptRequest, loaded: LoadedModel[Any]) -> str:
    """A hash of all that a training depends on."""
    document, parts = pack(replace(request, request_id=0))
    digest = hashlib.sha256(json.dumps([document, repr(loaded.weights), __version__], sort_keys=True).encode())
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note the seconds of a stage by its name."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)
