"""A model of rules for the workers of a cluster, which get it by name, with faults that a test asks for by files."""

import contextlib
import functools
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.hub.store import Store, default_store_folder
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.fakes import FakeModel
from Testing.unit.reader_model import ReaderModel


@dataclass(slots=True)
class MortalModel(FakeModel):
    """The fake model, in a process that a file named ``kill-N`` in a folder ends at its Nth slice, once."""

    folder: Path = Path()

    def encode(self, image: Any, *arguments: Any) -> Any:
        with (self.folder / "encoded").open("a") as file:
            file.write("x")
        for path in self.folder.glob("kill-*"):
            if (self.folder / "encoded").stat().st_size >= int(path.name.removeprefix("kill-")):
                with contextlib.suppress(FileNotFoundError):  # where the other worker is ended by it
                    path.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
        return FakeModel.encode(self, image, *arguments)


def cards_of(folder: Path) -> Mapping[str, ModelCard]:
    return read_catalogue(folder / "cards")


def connect_in(folder: Path, settings: WorkerSettings) -> InlineClient:
    """A client with the model of rules; ``folder`` has its card and its faults."""

    def load(card: ModelCard, *_: Any) -> MortalModel | ReaderModel:
        return ReaderModel() if card.task == "classify" else MortalModel(folder=folder)

    store = Store(default_store_folder())
    return InlineClient(Engine(cards_of(folder), store, "cpu", settings.box_rule, settings.budget, load_model=load))


def connections(folder: Path) -> tuple[Any, Any]:
    """What the command line is given, in a form that travels: the maker of clients and the reader of cards."""
    return functools.partial(connect_in, folder), functools.partial(cards_of, folder)
