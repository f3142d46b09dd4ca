"""Surfaces are dropped before a write and made when there is time."""

import pytest
import vtk

from FoundationSegLib.mrml.surfaces import drop_surfaces, has_surfaces, make_surfaces
from FoundationSegLib.prompts.kinds import PointPrompt
from Testing.mrml.controller_cases import make_controller, run


def surface_voxels(node, segment_id):
    found = vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation(segment_id, found)
    return found.GetNumberOfPoints()


@pytest.fixture
def work(volume_node, segmentation_node):
    segmentation_node.CreateDefaultDisplayNodes()
    desk, _client, ticks = make_controller(volume_node, segmentation_node)

    def click(i):
        matrix = vtk.vtkMatrix4x4()
        volume_node.GetIJKToRASMatrix(matrix)
        desk.add_prompt(PointPrompt(matrix.MultiplyPoint((i, 3, 2, 1))[:3], plane="k"))
        run(desk, ticks)

    yield desk, click
    desk.close()


def test_they_come_and_go(work, segmentation_node):
    desk, click = work
    click(2)
    assert not has_surfaces(segmentation_node)
    make_surfaces(segmentation_node)
    assert has_surfaces(segmentation_node) and surface_voxels(segmentation_node, desk.segment_id) > 0
    assert segmentation_node.GetDisplayNode().GetPreferredDisplayRepresentationName3D() == "Closed surface"
    drop_surfaces(segmentation_node)
    assert not has_surfaces(segmentation_node)


def test_no_change_makes_one(work, segmentation_node):
    desk, click = work
    click(2)
    make_surfaces(segmentation_node)
    points = surface_voxels(segmentation_node, desk.segment_id)
    click(5)
    assert not has_surfaces(segmentation_node)
    make_surfaces(segmentation_node)
    assert surface_voxels(segmentation_node, desk.segment_id) > points
    desk.undo()
    assert not has_surfaces(segmentation_node)
    make_surfaces(segmentation_node)
    assert surface_voxels(segmentation_node, desk.segment_id) == points
