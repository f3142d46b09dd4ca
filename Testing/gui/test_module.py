import json
import sys
from pathlib import Path

import pytest
import slicer

from FoundationSegLib.errors import CheckpointError, InputError, UnknownModelError
from Testing.gui.model_rig import MUST_ACCEPT, NEEDS_NOTHING

MODULE = Path(__file__).resolve().parents[2] / "FoundationSeg" / "FoundationSeg.py"


def test_opens_and_closes(desk):
    widget = desk.open_module(MODULE)
    assert widget.parent.isEntered
    desk.close_module("FoundationSeg")
    assert "FoundationSeg" not in sys.modules


@pytest.fixture
def kept_modules():
    """What was imported before is there again afterwards: other tests hold its classes."""
    kept = dict(sys.modules)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("FoundationSegPanel", "FoundationSegLib")]:
        del sys.modules[name]
    sys.modules.update({name: module for name, module in kept.items() if name.split(".")[0] == "FoundationSegLib"})


def test_reloads(kept_modules, desk):
    first = desk.open_module(MODULE)
    first.onReload()
    second = slicer.modules.FoundationSegWidget
    assert second is not first and type(second) is not type(first)
    assert second.parent is first.parent and slicer.util.getModuleLogic("FoundationSeg") is second.logic
    assert second.panel.is_entered and not first.panel.is_entered


def test_is_left_for_another_module_and_entered_again(desk):
    widget = desk.open_module(MODULE)
    slicer.util.selectModule("SegmentEditor")
    assert not widget.parent.isEntered and slicer.util.selectedModule() == "SegmentEditor"
    slicer.util.selectModule("FoundationSeg")
    assert widget.parent.isEntered and desk.opened_modules == ["SegmentEditor", "FoundationSeg"]


def test_its_own_test_passes(desk):
    desk.open_module(MODULE)
    slicer.selfTests["FoundationSeg"]()


def test_an_old_slicer_is_told(desk, qt):
    application = slicer.app._q
    application.write_property("minorVersion", 10)
    try:
        widget = desk.open_module(MODULE)
        assert widget.panel is None
        assert any("5.12 or later" in label.text for label in widget.parent.findChildren(qt.QLabel))
        widget.exit()
        widget.enter()
    finally:
        application.write_property("minorVersion", 12)


@pytest.fixture
def logic(rig):
    rig.card(MUST_ACCEPT, NEEDS_NOTHING)
    return rig.desk.open_module(MODULE).logic


def test_a_model_comes_and_goes_by_the_logic(logic):
    assert [lack["need"] for lack in logic.modelState("far")["lacks"]] == ["license", "weights"]
    with pytest.raises(CheckpointError, match="licence"):
        logic.downloadModel("far")
    logic.downloadModel("far", acceptLicense=True)
    assert logic.modelState("far")["ready"]
    assert next(model for model in logic.models() if model["id"] == "far") == logic.modelState("far")
    assert logic.removeModel("far") > 2_000_000 and not logic.modelState("far")["ready"]
    with pytest.raises(UnknownModelError):
        logic.modelState("sam3")


def test_the_logic_goes_by_the_panels_settings(logic, rig, tmp_path):
    from FoundationSegPanel.settings import Settings, write_settings

    rig.light_torch()
    write_settings(Settings(store_folder=str(tmp_path / "elsewhere")))
    logic.downloadModel("far", acceptLicense=True)
    assert (tmp_path / "elsewhere" / "models" / "far").is_dir()
    document = logic.diagnosis()
    assert document["software"]["Slicer"] == "5.12.3 (34000)" and str(tmp_path) not in json.dumps(document)
    write_settings(Settings(worker_python="/no/such/python"))
    with pytest.raises(InputError, match="cannot be started"):
        logic.models()
