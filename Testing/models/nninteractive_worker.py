"""A real worker process around a real engine with a small nnInteractive; run as a module, with the weights' folder."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from FoundationSegLib.engine import engine
from FoundationSegLib.hub.store import Store
from FoundationSegLib.models.protocols import load_volume_model
from FoundationSegLib.requests.worker_settings import WorkerSettings
from FoundationSegLib.worker import server
from Testing.models.small_nninteractive import card_of


def make_engine(settings: WorkerSettings) -> engine.Engine:
    def load(*arguments: Any) -> Any:  # random weights reach the border of any surrounding
        return replace(load_volume_model(*arguments), autozoom=False)

    engine.load_volume_model = load
    root = Path(sys.argv[1])
    card = card_of({path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()})
    return engine.Engine({card.id: card}, Store(settings.store_folder or root), "cpu")


if __name__ == "__main__":
    server.main(make_engine)
