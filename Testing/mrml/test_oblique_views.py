"""A box drawn in a slice view at an angle to the image, in a scene: its segment, its markup, and what is saved."""

import numpy as np
import pytest
import slicer.util

from FoundationSegLib.api_nodes import NodeSession
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.prompt_nodes import prompt_nodes
from FoundationSegLib.mrml.slice_tool import SliceTool
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import BoxPrompt, ObliquePlane
from FoundationSegLib.prompts.oblique import view_grid
from FoundationSegLib.session.segments import new_segment
from FoundationSegLib.session.steps import ModelChoice
from FoundationSegLib.worker.client import InlineClient
from Testing.mrml.scene_session import open_bundle, save_bundle
from Testing.unit.engine.engine_cases import new_engine

SHAPE, CENTRE, RADIUS_MM = (20, 26, 30), (14.5, 12.5, 9.5), 8.0
GRID = Geometry([[-1.0, 0, 0, 12], [0, -1.2, 0, 30], [0, 0, 1.5, -9], [0, 0, 0, 1]], SHAPE)
TURN = np.array([[-0.8, 0.36, 0.48], [0.0, 0.8, -0.6], [-0.6, -0.48, -0.64]])  # of the view: right, up, normal


def ball():
    positions = GRID.to_ras(np.moveaxis(np.indices(SHAPE)[::-1], 0, -1))
    return np.linalg.norm(positions - GRID.to_ras(CENTRE), axis=-1) <= RADIUS_MM


@pytest.fixture
def image(scene):
    return add_volume_node(scene, Volume(np.where(ball(), 200, 0).astype(np.int16), GRID, name="CT"))


@pytest.fixture
def client(tmp_path):
    return InlineClient(new_engine(tmp_path / "store"))


def opened(image, segmentation, client):
    return NodeSession(image, segmentation, client, ModelChoice.of(client.engine.catalogue["fake"]))


def voxels(segmentation, segment, image):
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment.segment_id, image).astype(bool)


def test_a_box_in_an_oblique_view(scene, rig, image, segmentation_node, client, tmp_path):
    rig.show(image)
    to_ras = rig.slice_node.GetSliceToRAS()
    for row, column in np.ndindex(3, 3):
        to_ras.SetElement(row, column, TURN[row, column])
    rig.slice_node.UpdateMatrices()
    rig.slice_node.JumpSliceByCentering(*GRID.to_ras(CENTRE))
    seen, errors = [], []
    with opened(image, segmentation_node, client) as session:
        segment = new_segment(session, "Ball")
        tool = SliceTool(lambda prompt: seen.append(segment.add(prompt)), errors.append)
        tool.enable(image, [rig.view], "box")
        plane = rig.view.plane(image)
        low, high = (GRID.to_ras(CENTRE) + side * 9 * (TURN[:, 0] + TURN[:, 1]) for side in (-1, 1))
        rig.drag(*map(tuple, plane.pixels([low, high])))
        tool.disable()
        assert not errors and seen == [("1",)]
        (prompt,) = segment.prompts.values()
        assert isinstance(prompt, BoxPrompt) and isinstance(prompt.plane, ObliquePlane)
        assert np.allclose(np.cross(prompt.plane.up, prompt.plane.normal), TURN[:, 0], atol=1e-6)
        grid = view_grid(prompt.plane, GRID)
        expected = ball() & grid.near(prompt.plane, GRID.box)
        first = voxels(segmentation_node, segment, image)
        assert 2 * (first & expected).sum() / (first.sum() + expected.sum()) > 0.93, "the ball, where the view cuts it"

        ((_, node),) = prompt_nodes(segmentation_node)
        corner = node.GetNthControlPointPosition(0)
        node.SetNthControlPointPosition(0, *(np.array(corner) + 9 * TURN[:, 0]))
        second, moved = voxels(segmentation_node, segment, image), segment.prompts["1"]
        assert moved != prompt and moved.plane.normal == prompt.plane.normal, "it stays a rectangle of the view"
        assert second.any() and not (second & ~first).any() and second.sum() < 0.7 * first.sum(), "it is asked again"
        assert session.undo(segment.segment_id)
        assert np.array_equal(voxels(segmentation_node, segment, image), first) and segment.prompts["1"] == prompt
        steps = segment.steps
    path = save_bundle(scene, tmp_path)
    kept, image_again, segmentation_again = open_bundle(path, tmp_path / "other cache")
    session_again = opened(image_again, segmentation_again, client)
    again = session_again.segment("Ball")
    assert again.steps == steps and np.array_equal(voxels(segmentation_again, again, image_again), first)
    again.replay(again.steps)
    assert np.array_equal(voxels(segmentation_again, again, image_again), first), "a replay gives the same voxels"
    session_again.close()
    del kept
