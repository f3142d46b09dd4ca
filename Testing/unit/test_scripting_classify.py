"""Scripts that classify, with the real in-line client and a model made of rules."""

import numpy as np
import pytest

from FoundationSegLib.catalog import catalogue as cards
from FoundationSegLib.catalog.label_sets import label_set_of
from FoundationSegLib.engine import engine as engine_module
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import InputError, UnknownModelError
from FoundationSegLib.requests.classification import EvidenceWish, Subject
from FoundationSegLib.requests.scoring import Aggregation
from FoundationSegLib.scripting import choose_labels, classify_volume
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.fakes import fill_store, volume_of
from Testing.unit.reader_model import ReaderModel, reader_card


@pytest.fixture
def model(monkeypatch):
    made, card = ReaderModel(), reader_card()
    monkeypatch.setattr(engine_module, "load_slice_model", lambda card, files, device: made)
    monkeypatch.setattr("FoundationSegLib.scripting.read_catalogue", lambda: {card.id: card})
    return made


@pytest.fixture
def client(model, tmp_path):
    card = reader_card()
    return InlineClient(Engine({card.id: card}, fill_store(tmp_path, card), "cpu"))


def volume():
    voxels = np.random.default_rng(0).integers(0, 200, (4, 16, 16)).astype(np.int16)
    voxels[2] += 800
    return volume_of(voxels, modality="MR")


def test_one_call_asks_and_answers(client, model):
    reports = []
    found = classify_volume(volume(), client, "reader", ["bright", "dark"], on_progress=reports.append)
    assert found.label_set == "custom" and found.curves.shape == (4, 2) and reports
    assert found.curves[:, 0].argmax() == 2
    again = classify_volume(
        volume(),
        client,
        "reader",
        "modality",
        subject=Subject(start=1, stop=3),
        aggregation=Aggregation("max"),
        evidence=EvidenceWish("CT", slices=1),
    )
    assert len(again.scores) == 13 and again.slices == (1, 2) and again.evidence[0].label == "CT"
    assert again.counts["images"] == 1, "the evidence; the slices were seen before"
    client.remove_volume(volume().key)


def test_labels_are_a_set_its_id_or_words():
    own = label_set_of(["a", "b"])
    assert choose_labels(own) is own
    assert choose_labels("body-part").id == "body-part"
    assert choose_labels(["a", "b"]) == own
    with pytest.raises(InputError, match="no label set is called 'nothing'"):
        choose_labels("nothing")


def test_unknown_models_are_named(client):
    with pytest.raises(UnknownModelError):
        classify_volume(volume(), client, "biomed", "modality")
    assert cards.read_catalogue()["biomedclip"].task == "classify"
