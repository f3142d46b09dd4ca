"""Random operations on sessions in scenes, markups moved and removed among them: markups and steps always agree."""

import numpy as np
import pytest
import slicer

from FoundationSegLib.mrml.prompt_markups import take_from_folder
from FoundationSegLib.mrml.prompt_nodes import prompt_nodes, shape_of
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.segment_tags import read_record
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import PointPrompt, Polarity
from FoundationSegLib.prompts.prompts_file import bare
from Testing.mrml.scene_session import SceneSession
from Testing.mrml.test_session_store import SceneMachine
from Testing.unit.session.session_cases import small_volume

MORE = {"drag": 12, "drop": 5, "save_state": 4, "slicers_undo": 3, "drop_all": 1}


class DeskMachine(SceneMachine):
    """The same, with the prompts of the session as markups."""

    foreign = (*SceneMachine.foreign, "slicers_undo")

    def __init__(self, seed, desk, segmentation_node, volume_node):
        self.desk, self.scene = desk, segmentation_node.GetScene()
        self.slicers_history = slicer.vtkSegmentationHistory()
        self.slicers_history.SetSegmentation(segmentation_node.GetSegmentation())
        super().__init__(seed, desk.session, desk.client, segmentation_node, volume_node)
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
                assert (drawn[key][one].GetDisplayNode().GetSelectedColor()[0] > 0.5) == negative, name


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
            run(DeskMachine(100 * number + part, desk, segmentation_node, volume_node), 250 if full else 40)
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
