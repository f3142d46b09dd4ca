"""Models for scripts: with the panel's settings."""

import json

import pytest

from FoundationSegLib.errors import CheckpointError, InputError, UnknownModelError
from Testing.gui.model_rig import MUST_ACCEPT, NEEDS_NOTHING
from Testing.unit.worker import hub_worker


@pytest.fixture
def facade(rig):
    from FoundationSegPanel import model_facade, settings

    rig.card(MUST_ACCEPT, NEEDS_NOTHING)
    rig.patch.setattr(settings, "worker_command", lambda python="": hub_worker.command(rig.full_disk))
    return model_facade


def test_a_model_comes_and_goes(facade, rig):
    reports = []
    assert [lack["need"] for lack in facade.model_state("far")["lacks"]] == ["license", "weights"]
    with pytest.raises(CheckpointError, match="licence"):
        facade.download_model("far")
    facade.download_model("far", accept_license=True, on_progress=reports.append)
    assert reports[-1].done == reports[-1].total
    assert facade.model_state("far")["ready"]
    assert next(model for model in facade.models() if model["id"] == "far") == facade.model_state("far")
    assert facade.remove_model("far") > 2_000_000
    assert not facade.model_state("far")["ready"]
    with pytest.raises(UnknownModelError):
        facade.model_state("sam3")


def test_the_settings_are_those_of_the_panel(facade, tmp_path):
    from FoundationSegPanel.settings import Settings, write_settings

    write_settings(Settings(store_folder=str(tmp_path / "elsewhere")))
    facade.download_model("far", accept_license=True)
    assert (tmp_path / "elsewhere" / "models" / "far").is_dir()
    write_settings(Settings(worker_python="/no/such/python"))
    with pytest.raises(InputError, match="cannot be started"):
        facade.models()


def test_the_diagnosis_is_plain_values(facade, rig, tmp_path):
    rig.light_torch()
    document = facade.diagnosis()
    assert json.loads(json.dumps(document)) == document
    assert document["software"]["Slicer"] == "5.12.3 (34000)"
    assert str(tmp_path) not in json.dumps(document)
