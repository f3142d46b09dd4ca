"""A cluster of two workers for all tests of this folder, and cohorts of small images."""

import argparse
import contextlib
import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.cohorts.cluster import ClusterSize, open_cluster
from FoundationSegLib.commands.cli import build_parser, main
from FoundationSegLib.hub.store import STORE_VARIABLE
from FoundationSegLib.io.segmentations import read_mask_prompt
from FoundationSegLib.page import THUMBNAIL_PX
from Testing.unit.cohorts.cohort_model import connections
from Testing.unit.fakes import CARD_TOML, fill_store

SHAPE = (3, 20, 24)
BLOCK = (slice(1, 3), slice(4, 14), slice(5, 15))
CORNERS = [[5, 4, 1], [14, 13, 2]]
CLUSTER = pytest.StashKey[tuple[str, contextlib.ExitStack]]()


def write_case(path: Path, brightness: int = 200) -> Path:
    """Air with a block of tissue in it."""
    array = np.full(SHAPE, -1000, np.int16)
    array[BLOCK] = brightness
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def masks_in(folder: Path) -> dict[str, bytes]:
    return {path.name: read_mask_prompt(path, "Block")[0].tobytes() for path in folder.glob("*.seg.nrrd")}


@dataclass
class Cohort:
    """A folder of images, and the command that computes them on the tests' cluster."""

    folder: Path
    scheduler: str
    capture: Any
    more: tuple[str, ...] = field(default=())
    err: str = ""

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def rows(self) -> dict[str, dict[str, str]]:
        with (self.results / "cohort.csv").open(encoding="utf-8", newline="") as file:
            return {row["case"]: row for row in csv.DictReader(file)}

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.results.iterdir()}

    def masks(self) -> dict[str, bytes]:
        """The voxels of each result."""
        return masks_in(self.results)

    def encoded(self) -> int:
        """How many slices were encoded, in all processes."""
        path = self.folder / "encoded"
        return path.stat().st_size if path.exists() else 0

    def serial(self) -> dict[str, bytes]:
        """The voxels of each case, one after the other in this process, with the files that a case of a cohort has."""
        connect, catalogue = connections(self.folder)
        folder = self.folder / "serial"
        folder.mkdir()
        for image in sorted(self.images.iterdir()):
            files = [f"{folder / image.stem}.{kind}" for kind in ("seg.nrrd", "json", "png")]
            line = ["segment", str(image), "--model", "fake", "--prompts", str(self.folder / "prompts.json")]
            line += [part for pair in zip(("--output", "--report", "--overview"), files, strict=True) for part in pair]
            options = argparse.Namespace(connect=connect, catalogue=catalogue)
            build_parser().parse_args(line, options)
            options.overview_px = THUMBNAIL_PX
            options.run(options)
        return masks_in(folder)

    def run(
        self, *inputs: object, prompts: bool = True, scheduler: str | None = None, more: tuple[str, ...] = ()
    ) -> int:
        connect, catalogue = connections(self.folder)
        line = ["batch", *map(str, inputs or (self.images,)), "--model", "fake", "--output", str(self.results), *more]
        line += ["--prompts", str(self.folder / "prompts.json")] if prompts else []
        line += ["--scheduler", scheduler or self.scheduler] if "--workers" not in more else []
        self.capture.readouterr()
        try:
            code = main(line, connect, catalogue)
        except SystemExit as error:
            code = int(error.code or 0)
        self.err = self.capture.readouterr().err
        return code


@pytest.fixture(scope="session")
def store(tmp_path_factory: Any) -> Path:
    """The store of the workers, which have their own environment."""
    folder = tmp_path_factory.mktemp("store")
    fill_store(folder)
    return folder


@pytest.fixture
def scheduler(request: pytest.FixtureRequest, store: Path) -> str:
    """The cluster of this folder's tests, started for the first that needs it."""
    stash = request.session.stash
    if CLUSTER not in stash:
        ends = contextlib.ExitStack()
        ends.enter_context(pytest.MonkeyPatch.context()).setenv(STORE_VARIABLE, str(store))
        client = ends.enter_context(open_cluster(ClusterSize(2, 1, 4 * 10**9)))
        stash[CLUSTER] = (client.scheduler.address, ends)
    return stash[CLUSTER][0]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the cluster with the last test of this folder: idle workers take a tenth of a core each."""
    is_last = nextitem is None or "cohorts" not in nextitem.path.parts
    if is_last and (cluster := item.session.stash.get(CLUSTER, None)):
        del item.session.stash[CLUSTER]
        cluster[1].close()


@pytest.fixture
def cohort(tmp_path: Path, store: Path, scheduler: str, monkeypatch: Any, capfd: Any) -> Callable[..., Cohort]:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the command line sets its own
    monkeypatch.setenv(STORE_VARIABLE, str(store))
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "fake.toml").write_text(CARD_TOML.replace('packages = ["fakelib"]', "packages = []"))
    prompts = {"type": "box", "corners": CORNERS}
    document = {"version": 1, "space": "ijk", "segments": [{"name": "Block", "prompts": [prompts]}]}
    (tmp_path / "prompts.json").write_text(json.dumps(document))

    def make(count: int) -> Cohort:
        for number in range(count):
            write_case(tmp_path / "images" / f"case{number}.nrrd", 200 + number)
        return Cohort(tmp_path, scheduler, capfd)

    return make
