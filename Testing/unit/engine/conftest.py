"""An engine whose model is the fake one."""

import pytest

from Testing.unit.engine.engine_cases import new_engine
from Testing.unit.fakes import FakeModel


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def engine(model, tmp_path):
    return new_engine(tmp_path / "store", model)
