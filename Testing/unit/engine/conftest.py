"""An engine whose model is the fake one."""

import pytest

from FoundationSegLib.engine import engine as engine_module
from Testing.unit.engine.engine_cases import new_engine
from Testing.unit.fakes import FakeModel


@pytest.fixture
def model(monkeypatch):
    """The fake model, instead of whatever adapter a card asks for."""
    fake = FakeModel()
    monkeypatch.setattr(engine_module, "load_slice_model", lambda card, files, device: fake)
    monkeypatch.setattr(engine_module, "choose_device", lambda choice: "cpu" if choice == "auto" else choice)
    return fake


@pytest.fixture
def engine(model, tmp_path):
    return new_engine(tmp_path / "store")
