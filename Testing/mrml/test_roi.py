"""A region of interest in voxels."""

import numpy as np
import pytest
import vtk
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.volumes import add_volume_node, box_of_roi
from Testing.mrml.conftest import AWKWARD


def roi_at(scene, centre, size):
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    node.SetCenter(*centre)
    node.SetSize(*size)
    return node


def test_it_holds_the_voxels_whose_centres_are_inside(scene, volume_node):
    centre = AWKWARD.to_ras((4, 3, 2))
    around = box_of_roi(roi_at(scene, centre, (0.4, 0.4, 0.4)), volume_node)
    assert around.contains(type(around)((2, 3, 4), (3, 4, 5)))
    whole = box_of_roi(roi_at(scene, centre, (500, 500, 500)), volume_node)
    assert whole == AWKWARD.box


def test_one_on_a_straight_grid_is_exact(scene):
    geometry = geometry_from_spacing((10, 12, 14), (1.0, 2.0, 3.0))
    node = add_volume_node(scene, Volume(np.arange(1680, dtype=np.int16).reshape(10, 12, 14), geometry))

    @given(st.tuples(*[st.integers(0, 8)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
    def check(start, extent):
        wanted = Box(start, tuple(a + b for a, b in zip(start, extent, strict=True))).intersection(geometry.box)
        low, high = (
            np.array(side[::-1]) * geometry.spacing_mm for side in (wanted.start_kji, np.subtract(wanted.stop_kji, 1))
        )
        roi = roi_at(scene, (low + high) / 2, high - low + 0.5)
        assert box_of_roi(roi, node) == wanted
        scene.RemoveNode(roi)

    check()


def test_a_transform_of_the_volume_is_taken_into_account(scene, volume_node):
    roi = roi_at(scene, AWKWARD.to_ras((4, 3, 2)), (3, 3, 6))
    before = box_of_roi(roi, volume_node)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 55.0)
    transform.SetMatrixTransformToParent(matrix)
    volume_node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match="no voxel"):
        box_of_roi(roi, volume_node)
    roi.SetAndObserveTransformNodeID(transform.GetID())
    assert box_of_roi(roi, volume_node) == before


def test_one_that_was_not_placed_is_told(scene, volume_node):
    with pytest.raises(InputError, match="no size"):
        box_of_roi(roi_at(scene, (0, 0, 0), (0, 0, 0)), volume_node)
