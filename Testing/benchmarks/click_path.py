"""The way of one box through the library: how many files, functions and calls, from the prompt to the told outcome.

    python3 Testing/run.py bench click-path [FOLDER] [--functions]

Counted is the second box of a segment beside one neighbour, with the in-line client, the engine and a model of rules:
(a) with segments in memory and no listener, (b) on Slicer's nodes, with prompts as markups and recovery on. Every call
event of code under FoundationSegLib counts (:func:`sys.setprofile`), a generator once; comprehensions are calls up to
Python 3.11. FOLDER is another checkout, such as one of an earlier commit.
"""

import argparse
import importlib
import inspect
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (12, 40, 48)
NEIGHBOUR, FIRST, SECOND = ((30, 10, 6), (40, 30, 6)), ((5, 5, 6), (15, 15, 6)), ((12, 12, 6), (34, 24, 6))
CARD = {
    "id": "rules",
    "title": "Model of rules",
    "task": "segment",
    "family": "lite-medsam",
    "prompts": ["box"],
    "dimensions": [2],
    "channels": [1, 3],
    "good_at": "counting",
    "bad_at": "images",
    "citation": "none",
    "source": {
        "kind": "pypi-wheel",
        "repository": "rules",
        "revision": "1",
        "files": [{"path": "a/rules.pth", "bytes": 1, "sha256": "0" * 64}],
    },
    "license": {"name": "MIT", "commercial_use": "yes"},
}


class Library:
    """The library's names, wherever they stand in a checkout: ``library("Session")`` is the class of that name.

    Of several names the first that is there counts: the new one first, then that of earlier commits.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "FoundationSegLib"
        self._texts = {path: path.read_text(encoding="utf-8") for path in sorted(self.folder.rglob("*.py"))}

    def __call__(self, *names: str) -> Any:
        for name in names:
            for path, text in self._texts.items():
                if re.search(rf"^(class|def) {name}\b", text, re.MULTILINE):
                    module = path.relative_to(self.folder.parent).with_suffix("")
                    return getattr(importlib.import_module(".".join(module.parts)), name)
        raise LookupError(f"{self.folder} defines none of {', '.join(names)}")


class RuleModel:
    """Whatever is bright inside a box."""

    device, precision, nbytes = "cpu", "float32", 1000

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    def encode(self, image: np.ndarray, check: Callable[[], None] = lambda: None) -> "RuleModel.Seen":
        check()
        return RuleModel.Seen(image)

    def decode(self, embedding: "RuleModel.Seen", prompt: Any, previous: Any = None) -> Any:
        x0, y0, x1, y1 = (int(edge) for edge in prompt.box)
        mask = np.zeros(embedding.image.shape[:2], np.bool_)
        mask[max(0, y0) : y1 + 1, max(0, x0) : x1 + 1] = True
        return self._answer(mask & (embedding.image >= 128), 0.75)

    def box_around(self, mask: np.ndarray, wider: int = 0) -> tuple[float, ...] | None:
        rows, columns = np.nonzero(mask)
        return (columns.min(), rows.min(), columns.max(), rows.max()) if rows.size else None

    @dataclass(frozen=True)
    class Seen:
        image: np.ndarray
        nbytes: int = 1000


# Here, and only here, is what a rebuilt library may call otherwise: how a session is opened and given a box.


@dataclass(frozen=True)
class Prepared:
    """A session at the point where the second box is given.

    Attributes:
        give: gives a segment's box, and returns when the outcome was told.
        voxels: how many the segment has.
    """

    give: Callable[[], None]
    voxels: Callable[[], int]


def new_client(library: Library, card: Any) -> Any:
    """An in-line client, its engine, and the model that needs no checkpoint."""
    engine = library("Engine")({card.id: card}, library("Store")(Path("nowhere")), "cpu")
    checkpoint = library("CheckpointRecord")(card.id, "rules", "1", "ab")
    loaded = library("LoadedModel")
    if "weights" in loaded.__dataclass_fields__:  # earlier ones had the checkpoint alone
        checkpoint = library("Weights")(checkpoint, "cpu", "float32")
    engine.models.put(card.id, loaded(RuleModel(library("SliceAnswer")), checkpoint))
    return library("InlineClient")(engine)


def new_volume(library: Library) -> Any:
    bright = np.random.default_rng(3).integers(90, 110, SHAPE).astype(np.int16)
    bright[:, 2:38, 2:46] += 200
    return library("Volume")(bright, library("geometry_from_spacing")(SHAPE))


def prepare(library: Library, session: Any, geometry: Any, voxels: Callable[[str], int]) -> Prepared:
    """Give a neighbour its box and a segment its first."""
    neighbour, first, second = (
        library("BoxPrompt")(tuple(tuple(geometry.to_ras(corner).tolist()) for corner in corners))
        for corners in (NEIGHBOUR, FIRST, SECOND)
    )
    library("new_segment")(session, "Neighbour").add(neighbour)
    segment = library("new_segment")(session, "Organ")
    segment.add(first)
    return Prepared(lambda: segment.add(second), lambda: voxels(segment.segment_id))


@contextmanager
def in_memory(library: Library) -> Iterator[Prepared]:
    """As a script does it."""
    card, volume = library("parse_card")(CARD), new_volume(library)
    choice, store = library("ModelChoice").of(card), library("ArrayStore")(volume.geometry)
    session = library("open_session")(volume, new_client(library, card), choice, store)
    yield prepare(library, session, volume.geometry, lambda key: int(store.read(key, volume.geometry.box).sum()))


@contextmanager
def in_scene(library: Library) -> Iterator[Prepared]:
    """As a script in Slicer does it, with what keeps a panel's session against crashes."""
    card, volume = library("parse_card")(CARD), new_volume(library)
    headless = library("boot_scene")()
    volume_node = library("add_volume_node")(headless.scene, volume)
    node = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    choice = library("ModelChoice").of(card)
    opened = library("NodeSession")(volume_node, node, new_client(library, card), choice)
    recovery = library("keep_session", "SceneRecovery")(opened.session, node)
    opened.session.on_outcome = recovery.note
    read = importlib.import_module("slicer.util").arrayFromSegmentBinaryLabelmap
    with opened as session:
        yield prepare(library, session, volume.geometry, lambda key: int(read(node, key, volume_node).sum()))
    recovery.close()


# What is counted, and the most files, functions and calls.
CASES = {
    "(a) in memory, no listener": (in_memory, (30, 120, 350)),
    "(b) in a scene, prompts as markups, recovery": (in_scene, (31, 206, 790)),
}


def calls_of(work: Callable[[], None], folder: Path) -> Counter[tuple[str, str]]:
    """How often each function of a folder is called, by file and name, in the order of their first calls."""
    calls: Counter[tuple[str, str]] = Counter()
    generators: set[Any] = set()  # each counts once, and not again whenever it goes on
    beginning = f"{folder}{os.sep}"

    def note(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(beginning) and frame not in generators:
            if code.co_flags & inspect.CO_GENERATOR:
                generators.add(frame)
            calls[code.co_filename.removeprefix(beginning), code.co_qualname] += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def measure(root: Path, with_functions: bool) -> Iterator[str]:
    library = Library(root)
    with in_memory(library) as first:
        first.give()  # values compile their methods at the first call of one, which is no part of a later click
    for name, (case, most) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            os.environ["FOUNDATIONSEG_RECOVERY"] = folder
            with case(library) as prepared:
                before = prepared.voxels()
                calls = calls_of(prepared.give, library.folder)
                assert prepared.voxels() > before, "the box changed nothing"
        files = {file for file, _ in calls}
        bar = "bar {}, {}, {}".format(*most)
        yield f"{name}: {len(files)} files, {len(calls)} functions, {calls.total()} calls ({bar})"
        if with_functions:
            yield from (f"{count:6} {file} {function}" for (file, function), count in calls.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure in a process of its own, whose imports are those of the checkout that is measured."""
    parser = argparse.ArgumentParser(prog="run.py bench click-path", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--functions", action="store_true", help="each function with its calls, in order")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    root = options.folder.resolve()
    if options.here:
        for line in measure(root, options.functions):
            print(line)
        return 0
    return _in_its_own_process(root, *(("--functions",) if options.functions else ())).returncode


def click_path() -> list[str]:
    """Both counts of this checkout, as text."""
    run = _in_its_own_process(Path(__file__).resolve().parents[2], capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


def _in_its_own_process(root: Path, *flags: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    command = (sys.executable, "-P", "-W", "ignore", __file__, str(root), "--here", *flags)
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, **options)


if __name__ == "__main__":
    sys.exit(main())
