"""Random operations on sessions in scenes, markups moved and removed among them: markups and steps always agree."""

import numpy as np
import pytest
import slicer
import slicer.util

from FoundationSegLib.errors import FoundationSegError, GeometryError
from FoundationSegLib.mrml.prompt_markups import take_from_folder
from FoundationSegLib.mrml.prompt_nodes import COLOURS, prompt_nodes, shape_of
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.segment_tags import read_record
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import PointPrompt, Polarity
from FoundationSegLib.prompts.prompts_file import bare
from Testing.mrml.scene_session import SceneSession
from Testing.mrml.test_alignment import in_image, put, world_voxels
from Testing.mrml.test_session_store import SceneMachine
from Testing.mrml.test_source_representations import LABELMAP, make_source, representations
from Testing.unit.session.session_cases import small_volume
from Testing.unit.session.session_machine import same

MORE = {
    "drag": 12,
    "drop": 5,
    "save_state": 4,
    "slicers_undo": 3,
    "drop_all": 1,
    "transform": 10,
    "source": 2,
    "display": 3,
    "rename": 2,
}
# By whole voxels, so that what Slicer converts or brings back stays on the grid; others: test_alignment.
MATRICES = np.array([np.eye(4), [[0, -1, 0, 7], [1, 0, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]]])
MATRICES[0, :3, 3] = 50, -20, 4
ACTIONS = ("put", "take", "harden", "invert", "nest", "delete")


class DeskMachine(SceneMachine):
    """The same, with the prompts of the session as markups."""

    foreign = (*SceneMachine.foreign, "slicers_undo", "source")

    def __init__(self, seed, desk, segmentation_node, volume_node):
        self.desk, self.scene = desk, segmentation_node.GetScene()
        self.slicers_history = slicer.vtkSegmentationHistory()
        self.slicers_history.SetSegmentation(segmentation_node.GetSegmentation())
        super().__init__(seed, desk.session, desk.client, segmentation_node, volume_node)
        self.transforms = [self.add_transform(matrix) for matrix in MATRICES]
        weights = np.concatenate([self.weights * 96, list(MORE.values())])
        self.names, self.weights = [*self.names, *MORE], weights / weights.sum()
        self.counts |= dict.fromkeys(MORE, 0)

    def step(self):
        name = super().step()
        self.check_markups(name)
        return name

    def node(self):
        nodes = [node for place, node in prompt_nodes(self.nodes[0]) if place.segment_id == self.active]
        return nodes[int(self.rng.integers(len(nodes)))] if nodes else None

    def drag(self):
        """The user moves a point of a markup, sometimes far out of the image."""
        node, far = self.node(), 900.0 if self.rng.random() < 0.2 else 0.0
        if node is not None and node.GetNumberOfControlPoints():
            x, y, z = self.point()
            n = int(self.rng.integers(node.GetNumberOfControlPoints()))
            node.SetNthControlPointPosition(n, (x + far, y, z))

    def drop(self):
        """The user deletes a markup, by its item in the hierarchy as in Slicer's application."""
        node = self.node()
        if node is not None:
            take_from_folder(self.scene, node)
            self.scene.RemoveNode(node)

    def drop_all(self):
        """The user deletes all markups of a segment, the rest of them in answer to the first."""
        nodes = [node for place, node in prompt_nodes(self.nodes[0]) if place.segment_id == self.active]
        for node in nodes:
            if self.scene.IsNodePresent(node):
                take_from_folder(self.scene, node)
                self.scene.RemoveNode(node)

    def add_transform(self, matrix):
        node = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        return node

    def in_world(self):
        """The voxels of each segment in the world, by Slicer alone."""
        return {key: world_voxels(self.nodes[0], key) for key in self.store.segment_ids}

    def on_image(self):
        """The same as voxels of the image, in order."""
        found = {key: in_image(self.nodes[1], world) for key, world in self.in_world().items()}
        assert all(np.allclose(index, np.rint(index), atol=0.01) for index in found.values())
        return {key: np.unique(np.rint(index), axis=0) for key, index in found.items()}

    def transform(self):
        """Whatever is done to transforms, voxels stay where they are on the image, or the session waits."""
        segmentation_node = self.nodes[0]
        nodes = [self.nodes[int(n)] for n in self.rng.permutation(2)[: self.rng.integers(1, 3)]]
        action = str(self.rng.choice(ACTIONS))
        before, parent = self.on_image(), segmentation_node.GetParentTransformNode()
        self.act(action, nodes, int(self.rng.integers(2)))
        moved = self.in_world()
        try:
            self.store.require_writable()
        except GeometryError:
            assert nodes == [segmentation_node] and action in ("put", "take")
            with pytest.raises(FoundationSegError):
                self.add()
            assert same(self.in_world(), moved)
            put(segmentation_node, parent)
        self.session.detect_external_changes()
        assert same(self.on_image(), before), f"{action} moved voxels on the image"
        self.add()

    def act(self, action, nodes, number):
        transform, other = self.transforms[number], self.transforms[1 - number]
        if action == "invert":
            transform.Inverse()
        elif action == "delete":
            self.scene.RemoveNode(transform)
            self.transforms[number] = self.add_transform(MATRICES[number])
        elif action == "nest":
            put(other, None)
            put(transform, None if transform.GetParentTransformNode() else other)
        for node in nodes:
            if action == "harden":
                node.HardenTransform()
                self.slicers_history.RemoveAllStates()  # they are in other coordinates
            elif action in ("put", "take"):
                put(node, transform if action == "put" else None)

    def source(self):
        """While something else is the source, nothing is written or removed; what comes back is somebody's change."""
        node = self.nodes[0]
        make_source(node, str(self.rng.choice(["Closed surface", "Fractional labelmap"])))
        before = representations(node)
        with pytest.raises(FoundationSegError):
            self.add()
        assert representations(node) == before
        make_source(node, LABELMAP)
        self.add()

    def display(self):
        """Visibility, opacity, surfaces and display nodes come and go: no segment counts as changed by that."""
        node, (shown, whole, surfaces) = self.nodes[0], self.rng.random(3) < 0.5
        self.session.detect_external_changes()
        before = self.masks()
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        elif not whole:
            self.scene.RemoveNode(node.GetDisplayNode())
        else:
            node.GetDisplayNode().SetSegmentVisibility(self.active, shown)
            node.GetDisplayNode().SetOpacity(self.rng.random())
        node.CreateClosedSurfaceRepresentation() if surfaces else node.RemoveClosedSurfaceRepresentation()
        self.nodes[1].GetDisplayNode().SetWindowLevel(1 + 100 * self.rng.random(), 50)
        assert self.session.detect_external_changes() == frozenset() and same(self.masks(), before)

    def rename(self):
        """Any node gets another name, as those of markups and transforms."""
        nodes = [self.scene.GetNthNode(n) for n in range(self.scene.GetNumberOfNodes())]
        nodes = [node for node in nodes if node.IsA("vtkMRMLTransformableNode") or node.IsA("vtkMRMLDisplayNode")]
        nodes[int(self.rng.integers(len(nodes)))].SetName(str(self.rng.choice(["", "A", "Sæglia 1", "<b>"])))

    def check_replay(self):
        """In the coordinates of the fresh session, which are those that the image had at first."""
        for node in self.nodes:
            put(node, None)
        back = self.add_transform(self.store.geometry.ras_to_ijk)
        for node in self.nodes:
            put(node, back)
        for node in self.nodes:
            node.HardenTransform()
        super().check_replay()

    def save_state(self):
        """The Segment Editor keeps the segments as they are for its own undo."""
        self.slicers_history.SaveState()

    def slicers_undo(self):
        """The user goes back with it: segments come and go, and voxels and tags change behind the session's back."""
        if self.slicers_history.IsRestorePreviousStateAvailable():
            self.slicers_history.RestorePreviousState()
        self.session.detect_external_changes()

    def end(self, what):
        """Nodes are deleted while requests are out."""
        self.client.is_slow, out = True, len(self.client.requests)
        self.set_locked(self.active, False)
        self.segment.add(PointPrompt(self.point()))
        if what == "scene":
            self.scene.Clear(False)
        else:
            self.scene.RemoveNode(self.nodes[what])
        ids = [self.scene.GetNthNode(n).GetID() for n in range(self.scene.GetNumberOfNodes())]
        outcomes = len(self.desk.outcomes)
        for number in range(out, len(self.client.requests)):
            self.client.reply(number)
        assert ids == [self.scene.GetNthNode(n).GetID() for n in range(self.scene.GetNumberOfNodes())]
        assert len(self.desk.outcomes) == outcomes and self.session.request_id is None

    def check_markups(self, name):
        geometry, drawn = self.store.geometry, {}
        for place, node in prompt_nodes(self.nodes[0]):
            drawn.setdefault(place.segment_id, {})[place.key] = node
        assert drawn.keys() <= set(self.store.segment_ids), name
        for key in self.store.segment_ids:
            if key not in self.session.known_ids:
                continue
            record = read_record(self.store.segment(key))
            prompts = self.desk.segment(key).prompts
            kept = {one.key: one.prompt for one in record.prompts}
            assert kept == {one: bare(prompt) for one, prompt in prompts.items()}, name
            placed = {one for one, prompt in prompts.items() if shape_of(prompt, geometry) is not None}
            assert drawn.get(key, {}).keys() == placed, name
            for one in placed:
                if isinstance(prompts[one], PointPrompt):
                    assert drawn[key][one].GetNthControlPointPosition(0) == prompts[one].position, name
                negative = prompts[one].polarity is Polarity.NEGATIVE
                colour = drawn[key][one].GetDisplayNode().GetSelectedColor()
                assert (colour == COLOURS[Polarity.NEGATIVE]) == negative, name


def run(machine, operations):
    for _ in range(operations):
        machine.step()
    machine.check_replay()
    machine.check_undo_all()
    machine.check_markups("undoing all")


@pytest.mark.parametrize("part", range(4))
def test_random_operations_keep_markups_and_steps_together(part, full):
    """The full run does 10,000 of them."""
    for number in range(10 if full else 1):
        headless = boot_scene()
        segmentation_node = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        volume_node = add_volume_node(headless.scene, small_volume())
        desk = SceneSession(segmentation_node, volume_node)
        try:
            run(DeskMachine(100 * number + part, desk, segmentation_node, volume_node), 250 if full else 60)
            steps = {key: desk.segment(key).steps for key in desk.session.known_ids}
            desk.prompts.stop()
            again = SceneSession(segmentation_node, volume_node)
            try:
                assert {key: again.segment(key).steps for key in steps} == steps
                DeskMachine(part, again, segmentation_node, volume_node).end(("scene", 0, 1)[(number + part) % 3])
            finally:
                again.prompts.stop()
        finally:
            desk.prompts.stop()
