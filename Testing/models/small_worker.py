"""A real worker process around a small checkpoint; run as a module with the model's id. Its store has the files."""

import sys

from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.hub.store import Store
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.worker import server
from Testing.models.small_models import card_in, load_small


def command(model_id: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "Testing.models.small_worker", model_id)


def make_engine(settings: WorkerSettings) -> Engine:
    store = Store(settings.store_folder)
    card = card_in(store, sys.argv[1])
    return Engine({card.id: card}, store, settings.device, load_model=load_small)


if __name__ == "__main__":
    server.main(make_engine)
