import pytest

from FoundationSegLib.hub.store import Store
from Testing.unit.hub.hub_cases import FILES, REPOSITORY
from Testing.unit.hub.loopback_hub import hub_of_the_client


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_of_the_client(monkeypatch, tmp_path / "hf-cache") as hub:
        yield hub


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def commit(hub):
    """The commit of a repository with two files."""
    return hub.add(REPOSITORY, FILES)
