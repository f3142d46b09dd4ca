"""Settings and a parameter node of an earlier version are read as they were meant (`Testing/fixtures/README.md`)."""

import json
from pathlib import Path

import slicer

from Testing.mrml.scene_session import with_files

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CHOICES = json.loads((FIXTURES / "choices.json").read_text(encoding="utf-8"))


def test_settings_keep_their_keys(rig, qt):
    from FoundationSegPanel.settings import Settings, read_settings, write_settings

    kept = qt.QSettings()
    for key, value in CHOICES["settings"].items():
        kept.setValue(key, value)
    settings = read_settings()
    assert settings == Settings("/opt/python", "cuda", 4096, "/data/models", False)
    write_settings(settings)
    assert {key: str(kept.value(key)).lower() for key in CHOICES["settings"]} == CHOICES["settings"]


def test_the_parameter_node_of_a_scene_is_read(rig, tmp_path):
    from FoundationSegPanel.parameters import Parameters

    scene = rig.desk.scene
    files = with_files(scene, tmp_path / "cache")
    assert scene.ReadFromMRB(str(FIXTURES / "scene.mrb"), False)
    nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode", scene)
    (node,) = (node for node in nodes if node.GetParameter("modelId") == CHOICES["parameters"]["modelId"])
    parameters = Parameters(node)
    assert {name: getattr(parameters, name) for name in CHOICES["parameters"]} == CHOICES["parameters"]
    assert (parameters.volume.GetName(), parameters.segmentation.GetName()) == ("CT", "CT segmentation")
    assert parameters.segmentation.GetSegmentation().GetSegment(parameters.segmentId).GetName() == "Liver"
    assert parameters.roi is None and files
