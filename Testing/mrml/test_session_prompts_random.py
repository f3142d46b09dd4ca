"""Random operations on sessions in scenes, markups moved and removed among them: markups and steps always agree."""

import numpy as np
import pytest

from FoundationSegLib.core.prompts import PointPrompt, Polarity, bare
from FoundationSegLib.mrml.prompt_folder import take_from_folder
from FoundationSegLib.mrml.prompt_nodes import prompt_nodes
from FoundationSegLib.mrml.prompt_records import read_record
from FoundationSegLib.mrml.prompt_shapes import shape_of
from FoundationSegLib.mrml.volumes import add_volume_node
from Testing.mrml.session_desk import Desk
from Testing.mrml.test_session_store import SceneMachine
from Testing.unit.core.session_cases import small_volume

MORE = {"drag": 12, "drop": 5}


class DeskMachine(SceneMachine):
    """The same, with the prompts of the session as markups."""

    def __init__(self, seed, desk, segmentation_node, volume_node):
        self.desk, self.scene = desk, segmentation_node.GetScene()
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

    def check_markups(self, name):
        geometry, drawn = self.store.geometry, {}
        for place, node in prompt_nodes(self.nodes[0]):
            drawn.setdefault(place.segment_id, {})[place.key] = node
        assert drawn.keys() <= set(self.store.segment_ids), name
        for key in self.store.segment_ids:
            if key not in self.session.ledger.records:
                continue
            record = read_record(self.store.writer.segment(key))
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


@pytest.mark.parametrize("part", range(4))
def test_random_operations_keep_markups_and_steps_together(part, full, scene, segmentation_node):
    volume_node = add_volume_node(scene, small_volume())
    desk = Desk(segmentation_node, volume_node)
    try:
        machine = DeskMachine(part, desk, segmentation_node, volume_node)
        for _ in range(250 if full else 40):
            machine.step()
        machine.check_replay()
        machine.check_undo_all()
        machine.check_markups("undoing all")
        steps = {key: desk.segment(key).steps for key in desk.session.ledger.records}
        desk.prompts.stop()
        again = Desk(segmentation_node, volume_node)
        assert {key: again.segment(key).steps for key in steps} == steps
        again.prompts.stop()
    finally:
        desk.prompts.stop()
