"""An image with a block in it, and an engine with a fake model to ask about it."""

import numpy as np

from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.hub.store import Store
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, SegmentPrompts
from FoundationSegLib.requests.segmentation import PredictRequest
from Testing.unit.fakes import FakeModel, fake_card, fill_store, volume_of

SHAPE = (6, 10, 12)
BRIGHT = (slice(1, 5), slice(3, 7), slice(4, 9))
AROUND = BoxPrompt(((3.0, 2.0, 1.0), (9.0, 7.0, 4.0)))


def ct():
    """-1000 with a block of 200 in it, as a scanner would give it."""
    array = np.full(SHAPE, -1000, np.int16)
    array[BRIGHT] = 200
    return volume_of(array)


def new_engine(folder, model=None, card=None, device="cpu", **fields):
    """An engine on the CPU whose store has the card's checkpoint, and whose model is a fake one or a loader of one."""
    card, store, model = card or fake_card(), Store(folder), model or FakeModel()
    if store.status(card) == "absent":
        fill_store(folder, card)
    load = model if callable(model) else lambda *arguments: model
    return Engine({card.id: card}, store, device, load_model=load, **fields)


def request(volume, *prompts, **fields):
    segment = SegmentPrompts("Block", prompts or (AROUND,))
    return PredictRequest(7, "fake", volume.key, (segment,), **fields)


def predict(engine, volume, *prompts, **fields):
    engine.add_volume(volume)
    return engine.predict(request(volume, *prompts, **fields), Progress())
