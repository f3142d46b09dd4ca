import subprocess
import sys
from pathlib import Path

import slicer

ROOT = Path(__file__).resolve().parents[2]


def test_booting_prints_nothing():
    code = "from FoundationSegLib.mrml.scene import boot_scene; kept = boot_scene()"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_scene_is_slicers(headless):
    assert slicer.mrmlScene is headless.scene
    assert slicer.modules.segmentations.logic() is headless.module_logics["Segmentations"]


def test_each_boot_makes_an_empty_scene(headless):
    from FoundationSegLib.mrml.scene import boot_scene

    headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert boot_scene().scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None
