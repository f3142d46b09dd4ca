import numpy as np
import pytest
import slicer

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import Box
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.volumes import volume_from_node
from FoundationSegLib.session.segment_store import OverlapPolicy

MODES = slicer.vtkMRMLSegmentationNode


@pytest.fixture
def writer(segmentation_node, volume_node):
    segmentation_node.CreateDefaultDisplayNodes()
    return SegmentWriter(segmentation_node, volume_node)


@pytest.fixture
def editor(scene):
    return scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")


@pytest.fixture
def area(writer):
    """A segment that covers a third of the volume."""
    segment_id = writer.add_segment("Area")
    writer.write(segment_id, np.ones((2, 7, 8), bool), Box((1, 0, 0), (3, 7, 8)))
    return segment_id


def write_everywhere(writer, editor):
    segment_id = writer.add_segment("Any")
    whole = np.ones(writer.geometry.shape_kji, bool)
    writer.write(segment_id, whole, policy=OverlapPolicy.ALLOW, masking_node=editor)
    return writer.read_mask(segment_id)


@pytest.mark.parametrize(
    ("mode", "inside"),
    [
        (MODES.EditAllowedInsideAllSegments, True),
        (MODES.EditAllowedInsideVisibleSegments, True),
        (MODES.EditAllowedInsideSingleSegment, True),
        (MODES.EditAllowedOutsideAllSegments, False),
        (MODES.EditAllowedOutsideVisibleSegments, False),
    ],
)
def test_the_editable_area(writer, editor, area, mode, inside):
    editor.SetMaskMode(mode)
    editor.SetMaskSegmentID(area)
    assert np.array_equal(write_everywhere(writer, editor), writer.read_mask(area) == inside)


def test_without_settings_everything_is_editable(writer, editor, area):
    assert write_everywhere(writer, editor).all()


def test_erasing_keeps_to_the_area_too(writer, editor, area):
    segment_id = writer.add_segment("Any")
    writer.write(segment_id, np.ones((6, 7, 8), bool), policy=OverlapPolicy.ALLOW)
    editor.SetMaskMode(MODES.EditAllowedInsideSingleSegment)
    editor.SetMaskSegmentID(area)
    writer.write(segment_id, np.zeros((6, 7, 8), bool), masking_node=editor)
    assert np.array_equal(writer.read_mask(segment_id), ~writer.read_mask(area))
    assert writer.read_mask(area).sum() == 112


def test_the_intensity_range(writer, editor, volume_node):
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(100, 200)
    voxels = volume_from_node(volume_node).array_kji
    assert np.array_equal(write_everywhere(writer, editor), (voxels >= 100) & (voxels <= 200))


def test_an_area_of_another_segmentation(writer, editor):
    editor.SetMaskMode(MODES.EditAllowedInsideSingleSegment)
    editor.SetMaskSegmentID("elsewhere")
    with pytest.raises(InputError, match="another segmentation"):
        write_everywhere(writer, editor)
