import pytest

from Testing.unit.hub.loopback_hub import hub_of_the_client


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_of_the_client(monkeypatch, tmp_path / "hf-cache") as hub:
        yield hub
