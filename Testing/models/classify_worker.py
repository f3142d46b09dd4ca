"""A real worker whose catalogue is a small checkpoint to classify with; run as a module."""

import os
import sys
from dataclasses import replace

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.hub.records import hash_file
from FoundationSegLib.hub.store import Store
from FoundationSegLib.requests.worker_settings import WorkerSettings
from FoundationSegLib.worker import server

MODEL_VARIABLE = "FOUNDATIONSEG_TEST_MODEL"
COMMAND = (sys.executable, "-P", "-m", "Testing.models.classify_worker")


def card_in(store: Store, model_id: str) -> ModelCard:
    """The card of a small checkpoint that lies in a store."""
    card = read_catalogue()[model_id]
    there = [(file, path) for file in card.source.files if (path := store.file_path(card, file)).exists()]
    files = tuple(replace(file, bytes=path.stat().st_size, sha256=hash_file(path)) for file, path in there)
    return replace(card, source=replace(card.source, files=files), unverified=())


def make_engine(settings: WorkerSettings) -> Engine:
    store = Store(settings.store_folder)
    card = card_in(store, os.environ[MODEL_VARIABLE])
    return Engine({card.id: card}, store, settings.device)


if __name__ == "__main__":
    server.main(make_engine)
