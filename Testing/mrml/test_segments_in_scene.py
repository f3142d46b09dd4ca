"""Segments among the scene's other nodes: names, foreign grids, transforms, editor nodes, views."""

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.imaging.geometry import Box, Geometry, geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.labelmaps import BINARY_LABELMAP, SegmentReader
from FoundationSegLib.mrml.segment_tags import find_term
from FoundationSegLib.mrml.segments import EDITOR_TAG, SegmentWriter
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.session.segment_store import OverlapPolicy
from Testing.mrml.random_geometries import add_parent, solid


def test_a_known_name_brings_term_and_colour(writer):
    segment = writer.segment(writer.add_segment("left_kidney"))
    term = find_term("left kidney")
    assert (segment.GetName(), segment.GetTerminology()) == ("left_kidney", term.serialized)
    assert np.allclose(segment.GetColor(), term.colour)


def test_unknown_names_get_different_colours(writer):
    colours = {writer.segment(writer.add_segment("Something")).GetColor() for _ in range(5)}
    assert len(colours) == len(writer.segment_ids) == 5


def test_what_is_given_wins(writer):
    term = find_term("spleen").serialized
    segment = writer.segment(
        writer.add_segment("liver", colour=(0.1, 0.2, 0.3), terminology=term, tags={"FoundationSeg.Model": "x"})
    )
    assert np.allclose(segment.GetColor(), (0.1, 0.2, 0.3))
    assert segment.GetTerminology() == term
    assert segment.HasTag("FoundationSeg.Model")


def test_our_editor_node_is_one_and_stays_out_of_saved_scenes(scene, writer, segmentation_node, volume_node):
    SegmentWriter(segmentation_node, volume_node)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentEditorNode") == 1
    editor = scene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    assert editor.GetOverwriteMode() == editor.OverwriteNone
    assert not editor.GetSaveWithScene()


def slicers_segment(segmentation_node, volume_node, mask):
    segment_id = segmentation_node.GetSegmentation().AddEmptySegment("", "Slicer's")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation_node, segment_id, volume_node)
    return segment_id


def test_segments_that_slicer_made_are_read_and_written(segmentation_node, volume_node):
    segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    mask = np.zeros((6, 7, 8), bool)
    mask[2:4, 3:5, 4:6] = True
    segment_id = slicers_segment(segmentation_node, volume_node, mask)
    writer = SegmentWriter(segmentation_node, volume_node)
    assert np.array_equal(writer.read_mask(segment_id), mask)
    writer.write(segment_id, ~mask)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation_node, segment_id, volume_node), ~mask)


def another_volume(scene, geometry):
    return add_volume_node(scene, Volume(np.zeros(geometry.shape_kji, np.int16), geometry))


def test_another_grid_is_read_but_not_taken_over(scene, segmentation_node, volume_node):
    fine = another_volume(scene, geometry_from_spacing((12, 12, 12), (0.5, 0.5, 0.5)))
    coarse = another_volume(scene, geometry_from_spacing((6, 6, 6)))
    made = SegmentWriter(segmentation_node, fine)
    segment_id = made.add_segment("Fine")
    made.write(segment_id, np.ones((12, 12, 12), bool))
    before = segmentation_node.GetSegmentation().GetConversionParameter("Reference image geometry")
    with pytest.raises(GeometryError, match="'Fine' was drawn on another grid"):
        SegmentWriter(segmentation_node, coarse)
    assert segmentation_node.GetSegmentation().GetConversionParameter("Reference image geometry") == before
    assert SegmentReader(segmentation_node, geometry_from_spacing((6, 6, 6))).read_mask(segment_id).all()


def test_a_segment_that_changed_its_grid_meanwhile_is_left_alone(scene, writer, segmentation_node):
    mine, other = writer.add_segment("Mine"), writer.add_segment("Other")
    fine = slicer.vtkOrientedImageData()
    fine.SetExtent(0, 3, 0, 3, 0, 3)
    fine.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    fine.GetPointData().GetScalars().Fill(1)
    fine.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(writer.geometry.ijk_to_ras @ np.diag([0.5, 0.5, 0.5, 1])))
    writer.segment(other).AddRepresentation(BINARY_LABELMAP, fine)
    with pytest.raises(GeometryError, match="'Other' was drawn on another grid"):
        writer.write(mine, np.ones((6, 7, 8), bool), policy=OverlapPolicy.OVERWRITE)
    assert not writer.read_mask(mine).any()
    writer.write(mine, np.ones((6, 7, 8), bool))
    assert 0 < (~writer.read_mask(mine)).sum() == writer.read_mask(other).sum() < 27


def test_a_larger_image_on_the_same_grid(scene, segmentation_node):
    """A segmentation made on an image that begins two voxels earlier and ends later."""
    large = another_volume(
        scene, Geometry(np.array([[1.0, 0, 0, -2], [0, 1, 0, -2], [0, 0, 1, -2], [0, 0, 0, 1]]), (9, 9, 9))
    )
    made = SegmentWriter(segmentation_node, large)
    segment_id = made.add_segment("Large")
    made.write(segment_id, np.ones((9, 9, 9), bool))
    writer = SegmentWriter(segmentation_node, another_volume(scene, geometry_from_spacing((5, 5, 5))))
    assert writer.read_mask(segment_id).all()
    edit = writer.write(segment_id, np.zeros((5, 5, 5), bool))
    assert edit.changes[segment_id].lost.voxels == 125
    assert made.read_mask(segment_id).sum() == 9**3 - 5**3


def test_a_closed_surface_is_refused(scene, segmentation_node, volume_node):
    segmentation_node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    with pytest.raises(InputError, match="closed surface"):
        SegmentWriter(segmentation_node, volume_node)


def test_segments_are_not_moved_under_another_transform(scene, writer, segmentation_node, volume_node):
    segment_id = writer.add_segment("Any")
    add_parent(scene, np.diag([2.0, 1, 1, 1]), volume_node)
    SegmentWriter(segmentation_node, volume_node)
    assert segmentation_node.GetParentTransformNode() is volume_node.GetParentTransformNode()
    writer.write(segment_id, np.ones((6, 7, 8), bool))
    volume_node.SetAndObserveTransformNodeID(None)
    with pytest.raises(GeometryError, match="under different transforms"):
        SegmentWriter(segmentation_node, volume_node)
    assert segmentation_node.GetParentTransformNode() is not None


def test_a_3d_view_follows(writer, segmentation_node):
    segment_id = writer.add_segment("Any")
    writer.write(segment_id, solid(writer, Box((1, 1, 1), (4, 4, 4))))
    segmentation_node.CreateClosedSurfaceRepresentation()
    before = segmentation_node.GetClosedSurfaceInternalRepresentation(segment_id).GetNumberOfPoints()
    writer.write(segment_id, solid(writer, Box((1, 1, 1), (5, 6, 7))))
    assert segmentation_node.GetClosedSurfaceInternalRepresentation(segment_id).GetNumberOfPoints() > before
    assert writer.read_mask(writer.add_segment("Empty")).sum() == 0
