"""Adaptation of LiteMedSAM to the small abdominal CT: Dice before and after, forgetting, time, memory, chance."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from FoundationSegLib.api_adaptation import adapt, corrected, settings_for
from FoundationSegLib.hub.fetch import ensure_checkpoint
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.installation.inspection import peak_memory_mb
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_label_map
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.adaptation import Adaptation, AdaptRequest, CorrectedSegment, Gain, KindScores, Training
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.protocol import Failed, Progressed
from Testing.conftest import SHARED
from Testing.toy_adaptation import null_request, toy_case, toy_engine

from .yardsticks import CARD, STORE

BELOW = 0.85  # labels whose box is worse with the base are those that may be improved
NULL_SEEDS = 100
NULL_STEPS = Training(steps=100, rate=1e-2, least_pixels=5)


def adapt_bench() -> Iterator[str]:
    """Interleaved slices, as in the trial that the bars come from; blocks with a gap, as the product tests; chance."""
    ct, mr = case("ct", elsewhere=False), case("mr", elsewhere=True)
    ensure_checkpoint(STORE, CARD, Progress())
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(STORE.all_of(CARD), Path(folder) / "models" / STORE.all_of(CARD).name)
        settings = settings_for((ct[0], mr[0]), WorkerSettings("cpu", Path(folder)))
        with contextlib.closing(ProcessClient(settings)) as client:
            for name, interleaved in (("interleaved slices", True), ("blocks with a gap", False)):
                training = Training(least_pixels=100, interleaved=interleaved)
                request = AdaptRequest(1, CARD.id, "bench", (*ct[1], *mr[1]), training=training)
                yield from measured(name, request, (ct[0], mr[0]), client)
            seconds = cancel_s(replace(request, request_id=2, name="cancel"), client)
            yield f"cancelled after {seconds * 1000:.0f} ms (< 200)"
    for kind, patients in (("patients", "ABCDEFGHI"), ("blocks of slices", "A" * 9)):
        offers = null_offers(NULL_SEEDS, patients)
        yield f"labels shuffled between cases, {kind} held out: offered in {offers} of {NULL_SEEDS} seeds (at most 5)"


def measured(name: str, request: AdaptRequest, volumes: tuple[Volume, ...], client: ProcessClient) -> Iterator[str]:
    """One adaptation. The second one in a worker finds the embeddings of the first one."""
    start = time.perf_counter()
    training = request.training
    result: Adaptation = adapt(volumes, request.segments, client, CARD, request.name, training=training)
    seconds, memory = time.perf_counter() - start, peak_memory_mb(client.worker_pid)
    taken = ", ".join(f"{stage} {value:.0f} s" for stage, value in result.seconds.items())
    yield f"{name}: {result.steps} of {training.steps} steps, {result.units} units"
    yield f"  {seconds:.0f} s in all ({taken}; the training at most 300 s), {memory:.0f} MB (< 3000)"
    yield from (f"  {row('CT', score)}" for score in result.kinds)
    yield from (f"  {row('MR, not learned from', score)}" for score in result.elsewhere)
    passed = ", ".join(score.kind for score in result.kinds if score.passed)
    yield f"  better beyond chance: {passed or 'none'}; offered for: {', '.join(result.passed) or 'none'}"
    boxes = next(score for score in result.kinds if score.kind == "box")
    for label in boxes.labels:
        if label.before < BELOW:
            after = f"{label.before:.3f} to {label.after:.3f} on {label.objects} objects"
            yield f"    box, label {label.name:>3}: {after}, gain {gain_text(label.gain)}"


def cancel_s(request: AdaptRequest, client: ProcessClient) -> float:
    """The seconds from a cancel within the training to its answer."""
    client.submit(request)
    while not any(isinstance(event, Progressed) and event.report.stage == "train" for event in client.poll()):
        client.wait(0.05)
    start = time.perf_counter()
    client.cancel(request.request_id)
    while not any(isinstance(event, Failed) for event in client.poll()):
        client.wait(0.005)
    return time.perf_counter() - start


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


def null_offers(seeds: int, patients: str) -> int:
    """How often a toy decoder is offered that learned from the labels of other images."""
    cases = [toy_case(seed) for seed in range(len(patients))]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so little work is slower on two
    with tempfile.TemporaryDirectory() as folder:
        engine = toy_engine(Path(folder), cases)
        requests = (null_request(cases, seed, NULL_STEPS, patients) for seed in range(seeds))
        offers = sum(bool(engine.adapt(request, Progress()).passed) for request in requests)
    torch.set_num_threads(threads)
    return offers
