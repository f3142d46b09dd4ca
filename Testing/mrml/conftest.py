"""A fresh scene for every test, and what the tests put into it."""

import numpy as np
import pytest
import slicer

from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.scene_prompts import ScenePrompts
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.volumes import add_volume_node
from Testing.mrml.slice_rig import SliceRig, UsedTool, add_volume

# Oblique, sheared, flipped and anisotropic at once.
AWKWARD = Geometry([[-0.7, 0.1, 0.3, 10], [-0.2, 0.9, 0.05, -20], [0.1, 0.02, 3, 5], [0, 0, 0, 1]], (6, 7, 8))


@pytest.fixture
def headless():
    return boot_scene()


@pytest.fixture
def scene(headless):
    return headless.scene


@pytest.fixture
def volume_node(scene):
    voxels = np.arange(6 * 7 * 8, dtype=np.int16).reshape(AWKWARD.shape_kji)
    return add_volume_node(scene, Volume(voxels, AWKWARD, name="CT"))


@pytest.fixture
def segmentation_node(scene):
    return scene.AddNewNodeByClass("vtkMRMLSegmentationNode")


@pytest.fixture
def writer(segmentation_node, volume_node):
    return SegmentWriter(segmentation_node, volume_node)


@pytest.fixture
def rig(headless, opengl):
    """A slice view with Slicer's own reactions to the mouse."""
    headless.scene.AddNode(slicer.vtkMRMLCrosshairNode())
    return SliceRig(headless)


@pytest.fixture
def shown(scene, rig):
    """A volume that the view shows."""
    node = add_volume(scene)
    rig.show(node)
    return node


@pytest.fixture
def used(rig, shown):
    """The tool, at work on the volume in the view."""
    used = UsedTool()
    used.tool.enable(shown, [rig.view])
    yield used
    used.tool.disable()
    assert rig.lines() == 0


class Watched:
    """The prompts in a scene, and what they reported."""

    def __init__(self, segmentation_node, volume_node):
        self.changes, self.errors = [], []
        self.prompts = ScenePrompts(
            segmentation_node, volume_node, lambda *change: self.changes.append(change), self.errors.append
        )


@pytest.fixture
def watch():
    """Makes them, and stops them in the end: a scene must not go while Python functions observe it."""
    made = []

    def make(segmentation_node, volume_node):
        made.append(Watched(segmentation_node, volume_node))
        return made[-1]

    yield make
    for watched in made:
        watched.prompts.stop()
