import gc
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import slicer
import vtk

from FoundationSegLib.errors import InputError
from FoundationSegLib.mrml.scene import Observers, boot_scene, read_scene, remove_node

ROOT = Path(__file__).resolve().parents[2]


def test_booting_prints_nothing():
    code = "from FoundationSegLib.mrml.scene import boot_scene; kept = boot_scene()"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_each_boot_makes_an_empty_scene(headless):
    headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert boot_scene().scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


def test_a_boot_leaves_nothing_behind_that_makes_the_next_ones_slower(headless):
    """Slicer registers its conversions once more with each logic, and goes through all of them for each copy."""
    factory = slicer.vtkSegmentationConverterFactory.GetInstance()
    before = factory.converter_rules
    for _ in range(3):
        boot_scene()
    assert before and factory.converter_rules == before


def too_long(archive):
    archive.filelist[0].file_size = 2**40


def too_many(archive):
    archive.filelist *= 20_001


def encrypted(archive):
    archive.filelist[0].flag_bits |= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [(too_long, "1 file of 1099.5 GB, more"), (too_many, "20001 files"), (encrypted, "is no scene that")],
)
def test_an_archive_that_holds_more_than_a_scene_is_not_unpacked(tmp_path, change, words):
    with zipfile.ZipFile(tmp_path / "scene.mrb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scene/scene.mrml", "<MRML></MRML>")
        change(archive)
    with pytest.raises(InputError, match=words), read_scene(tmp_path / "scene.mrb"):
        pass


def test_display_and_storage_nodes_go_with_their_node(scene):
    before = scene.GetNumberOfNodes()
    for kind in ("vtkMRMLMarkupsFiducialNode", "vtkMRMLSegmentationNode", "vtkMRMLTableNode"):
        node = scene.AddNewNodeByClass(kind)
        assert node.AddDefaultStorageNode()
        if node.IsA("vtkMRMLDisplayableNode"):
            node.CreateDefaultDisplayNodes()
        assert scene.GetNumberOfNodes() >= before + 2 + node.IsA("vtkMRMLDisplayableNode")
        remove_node(node)
        assert scene.GetNumberOfNodes() == before
        remove_node(node)  # that it has gone already is no error


class Counter:
    def __init__(self):
        self.counted = 0
        self.observers = Observers()

    def count(self, by=1):
        self.counted += by
        return True


def test_methods_are_called_until_they_are_removed():
    counter, observed = Counter(), vtk.vtkObject()
    counter.observers.add(observed, "ModifiedEvent", counter.count)
    counter.observers.add(observed, "ModifiedEvent", counter.count, 10)
    observed.Modified()
    assert counter.counted == 11 and counter.observers
    counter.observers.remove()
    observed.Modified()
    assert counter.counted == 11 and not counter.observers and not observed.HasObserver("ModifiedEvent")


def test_who_is_dropped_is_not_called():
    observed, counted = vtk.vtkObject(), []

    class Telling(Counter):
        def count(self, by=1):
            counted.append(by)

    telling = Telling()
    telling.observers.add(observed, "ModifiedEvent", telling.count)
    observed.Modified()
    del telling
    gc.collect()
    observed.Modified()
    assert counted == [1]


def test_the_first_may_stop_an_event_and_remove_itself():
    interactor, counter, others = vtk.vtkGenericRenderWindowInteractor(), Counter(), []
    interactor.AddObserver("KeyPressEvent", lambda *_: others.append(1))
    counter.observers.add_first(interactor, "KeyPressEvent", counter.count)
    interactor.InvokeEvent("KeyPressEvent")
    assert (counter.counted, others) == (1, [])

    class Leaving(Counter):
        def count(self, by=1):
            self.observers.remove()
            return super().count(by)

    counter.observers.remove()
    leaving = Leaving()
    leaving.observers.add_first(interactor, "KeyPressEvent", leaving.count)
    interactor.InvokeEvent("KeyPressEvent")
    assert (leaving.counted, others) == (1, [])
    interactor.InvokeEvent("KeyPressEvent")
    assert (leaving.counted, others) == (1, [1])
