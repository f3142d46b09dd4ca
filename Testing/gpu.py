"""Prove on a graphics card what the ordinary tests prove on the processor: every adapter, with random weights.

    python3 Testing/run.py gpu [--here] [--device cuda|mps|cpu] [--small] [--only FAMILY ...] [--json FILE]

Prints one table and writes one JSON document; exits 1 if a check failed. Networks for the masks are small; those for
speed and memory have their true size, unless `--small`. A family whose packages are missing is named and skipped. With
`--here` the running interpreter is used and nothing is installed. Nothing is downloaded.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import SamConfig

from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.engine.device import release_memory, taken_bytes
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.engine.slice_inference import LEAST_AGREEMENT, best_precision, example_slice
from FoundationSegLib.errors import Cancelled, FoundationSegError, MemoryShortageError
from FoundationSegLib.hub.store import Store
from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models.protocols import SlicePrompt, load_model
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, ClassPrompt, PointPrompt, SegmentPrompts, TextPrompt
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.requests.segmentation import PredictRequest, Propagation
from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.process import Timeouts
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.models import small_models, small_sam, small_worker

SHAPE = (6, 48, 64)
VECTORS_AGREE = 1e-3  # cosines of classifiers, as far as 16-bit units of a card change them
RUNS = 5
SHORTAGE = "CUDA out of memory: made by this check"


@dataclass(frozen=True, slots=True)
class Row:
    """A check: ``passed`` is None where it was skipped, and where a number is only reported."""

    family: str
    check: str
    value: str
    passed: bool | None = None


def image() -> Volume:
    """A bright body that moves from slice to slice, in noise."""
    k, j, i = np.indices(SHAPE)
    body = ((j - 18 - k) / 12) ** 2 + ((i - 36 + k) / 16) ** 2 < 1
    array = 100 + 500 * body + 3 * i + np.random.default_rng(0).normal(0, 40, SHAPE)
    return Volume(array.astype(np.int16), geometry_from_spacing(SHAPE))


def request_of(card: ModelCard, volume: Volume) -> PredictRequest:
    """The first of a box, a point, a class or a text that a model knows, carried on where it sees slices."""
    ras = [tuple(volume.geometry.to_ras(index).tolist()) for index in ((20, 6, 2), (52, 32, 2), (36, 19, 2))]
    prompts = {
        "box": BoxPrompt((ras[0], ras[1])),
        "point": PointPrompt(ras[2]),
        "class": ClassPrompt("liver"),
        "text": TextPrompt("liver"),
    }
    prompt = next(prompts[kind] for kind in prompts if kind in card.prompts)
    propagation = None if card.sees_volumes else Propagation(start=1, stop=5, least_agreement=0.0)
    return PredictRequest(1, card.id, volume.key, (SegmentPrompts("S", (prompt,)),), propagation=propagation)


@dataclass(slots=True)
class Subject:
    """A small checkpoint in a store, and engines that load it."""

    card: ModelCard
    store: Store
    device: str

    def engine(self, device: str = "", change: Callable[[Any], Any] = lambda model: model) -> Engine:
        def load(*arguments: Any) -> Any:
            return change(small_models.load_small(*arguments))  # what `change` raises was raised at loading

        return Engine({self.card.id: self.card}, self.store, device or self.device, load_model=load)

    def predict(self, engine: Engine) -> Any:
        volume = image()
        engine.add_volume(volume)
        return engine.predict(request_of(self.card, volume), Progress())

    def mask(self, prediction: Any) -> np.ndarray:
        return prediction.segments[0].mask.expand(SHAPE)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def check_masks(subject: Subject) -> Iterator[Row]:
    """The device's masks against the CPU's, and the precision that the policy chose for it."""
    prediction = subject.predict(subject.engine())
    agreement = dice(subject.mask(prediction), subject.mask(subject.predict(subject.engine("cpu"))))
    family, policy = subject.card.family, best_precision(subject.device)
    yield Row(family, "masks, device against CPU: Dice", f"{agreement:.4f}", agreement >= LEAST_AGREEMENT)
    kept = prediction.precision in (policy, "float32")
    yield Row(family, f"precision (policy: {policy})", prediction.precision, kept)


def check_vectors(subject: Subject) -> Iterator[Row]:
    """A classifier's vectors on the device against the CPU's: the largest difference of a cosine."""
    files, pictures = subject.store.checkpoint_files(subject.card), [example_slice()[0]]
    models = [small_models.load_small(subject.card, files, device) for device in (subject.device, "cpu")]

    def vectors(model: Any) -> Any:
        if subject.card.sees_volumes:
            return model.encode_volume(image(), Progress()).vector[None]
        return model.encode_images(pictures)

    def scores(model: Any) -> Any:
        if "text" not in subject.card.prompts:
            return model.labels.scores(vectors(model))
        return vectors(model) @ model.encode_texts(["a liver", "a lung"]).vectors.T

    pairs = [scores(model) for model in models]
    change = float(np.abs(pairs[0] - pairs[1]).max())
    yield Row(subject.card.family, "cosines, device against CPU", f"{change:.1e}", change <= VECTORS_AGREE)


class Failing:
    """A model, or a memory of one, that runs out of memory at the first call of the method that ``stages`` names."""

    def __init__(self, model: Any, stages: list[str]) -> None:
        self._model, self._stages = model, stages

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if name == "remember":
            return lambda slices: Failing(value(slices), self._stages)
        return self._fail if name in self._stages else value

    def _fail(self, *_: Any) -> None:
        self._stages.clear()
        raise torch.OutOfMemoryError(SHORTAGE)


def check_shortage(subject: Subject) -> Iterator[Row]:
    """Memory that runs out at each stage: the request is answered again, with the same mask."""
    expected = subject.mask(subject.predict(subject.engine()))
    on_slices = ("encode", "prompt", "follow") if 3 in subject.card.dimensions else ("encode", "decode")

    def change(model: Any, stages: list[str]) -> Any:
        failing = Failing(model, stages)
        return failing._fail() if "load" in stages else failing

    for stage in ("load", *(("view",) if subject.card.sees_volumes else on_slices)):
        stages = [stage]
        answer = subject.predict(subject.engine(change=partial(change, stages=stages)))
        same = not stages and bool((subject.mask(answer) == expected).all())
        yield Row(subject.card.family, f"out of memory: {stage}", "the same mask" if same else "another mask", same)


def check_full_device(subject: Subject) -> Iterator[Row]:
    """A card that another program has filled: a clear error, and an answer once there is room."""
    if subject.device != "cuda":
        return
    engine = subject.engine()
    expected = subject.mask(subject.predict(subject.engine()))
    release_memory("cuda")
    held = [torch.empty(max(1, torch.cuda.mem_get_info()[0] - 2**20), dtype=torch.uint8, device="cuda")]
    try:
        subject.predict(engine)
        outcome, passed = "answered in spite of it", None
    except FoundationSegError as error:
        outcome, passed = type(error).__name__, isinstance(error, MemoryShortageError)
    held.clear()
    release_memory("cuda")
    same = bool((subject.mask(subject.predict(engine)) == expected).all())
    yield Row(subject.card.family, "a full card, then room", outcome, passed and same if passed is not None else same)


def check_stops(subject: Subject) -> Iterator[Row]:
    """Cancelled in the midst of an encoding, and a worker killed with the model on the device: the same mask after."""
    expected = subject.mask(subject.predict(subject.engine()))
    if not subject.card.sees_volumes:
        engine = subject.engine()
        engine.prepare(subject.card.id, Progress())
        (loaded,) = (engine.models.get(name) for name in engine.models)

        def stop() -> None:
            raise Cancelled

        with contextlib.suppress(Cancelled):
            loaded.model.encode(np.zeros(SHAPE[1:], np.uint8), stop)
        same = bool((subject.mask(subject.predict(engine)) == expected).all())
        yield Row(subject.card.family, "cancelled, then asked again", "the same mask" if same else "another mask", same)
    if os.name == "nt":
        return
    settings, command = WorkerSettings(subject.device, subject.store.folder), small_worker.command(subject.card.id)
    masks = []
    with contextlib.closing(ProcessClient(settings, command, Timeouts(start_s=600))) as client:
        volume = image()
        client.send_volume(volume)
        for _ in range(2):
            masks.append(subject.mask(ask(client, request_of(subject.card, volume))))
            os.kill(client.worker_pid, 9)
    same = bool((masks[0] == masks[1]).all()) and dice(masks[0], expected) >= LEAST_AGREEMENT
    yield Row(subject.card.family, "worker killed, then asked again", "the same mask" if same else "another mask", same)


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device != "cpu":
        getattr(torch, device).synchronize()


def peak_bytes(device: str) -> int:
    """The most memory that was taken on a device; on MPS and the CPU, which do not count that, what is taken now."""
    if device == "mps":
        return torch.mps.driver_allocated_memory()
    return torch.cuda.max_memory_allocated() if device == "cuda" else taken_bytes()


def seconds(work: Callable[[], Any], device: str) -> float:
    """The median time of a piece of work, once it ran warm."""
    times = []
    for _ in range(2 if device == "cpu" else RUNS + 1):
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def check_speed(family: str, card: ModelCard, device: str, small: bool) -> Iterator[Row]:
    """Encoding, click and volume of SAM 2 and EdgeTAM against transformers' own, and the memory against the card's."""
    from FoundationSegLib.models.segmentation.sam2 import Sam2, Sam2Preparation
    from Testing.models import small_sam2
    from Testing.models.reference_sam2 import Video

    size = small_sam2.SIZE if small else 1024
    networks = [small_sam2.true_network(family, size, small).to(device) for _ in range(2)]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    adapter, frames = Sam2(networks[0], Sam2Preparation(size), device), small_sam2.volume_of_slices(4)
    pixels, prompt = Sam2Preparation(size)(frames[0]).to(device), SlicePrompt((20.0, 10.0, 50.0, 40.0))
    embeddings = [adapter.encode(frame) for frame in frames]

    def plain_encoding() -> None:
        with torch.inference_mode():
            networks[1].get_image_features(pixels)

    def followed() -> None:
        memory = adapter.remember(len(frames))
        memory.prompt(0, adapter.encode(frames[0]), prompt)
        for index in range(1, len(frames)):
            memory.follow(index, adapter.encode(frames[index]), True)

    def plain_session() -> None:
        video = Video(networks[1], frames, size, device)
        video.prompt(0, prompt)
        video.propagate(0, True)

    works = {"encode a slice": (lambda: adapter.encode(frames[0]), plain_encoding), "volume": (followed, plain_session)}
    for name, (ours, theirs) in works.items():
        here, there = seconds(ours, device), seconds(theirs, device)
        yield Row(family, f"{name}, against transformers", f"{here:.3f} s, {there:.3f} s: {there / here:.2f} times")
    click = seconds(lambda: adapter.decode(embeddings[0], prompt), device)
    yield Row(family, "a further click", f"{1000 * click:.1f} ms")
    yield memory_row(family, card, device, small)


def memory_row(family: str, card: ModelCard, device: str, small: bool) -> Row:
    """The memory at the peak against the forecast of the card."""
    peak, forecast = peak_bytes(device), (card.memory_mb or {}).get(device, 0)
    passed = None if small or device != "cuda" else peak <= forecast * 10**6
    return Row(family, "memory at the peak, MB (the card's forecast)", f"{peak // 10**6} ({forecast})", passed)


def check_memory(family: str, card: ModelCard, device: str, small: bool, folder: Path) -> Iterator[Row]:
    """An encoding and a click of SAM, MedSAM or MobileSAM at their true size, and the memory for it."""
    if small:
        return
    release_memory(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    (folder / "true").mkdir()
    if family == "mobile-sam":
        files = small_sam.write_mobile_sam(folder / "true")
    else:
        files = small_sam.write_checkpoint(folder / "true", SamConfig())
    model, (picture, box) = load_model(card, files, device), example_slice()
    spent = seconds(lambda: model.decode(model.encode(picture), SlicePrompt(box)), device)
    yield Row(family, "encode a slice and decode a box", f"{spent:.3f} s")
    yield memory_row(family, card, device, small)


def check_family(family: str, device: str, small: bool, folder: Path) -> Iterator[Row]:
    card, store = small_models.stock(small_models.LIGHTEST[family], folder / family)
    subject = Subject(card, store, device)
    if card.task == "classify":
        yield from check_vectors(subject)
        return
    for check in (check_masks, check_shortage, check_full_device, check_stops):
        yield from check(subject)
    if family in ("sam2", "edgetam"):
        yield from check_speed(family, card, device, small)
    if family in ("sam", "medsam", "mobile-sam"):
        yield from check_memory(family, card, device, small, folder / family)


def checked_families(families: Sequence[str], device: str, small: bool) -> Iterator[Row]:
    """The rows of all families; what a family lacks, or fails with, is a row of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for family in families:
            if family not in small_models.LIGHTEST:
                yield Row(family, "skipped", f"the package {small_models.NEEDED.get(family)} is not installed")
                continue
            try:
                yield from check_family(family, device, small, Path(folder))
            except ImportError as error:
                yield Row(family, "skipped", f"a package is missing: {error.name}")
            except (FoundationSegError, RuntimeError) as error:
                yield Row(family, "failed", f"{type(error).__name__}: {error}"[:200], False)
            release_memory(device)


def machine(device: str) -> dict[str, str]:
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {"device": device, "name": name, "torch": torch.__version__, "python": platform.python_version()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run.py gpu", description=__doc__.splitlines()[0])
    usual = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"), default=usual)
    parser.add_argument("--small", action="store_true", help="small networks for speed and memory too")
    parser.add_argument("--only", nargs="+", choices=sorted(small_models.WRITERS), default=list(small_models.WRITERS))
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    options = parser.parse_args(arguments)
    start, rows = time.perf_counter(), []
    print(f"{'family':<17}{'check':<48}{'value':<52}result")
    for row in checked_families(options.only, options.device, options.small or options.device == "cpu"):
        rows.append(row)
        result = {True: "passed", False: "FAILED", None: ""}[row.passed]
        print(f"{row.family:<17}{row.check:<48}{row.value:<52}{result}", flush=True)
    document = {"machine": machine(options.device), "seconds": round(time.perf_counter() - start, 1)}
    options.json.write_text(json.dumps(document | {"rows": [asdict(row) for row in rows]}, indent=1), encoding="utf-8")
    print(f"{document['seconds']} s; written: {options.json}")
    return int(any(row.passed is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
