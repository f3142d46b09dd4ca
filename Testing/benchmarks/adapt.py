"""Adaptation of LiteMedSAM to the small abdominal CT: Dice before and after, forgetting, time, memory, chance."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from FoundationSegLib.api_adaptation import adapt, corrected, settings_for
from FoundationSegLib.hub.fetch import ensure_checkpoint
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.installation.inspection import peak_memory_mb
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_label_map
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.adaptation import Adaptation, CorrectedSegment, Gain, KindScores, Training
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.conftest import SHARED
from Testing.toy_adaptation import null_request, toy_case, toy_engine

from .timing import timed_s
from .yardsticks import CARD, STORE

BELOW = 0.85  # labels whose box is worse with the base are those that may be improved
NULL_SEEDS = 100


def adapt_bench() -> Iterator[str]:
    """Interleaved slices, as in the trial that the bars come from; blocks with a gap, as the product tests; chance."""
    for name, interleaved in (("interleaved slices", True), ("blocks with a gap", False)):
        yield from measured(name, Training(least_pixels=100, interleaved=interleaved))
    yield f"labels shuffled between cases: offered in {null_offers(NULL_SEEDS)} of {NULL_SEEDS} seeds (at most 5)"


def measured(name: str, training: Training) -> Iterator[str]:
    """One adaptation in a worker of its own, with a store that holds the base alone."""
    ct, mr = case("ct", elsewhere=False), case("mr", elsewhere=True)
    ensure_checkpoint(STORE, CARD, Progress())
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(STORE.all_of(CARD), Path(folder) / "models" / STORE.all_of(CARD).name)
        settings = settings_for((ct[0], mr[0]), WorkerSettings("cpu", Path(folder)))
        results: list[Adaptation] = []
        with contextlib.closing(ProcessClient(settings)) as client:

            def work() -> None:
                segments = (*ct[1], *mr[1])
                results.append(adapt((ct[0], mr[0]), segments, client, CARD, "bench", training=training))

            seconds = timed_s(work)
            memory = peak_memory_mb(client.worker_pid)
    result = results[0]
    taken = ", ".join(f"{stage} {value:.0f} s" for stage, value in result.seconds.items())
    yield f"{name}: {result.steps} of {training.steps} steps, {result.units} units"
    yield f"  {seconds:.0f} s in all ({taken}), {memory:.0f} MB"
    yield from (f"  {row('CT', score)}" for score in result.kinds)
    yield from (f"  {row('MR, not learned from', score)}" for score in result.elsewhere)
    yield f"  passed: {', '.join(result.passed) or 'none'}"
    boxes = next(score for score in result.kinds if score.kind == "box")
    for label in boxes.labels:
        if label.before < BELOW:
            after = f"{label.before:.3f} to {label.after:.3f}"
            yield f"    box, label {label.name:>3}: {after}, gain {gain_text(label.gain)}"


def gain_text(gain: Gain) -> str:
    low, high = ("?" if end is None else f"{end:+.3f}" for end in (gain.low, gain.high))
    return f"{gain.mean:+.3f} ({low} to {high})"


def row(where: str, scores: KindScores) -> str:
    after = f"{scores.before:.3f} to {scores.after:.3f} on {scores.objects} objects"
    return f"{where}, {scores.kind}: {after}, gain {gain_text(scores.gain)}; without a model {scores.baseline:.3f}"


def case(name: str, *, elsewhere: bool) -> tuple[Volume, list[CorrectedSegment]]:
    """A small abdominal image with its labels, by number."""
    folder = SHARED / "TotalSegmentator"
    volume = read_volume(folder / f"example_{name}_sm.nii.gz")
    labels, grid = read_label_map(folder / f"example_{name}_sm_seg.nii.gz")
    match = volume.geometry.match(grid)
    assert match is not None
    turned = match.turned(labels)
    masks = {str(value): turned == value for value in np.unique(turned[turned > 0]).tolist()}
    return volume, corrected(volume, masks, name, elsewhere=elsewhere)


def null_offers(seeds: int) -> int:
    """How often a toy decoder is offered that learned from the labels of other images."""
    cases = [toy_case(seed) for seed in range(6)]
    with tempfile.TemporaryDirectory() as folder:
        engine = toy_engine(Path(folder), cases)
        training = Training(steps=100, rate=1e-2, least_pixels=5)
        return sum(bool(engine.adapt(null_request(cases, seed, training), Progress()).passed) for seed in range(seeds))
