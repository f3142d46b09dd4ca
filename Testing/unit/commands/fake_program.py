"""`python -m FoundationSegLib` with the fake model, for tests in a process of its own.

    python -m Testing.unit.commands.fake_program CARD_FOLDER MARKER ARGUMENT...

No socket may connect and no name be looked up. With a MARKER that is not empty, the first decoding makes a file of
that name and takes a minute, in which the process can be interrupted.
"""

import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from FoundationSegLib.commands.cli import main
from FoundationSegLib.core import cards
from FoundationSegLib.engine import engine
from Testing.unit.fakes import FakeModel


def refuse(*arguments: object, **options: object) -> NoReturn:
    raise RuntimeError("somebody went to the network")


class SlowModel(FakeModel):
    marker = ""

    def decode(self, embedding, prompt):
        if self.marker:
            Path(self.marker).touch()
            time.sleep(60)
        return super().decode(embedding, prompt)


if __name__ == "__main__":
    folder, SlowModel.marker, *rest = sys.argv[1:]
    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, refuse)
    socket.getaddrinfo = refuse
    cards.card_folder = lambda: Path(folder)
    engine.load_slice_model = lambda *arguments: SlowModel()
    engine.choose_device = lambda choice: "cpu"
    sys.exit(main(rest))
