"""`python -m FoundationSegLib` with the fake model, for tests in a process of its own; its worker is real.

    python -m Testing.unit.commands.fake_program program|worker CARD_FOLDER MARKER ARGUMENT...

Beyond loopback no socket may connect and no name be looked up, in the program and in the worker. With a MARKER that is
not empty, the first decoding, or the first look of the model that classifies, makes a file of that name, with the
number of the worker's process in it, and takes a minute, in which something can happen to either.
"""

import os
import sys
import time
import types
from pathlib import Path

from FoundationSegLib.catalog import catalogue as cards
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.commands.cli import main
from FoundationSegLib.engine import engine
from FoundationSegLib.models import protocols
from FoundationSegLib.models.protocols import unstoppable
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.worker import server as worker_main
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.unit.fakes import FakeModel
from Testing.unit.reader_model import ReaderModel

MODULE = "Testing.unit.commands.fake_program"


def trap(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse whatever leaves this computer."""
    if event in ("socket.connect", "socket.sendto", "socket.bind"):
        place = arguments[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments
    else:
        return
    if not (isinstance(place, tuple) and place[0] == "127.0.0.1"):
        raise RuntimeError(f"somebody went to the network: {event} {place}")


class SlowModel(FakeModel):
    marker = ""

    def decode(self, embedding, prompt, previous=None):
        dawdle()
        return super().decode(embedding, prompt, previous)


class SlowReader(ReaderModel):
    def encode_images(self, images, check=unstoppable):
        dawdle()
        return super().encode_images(images, check)


def dawdle() -> None:
    if SlowModel.marker and not Path(SlowModel.marker).exists():
        Path(SlowModel.marker).write_text(str(os.getpid()))
        time.sleep(60)


def load(card: ModelCard, *arguments: object) -> SlowModel | SlowReader:
    return SlowReader() if card.task == "classify" else SlowModel()


def connect(settings: WorkerSettings) -> ProcessClient:
    command = (sys.executable, "-P", "-m", MODULE, "worker", str(cards.card_folder()), SlowModel.marker)
    return ProcessClient(settings, command)


if __name__ == "__main__":
    role, folder, SlowModel.marker, *rest = sys.argv[1:]
    sys.addaudithook(trap)
    cards.card_folder = lambda: Path(folder)
    protocols.adapter_of = lambda card: types.SimpleNamespace(load=load)
    engine.choose_device = lambda choice: "cpu"
    if role == "worker":
        worker_main.main()
    sys.exit(main(rest, connect))
