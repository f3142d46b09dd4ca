import subprocess
import sys

import numpy as np
import pytest
import slicer
import slicer.util

from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.files import read_segmentation, write_segmentation
from FoundationSegLib.mrml.prompt_nodes import prompt_nodes, shape_of
from FoundationSegLib.mrml.segment_tags import PromptRecord, provenance, set_provenance
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.volumes import add_volume_node
from Testing.mrml.conftest import AWKWARD
from Testing.mrml.random_geometries import add_parent
from Testing.mrml.scene_session import open_bundle, save_bundle
from Testing.mrml.test_scene_prompts import PLACED, PROMPTS, RECORD

PROVENANCE = {"Model": "lite-medsam", "SHA256": "0" * 64, "Intensity": "W400 L40", "Version": "1|2:3"}


# The voxels of GRID, counted from the other end along i: Slicer turns left-handed grids round when it reads them.
GRID = Geometry(AWKWARD.ijk_to_ras @ [[-1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], AWKWARD.shape_kji)


@pytest.fixture
def volume_node(scene):
    return add_volume_node(scene, Volume(np.zeros(GRID.shape_kji, np.int16), GRID, name="CT"))


@pytest.fixture
def saved(watch, scene, writer, segmentation_node, volume_node, tmp_path):
    """Two segments with prompts under a turned, scaled transform, in a bundle and as a scene file."""
    add_parent(scene, np.diag([1.0, 2.0, -1.0, 1.0]), volume_node)
    prompts = watch(segmentation_node, volume_node).prompts
    mask = np.zeros(GRID.shape_kji, bool)
    mask[2:4, 1:5, 2:6] = True
    for name, record in (("Liver", RECORD), ("Left kidney", PromptRecord(RECORD.prompts[2:4], "other"))):
        segment_id = writer.add_segment(name)
        writer.write(segment_id, mask if name == "Liver" else ~mask)
        set_provenance(writer.segment(segment_id), PROVENANCE)
        prompts.set_record(segment_id, record)
    path = save_bundle(scene, tmp_path)
    prompts.stop()
    return path


def opened(path, tmp_path):
    return open_bundle(path, tmp_path / "other cache")


def test_a_bundle_brings_everything_back(watch, saved, writer, segmentation_node, tmp_path):
    kept, volume, segmentation = opened(saved, tmp_path)
    watched = watch(segmentation, volume)
    reopened = SegmentWriter(segmentation, volume)
    assert reopened.segment_ids == writer.segment_ids
    for segment_id in writer.segment_ids:
        before, after = writer.segment(segment_id), reopened.segment(segment_id)
        assert after.GetName() == before.GetName() and after.GetTerminology() == before.GetTerminology() != ""
        assert provenance(after) == PROVENANCE
        assert np.array_equal(reopened.read(segment_id), writer.read(segment_id))
    liver, kidney = writer.segment_ids
    assert watched.prompts.record(liver) == RECORD
    assert watched.prompts.record(kidney) == PromptRecord(RECORD.prompts[2:4], "other")
    assert not watched.changes and not watched.errors
    # The markups are those of the file, not others beside them, and continue to be watched.
    assert sum(1 for _ in prompt_nodes(segmentation)) == len(PLACED) + 2
    assert len(slicer.util.getNodesByClass("vtkMRMLMarkupsNode", kept[0].scene)) == len(PLACED) + 2
    node = watched.prompts.node(liver, "p0")
    assert node.GetParentTransformNode() is volume.GetParentTransformNode() is not None
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(kept[0].scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
    assert hierarchy.GetItemName(folder) == f"Prompts: {segmentation.GetName()}"
    assert hierarchy.GetItemParent(folder) == hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation))
    node.SetNthControlPointPosition(0, GRID.to_ras((2, 2, 2)))
    assert watched.changes[0][:2] == (liver, "p0")


def test_the_pictures_are_saved_where_they_were(saved, tmp_path):
    kept, _, segmentation = opened(saved, tmp_path)
    assert kept
    for place, node in prompt_nodes(segmentation):
        shape = shape_of(RECORD.prompt(place.key), GRID)
        points = [node.GetNthControlPointPosition(n) for n in range(node.GetNumberOfControlPoints())]
        if shape.kind != "block":
            assert np.abs(shape.points - points).max() < 1e-9


def test_markups_moved_without_us_are_put_back(watch, saved, tmp_path):
    kept, volume, segmentation = opened(saved, tmp_path)
    (place, node), (gone_place, gone) = list(prompt_nodes(segmentation))[:2]
    node.SetNthControlPointPosition(0, (1.0, 2.0, 3.0))
    kept[0].scene.RemoveNode(gone)
    watched = watch(segmentation, volume)
    assert watched.prompts.record(place.segment_id) == RECORD and not watched.changes
    assert np.allclose(node.GetNthControlPointPosition(0), shape_of(PROMPTS[0], GRID).points[0])
    assert watched.prompts.node(gone_place.segment_id, gone_place.key) is not None


WITHOUT_US = """
import sys, slicer
sys.modules["FoundationSegLib"] = None
scene, cache, files = slicer.vtkMRMLScene(), slicer.vtkCacheManager(), slicer.vtkDataIOManager()
application = slicer.vtkSlicerApplicationLogic(); application.SetMRMLScene(scene)
application.GetColorLogic().SetMRMLScene(scene); application.GetColorLogic().AddDefaultColorNodes()
logics = [getattr(slicer, n)() for n in ("vtkSlicerSegmentationsModuleLogic", "vtkSlicerMarkupsLogic",
                                         "vtkSlicerSubjectHierarchyModuleLogic")]
for logic in logics: logic.SetMRMLApplicationLogic(application); logic.SetMRMLScene(scene)
cache.SetRemoteCacheDirectory(sys.argv[2]); files.SetCacheManager(cache)
scene.SetCacheManager(cache); scene.SetDataIOManager(files)
assert scene.ReadFromMRB(sys.argv[1], True)
markups = [scene.GetNthNodeByClass(n, "vtkMRMLMarkupsNode")
           for n in range(scene.GetNumberOfNodesByClass("vtkMRMLMarkupsNode"))]
segmentation = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode").GetSegmentation()
print(len(markups), segmentation.GetNumberOfSegments())
"""


def test_a_bundle_opens_without_us(saved, tmp_path):
    (tmp_path / "third").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, str(saved), str(tmp_path / "third")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(len(PLACED) + 2), "2"] and "rror" not in run.stderr


def test_a_segmentation_file_on_its_own_keeps_prompts(watch, writer, segmentation_node, volume_node, tmp_path):
    prompts = watch(segmentation_node, volume_node).prompts
    liver = writer.add_segment("Liver")
    writer.write(liver, np.ones(GRID.shape_kji, bool))
    prompts.set_record(liver, RECORD)
    write_segmentation(segmentation_node, tmp_path / "a.seg.nrrd")
    other = read_segmentation(segmentation_node.GetScene(), tmp_path / "a.seg.nrrd")
    again = watch(other, volume_node).prompts
    assert again.record(liver) == RECORD and sum(1 for _ in prompt_nodes(other)) == len(PLACED)


def test_new_prompts_make_slicer_save_the_segmentation(watch, writer, segmentation_node, volume_node, tmp_path):
    liver = writer.add_segment("Liver")
    writer.write(liver, np.ones(GRID.shape_kji, bool))
    prompts = watch(segmentation_node, volume_node).prompts
    segmentation_node.AddDefaultStorageNode(str(tmp_path / "a.seg.nrrd"))
    storage = segmentation_node.GetStorageNode()
    storage.SetFileName(str(tmp_path / "a.seg.nrrd"))
    assert storage.WriteData(segmentation_node) and not segmentation_node.GetModifiedSinceRead()
    prompts.set_record(liver, RECORD)
    assert segmentation_node.GetModifiedSinceRead()
