"""Image, segments and prompts stay where the user put them relative to each other, whatever is done to transforms."""

import numpy as np
import pytest
import slicer.util
import vtk
from hypothesis import given, settings
from hypothesis import strategies as st
from vtk.util import numpy_support

from FoundationSegLib.errors import FoundationSegError, GeometryError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.prompt_nodes import prompt_nodes
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.volumes import add_volume_node, geometry_from_node, parent_to_world
from FoundationSegLib.prompts.kinds import PointPrompt
from FoundationSegLib.session.segment_store import Refused, SegmentEdited
from Testing.mrml.controller_cases import make_controller, run

SHAPE = (6, 20, 20)
GRID = Geometry([[-0.7, 0.1, 0.3, 10], [-0.2, 0.9, 0.05, -20], [0.1, 0.02, 3, 5], [0, 0, 0, 1]], SHAPE)


def shift(x, y, z):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def rotation(degrees, axis):
    transform = vtk.vtkTransform()
    transform.RotateWXYZ(degrees, *axis)
    transform.Translate(3.3, -7.1, 2.9)
    return slicer.util.arrayFromVTKMatrix(transform.GetMatrix())


MATRICES = (shift(50.3, -20.2, 4.4), rotation(31, (1, 2, 0.5)), np.diag([1.3, 0.8, 1.1, 1]) @ shift(1.1, 2.7, 0))


def world_voxels(segmentation_node, segment_id):
    """Centres of a segment's voxels in the world, by Slicer alone: (N, 3), mm, RAS."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    labelmap, matrix = segment.GetRepresentation("Binary labelmap"), vtk.vtkMatrix4x4()
    if labelmap is None or labelmap.GetPointData().GetScalars() is None or labelmap.IsEmpty():
        return np.zeros((0, 3))
    labels = numpy_support.vtk_to_numpy(labelmap.GetPointData().GetScalars())
    index_kji = np.argwhere(labels.reshape(labelmap.GetDimensions()[::-1]) == segment.GetLabelValue())
    labelmap.GetImageToWorldMatrix(matrix)
    to_world = parent_to_world(segmentation_node) @ slicer.util.arrayFromVTKMatrix(matrix)
    return (index_kji[:, ::-1] + labelmap.GetExtent()[::2]) @ to_world[:3, :3].T + to_world[:3, 3]


def in_image(volume_node, world):
    """Voxel indices (i, j, k) of an image at points in the world."""
    to_ijk = np.linalg.inv(parent_to_world(volume_node) @ geometry_from_node(volume_node).ijk_to_ras)
    return np.reshape(world, (-1, 3)) @ to_ijk[:3, :3].T + to_ijk[:3, 3]


class Work:
    """The panel's desk on an image and its segmentation, with transforms, and what must be in the segment."""

    def __init__(self, grid=GRID):
        self.headless = boot_scene()
        self.scene = self.headless.scene
        voxels = np.random.default_rng(0).integers(1, 1000, SHAPE).astype(np.int16)
        self.image = add_volume_node(self.scene, Volume(voxels, grid, name="CT"))
        self.segments = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segments")
        self.transforms = [self.add_transform(matrix) for matrix in MATRICES]
        self.desk, self.client, self.ticks = make_controller(self.image, self.segments)
        self.key = self.desk.add_segment()
        self.clicks, self.undone = [], []

    def add_transform(self, matrix):
        node = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        return node

    def prompt(self, k, j, i):
        return PointPrompt(tuple(geometry_from_node(self.image).to_ras((i, j, k)).tolist()), plane="k")

    def click(self, k, j, i):
        """Returns the error if there is one: nothing may have been written or asked then."""
        asked, self.desk.outcome = len(self.client.asked), None
        try:
            self.desk.add_prompt(self.prompt(k, j, i))
        except FoundationSegError as error:
            assert len(self.client.asked) == asked and self.desk.outcome is None
            return error
        run(self.desk, self.ticks)
        assert isinstance(self.desk.outcome, SegmentEdited)
        self.clicks.append((k, j, i))
        self.undone.clear()
        return None

    def expected(self):
        mask = np.zeros(SHAPE, bool)
        for k, j, i in self.clicks:
            mask[k, j - 2 : j + 3, i - 2 : i + 3] = True
        return np.argwhere(mask)[:, ::-1]

    def world_voxels(self):
        return world_voxels(self.segments, self.key)

    @property
    def is_aligned(self):
        found, expected = in_image(self.image, self.world_voxels()), self.expected()
        return found.shape == expected.shape and bool(np.abs(found - expected).max(initial=0) < 0.02)

    def check_prompts(self):
        nodes = [node for _, node in prompt_nodes(self.segments)]
        places = [parent_to_world(node) @ (*node.GetNthControlPointPosition(0), 1) for node in nodes]
        found = np.rint(in_image(self.image, [place[:3] for place in places])).astype(int)
        assert sorted(map(tuple, found[:, ::-1].tolist())) == sorted(self.clicks)


@pytest.fixture
def work():
    work = Work()
    assert work.click(2, 10, 10) is None
    yield work
    work.desk.close()


def put(node, transform):
    node.SetAndObserveTransformNodeID(transform and transform.GetID())


ACTIONS = {
    "put under": lambda work, node, transform: put(node, transform),
    "take out": lambda work, node, transform: put(node, None),
    "harden": lambda work, node, transform: node.HardenTransform(),
}
NODES = {
    "image": lambda work: [work.image],
    "segments": lambda work: [work.segments],
    "image, segments": lambda work: [work.image, work.segments],
    "segments, image": lambda work: [work.segments, work.image],
}


@pytest.mark.parametrize("nodes", NODES)
def test_a_transform_is_hardened(nodes, work):
    put(work.image, work.transforms[1])
    before = work.world_voxels()
    for node in NODES[nodes](work):
        node.HardenTransform()
    assert np.allclose(work.world_voxels(), before, atol=1e-6) and work.is_aligned
    if nodes != "segments":  # the image is in no transform any more
        work.scene.RemoveNode(work.transforms[1])
        assert np.allclose(work.world_voxels(), before, atol=1e-6) and work.is_aligned
    work.check_prompts()
    assert work.click(3, 5, 5) is None and work.is_aligned
    for clicks in ([(2, 10, 10)], []):
        assert work.desk.undo()
        work.clicks = clicks
        assert work.is_aligned
        work.check_prompts()
    assert work.desk.redo() and work.segments.GetParentTransformNode() is work.image.GetParentTransformNode()


@pytest.mark.parametrize("matrix", [shift(8, -4, 0), MATRICES[1]], ids=["whole voxels", "turned"])
def test_segments_aligned_by_hand_stay_and_the_session_waits(matrix):
    work = Work(Geometry(np.eye(4), SHAPE))
    assert work.click(2, 10, 10) is None
    parent = work.add_transform(matrix)
    put(work.segments, parent)
    before = work.world_voxels()
    error = work.click(3, 5, 5)
    assert isinstance(error, GeometryError) and "moved relative to" in str(error)
    assert np.allclose(work.world_voxels(), before) and work.segments.GetParentTransformNode() is parent
    put(work.image, parent)
    assert work.is_aligned and work.click(3, 5, 5) is None and work.is_aligned
    work.desk.close()


def test_segments_moved_off_the_grid_and_hardened_are_refused_until_moved_back(work):
    put(work.segments, work.transforms[1])
    work.segments.HardenTransform()
    moved = work.world_voxels()
    assert isinstance(work.click(3, 5, 5), GeometryError) and np.array_equal(work.world_voxels(), moved)
    assert work.desk.session.detect_external_changes() == frozenset(), "nothing was changed by hand"
    put(work.segments, work.add_transform(np.linalg.inv(MATRICES[1])))
    work.segments.HardenTransform()
    assert work.is_aligned and work.click(3, 5, 5) is None and work.desk.undo() and work.desk.undo()


def test_both_are_hardened_while_no_session_is_open(work):
    put(work.image, work.transforms[1])
    work.desk.leave()
    for node in (work.image, work.segments):
        node.HardenTransform()
    work.desk.segment_id = work.key
    assert work.click(3, 5, 5) is None and work.is_aligned
    work.check_prompts()
    assert len(work.desk.session.state(work.key).prompts) == 2


def test_a_transform_is_hardened_while_a_request_is_out(work):
    put(work.image, work.transforms[0])
    work.client.is_slow = True
    work.desk.add_prompt(work.prompt(3, 5, 5))
    work.image.HardenTransform()
    work.client.reply()
    run(work.desk, work.ticks)
    work.clicks.append((3, 5, 5))
    assert isinstance(work.desk.outcome, SegmentEdited) and work.is_aligned
    work.check_prompts()


def test_segments_that_are_moved_while_a_request_is_out_are_not_written(work):
    work.client.is_slow = True
    work.desk.add_prompt(work.prompt(3, 5, 5))
    put(work.segments, work.transforms[0])
    before = work.world_voxels()
    work.client.reply()
    run(work.desk, work.ticks)
    assert isinstance(work.desk.outcome, Refused) and np.array_equal(work.world_voxels(), before)
    put(work.segments, None)
    work.desk.session.retry()
    work.client.reply()
    run(work.desk, work.ticks)
    work.clicks.append((3, 5, 5))
    assert isinstance(work.desk.outcome, SegmentEdited) and work.is_aligned


CLICKS = st.tuples(st.just("click"), st.tuples(st.integers(0, 5), st.integers(2, 17), st.integers(2, 17)))
MOVES = st.tuples(st.sampled_from(sorted(ACTIONS)), st.sampled_from(sorted(NODES)), st.integers(0, 2))
OTHERS = st.tuples(st.sampled_from(["invert", "nest", "delete"]), st.integers(0, 2), st.integers(0, 2))
JUDGED = st.tuples(st.sampled_from(["undo", "redo"]))


@pytest.mark.parametrize("part", range(2))
def test_random_transforms(part, full):
    @settings(max_examples=250 if full else 12, deadline=None)
    @given(st.lists(st.one_of(CLICKS, MOVES, OTHERS, JUDGED), min_size=12, max_size=30))
    def check(operations):
        work = Work()
        work.click(2, 10, 10)
        for operation in operations:
            _step(work, *operation)
        work.desk.close()

    check()


def _step(work, name, *arguments):
    was_aligned, before = work.is_aligned, work.world_voxels()
    follows = was_aligned and work.segments.GetParentTransformNode() is work.image.GetParentTransformNode()
    if name == "click":
        error = work.click(*arguments[0])
        assert (error is None) == work.is_aligned >= was_aligned, error
        assert error is None or np.array_equal(work.world_voxels(), before)
    elif name in ("undo", "redo"):
        _undo_or_redo(work, name, was_aligned)
    elif name in ACTIONS:
        nodes = NODES[arguments[0]](work)
        for node in nodes:
            ACTIONS[name](work, node, work.transforms[arguments[1]])
        if (was_aligned and name == "harden") or (follows and nodes != [work.segments]):
            assert work.is_aligned
        if name == "harden" or (not was_aligned and nodes == [work.image] and not work.is_aligned):
            assert np.allclose(work.world_voxels(), before, atol=1e-5)
    else:
        _change_transforms(work, name, *arguments)
        assert work.is_aligned or not follows
    assert len(work.world_voxels()) == len(work.expected())
    if was_aligned and work.is_aligned:
        work.check_prompts()


def _undo_or_redo(work, name, was_aligned):
    source, target = (work.clicks, work.undone) if name == "undo" else (work.undone, work.clicks)
    if name == "undo" and len(source) == 1:
        return  # an empty segment lies nowhere
    before = work.world_voxels()
    try:
        is_done = getattr(work.desk, name)()
    except FoundationSegError:
        assert not was_aligned and np.array_equal(work.world_voxels(), before)
    else:
        assert is_done == bool(source)
        if is_done:
            target.append(source.pop())
            assert work.is_aligned >= was_aligned


def _change_transforms(work, name, first, second):
    transform = work.transforms[first]
    if name == "invert":
        transform.Inverse()
    elif name == "delete":
        work.scene.RemoveNode(transform)
        work.transforms[first] = work.add_transform(MATRICES[first])
    elif not _is_above(transform, work.transforms[second]):
        put(transform, work.transforms[second])


def _is_above(transform, other):
    while other is not None and other is not transform:
        other = other.GetParentTransformNode()
    return other is transform
