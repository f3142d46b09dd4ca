"""`python -m FoundationSegLib` with the fake model, for tests in a process of its own; its worker is real.

    python -m Testing.unit.commands.fake_program program|worker CARD_FOLDER MARKER ARGUMENT...

Beyond loopback no socket may connect and no name be looked up, in the program and in the worker. With a MARKER that is
not empty, the first decoding makes a file of that name, with the number of the worker's process in it, and takes a
minute, in which something can happen to either.
"""

import os
import sys
import time
from argparse import Namespace
from pathlib import Path

from FoundationSegLib.commands import segment
from FoundationSegLib.commands.cli import main
from FoundationSegLib.core import cards
from FoundationSegLib.engine import engine
from FoundationSegLib.worker import main as worker_main
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.settings import WorkerSettings
from Testing.unit.fakes import FakeModel

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
        if self.marker and not Path(self.marker).exists():
            Path(self.marker).write_text(str(os.getpid()))
            time.sleep(60)
        return super().decode(embedding, prompt, previous)


def open_client(options: Namespace) -> ProcessClient:
    command = (sys.executable, "-P", "-m", MODULE, "worker", str(cards.card_folder()), SlowModel.marker)
    return ProcessClient(WorkerSettings(options.device), command)


if __name__ == "__main__":
    role, folder, SlowModel.marker, *rest = sys.argv[1:]
    sys.addaudithook(trap)
    cards.card_folder = lambda: Path(folder)
    engine.load_slice_model = lambda *arguments: SlowModel()
    engine.choose_device = lambda choice: "cpu"
    if role == "worker":
        worker_main.main()
    segment.open_client = open_client
    sys.exit(main(rest))
