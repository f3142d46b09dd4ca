import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.errors import InputError, PromptError
from FoundationSegLib.imaging.geometry import Box
from FoundationSegLib.imaging.masks import MaskTable, pack_mask
from FoundationSegLib.prompts import kinds
from FoundationSegLib.prompts.regions import AroundPrompt, InsideBox, SliceRange
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.session.steps import (
    AcceptStep,
    ModelChoice,
    PolarityChanged,
    PromptAdded,
    PromptMoved,
    PromptRemoved,
    PropagateStep,
    RegionStep,
    RejectStep,
    SeedStep,
    SettingsStep,
    WithheldStep,
    parse_steps,
    restated,
    state_of,
    steps_to_document,
    transformed_steps,
)
from Testing.unit import strategies

MASKS = MaskTable()
KEY = MASKS.put(pack_mask(np.ones((2, 3, 4)), (1, 1, 1)))
POINT, OTHER = kinds.PointPrompt((1.0, 2.0, 3.0)), kinds.PointPrompt((4.0, 5.0, 6.0))
keys = st.sampled_from(["1", "2", "3"])
mask_keys = st.sampled_from(["", KEY])
prompts = strategies.prompts | st.just(kinds.MaskPrompt("a.nrrd", "b", voxels=MASKS.get(KEY)))
regions = st.sampled_from([None, AroundPrompt(3.0), SliceRange("j", 1, 4), InsideBox(Box((0, 1, 2), (3, 4, 5)))])
flags = (st.booleans(), st.booleans(), st.booleans())
choices = st.builds(ModelChoice, strategies.names, strategies.names, *flags, regions)
steps = st.one_of(
    st.builds(SeedStep, mask_keys, st.sampled_from(["start", "hand", "model"]), mask_keys),
    st.builds(PromptAdded, keys, prompts),
    st.builds(PromptMoved, keys, prompts),
    st.builds(PromptRemoved, keys),
    st.builds(PolarityChanged, keys, strategies.polarities),
    st.builds(PropagateStep, st.builds(Propagation, st.none() | st.integers(0, 5), st.none() | st.integers(6, 9))),
    st.builds(RegionStep, regions),
    st.just(AcceptStep()),
    st.builds(RejectStep, st.integers(1, 3)),
    st.builds(SettingsStep, choices),
    st.builds(WithheldStep, mask_keys, mask_keys),
)


@given(st.lists(steps, max_size=8).map(tuple))
def test_steps_travel_as_json(written):
    table = MaskTable()
    document = json.loads(json.dumps(steps_to_document(written, MASKS)))
    assert parse_steps(document, table) == written
    for step in written:
        if isinstance(step, SeedStep):
            assert table.get(step.mask) == MASKS.get(step.mask)


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"version": 2, "steps": []},
        {"version": 1},
        {"version": 1, "steps": [{"step": "no such"}]},
        {"version": 1, "steps": [{"step": "seed"}]},
        {"version": 1, "steps": ["seed"]},
        {"version": 1, "steps": [], "masks": {"a": 3}},
        {"version": 1, "steps": [{"step": "region", "kind": "around", "radius_mm": -1}]},
        {"version": 1, "steps": [{"step": "polarity-changed", "key": "1", "polarity": "maybe"}]},
    ],
)
def test_damaged_documents_are_refused(document):
    with pytest.raises(InputError):
        parse_steps(document, MaskTable())


def test_a_damaged_prompt_is_named():
    document = {"version": 1, "steps": [{"step": "prompt-added", "key": "7", "prompt": {"type": "point"}}]}
    with pytest.raises(PromptError, match="the prompt '7' is damaged"):
        parse_steps(document, MaskTable())


def test_any_prompt_is_removed_moved_and_turned():
    now = state_of((PromptAdded("1", POINT), PromptAdded("2", OTHER), PolarityChanged("1", kinds.Polarity.NEGATIVE)))
    assert [held.prompt for held in now.prompts] == [replace(POINT, polarity=kinds.Polarity.NEGATIVE), OTHER]
    now = now.after(PromptMoved("1", OTHER), PromptRemoved("2"))
    assert [(held.key, held.prompt, held.is_live) for held in now.prompts] == [("1", OTHER, True)]
    assert now.vacated == ()


def test_a_seed_settles_what_came_before():
    first = (PromptAdded("1", POINT), PromptAdded("2", OTHER), WithheldStep(KEY, KEY))
    now = state_of((*first, SeedStep(KEY, "hand", KEY)))
    assert not now.is_computed and (now.seed, now.ground, now.hand, now.denied) == (KEY, "", (KEY,), "")
    moved = now.after(PromptMoved("1", OTHER))
    assert moved.is_computed and moved.vacated == (POINT,)
    assert [held.is_live for held in moved.prompts] == [True, False]
    assert now.after(PromptRemoved("2")).vacated == (OTHER,)


def test_ground_stays_below_what_was_propagated_or_drawn():
    start = (SeedStep(KEY, "start"), PromptAdded("1", POINT), PropagateStep(Propagation()))
    assert state_of((*start, SeedStep("", "propagated"))).ground == KEY
    assert state_of((*start, SeedStep("", "region"))).ground == ""


def test_rejected_steps_do_not_count():
    first = (PromptAdded("1", POINT),)
    rejected = state_of((*first, PromptAdded("2", OTHER), AcceptStep(), RejectStep(2)))
    assert replace(rejected, steps=first) == state_of(first)
    with pytest.raises(InputError, match="cannot be rejected"):
        state_of((*first, RejectStep(2)))


@pytest.mark.parametrize(
    "step", [PromptRemoved("9"), PromptMoved("9", POINT), PolarityChanged("9", kinds.Polarity.POSITIVE)]
)
def test_a_prompt_that_is_not_there_is_named(step):
    with pytest.raises(InputError, match="no prompt '9'"):
        state_of((PromptAdded("1", POINT), step))


def test_a_key_comes_once():
    with pytest.raises(InputError, match="a prompt '1' already"):
        state_of((PromptAdded("1", POINT), PromptAdded("1", POINT)))


def test_the_same_prompts_for_another_model():
    other = ModelChoice("other")
    story = (
        SeedStep(KEY, "start"),
        PromptAdded("1", POINT),
        SeedStep("", "hand", KEY),
        PromptMoved("1", OTHER),
        PropagateStep(Propagation(1, 5)),
    )
    assert restated(story, other) == (
        SeedStep(KEY, "start"),
        SettingsStep(other),
        PromptAdded("1", OTHER),
        PropagateStep(Propagation(1, 5)),
    )


def test_what_a_card_says_of_a_model():
    cards = read_catalogue()
    assert ModelChoice.of(cards["lite-medsam"]) == ModelChoice("lite-medsam", takes_masks=True)
    assert ModelChoice.of(cards["sam-vit-base"]) == ModelChoice("sam-vit-base", sees_seed=True, takes_masks=True)
    assert ModelChoice.of(cards["nninteractive"], "raw") == ModelChoice("nninteractive", "raw", True, True, True)
    assert ModelChoice.of(cards["vista3d"]).in_3d and not ModelChoice.of(cards["vista3d"]).takes_masks


ELSEWHERE = np.array([[0.0, -2, 0.3, 50], [1.5, 0, 0, -20], [0, 0.2, 1, 7], [0, 0, 0, 1]])
FIRST, SECOND, PLANE = (
    (1.0, 2.0, 3.0),
    (4.0, 5.0, 6.0),
    kinds.ObliquePlane((1.0, 2, 3), (0.1, 0.2, 1.0), (0.0, 1.0, -0.2)),
)


@pytest.mark.parametrize(
    "prompt",
    [
        kinds.PointPrompt(FIRST, plane=PLANE),
        kinds.BoxPrompt((FIRST, SECOND), plane="k"),
        kinds.ScribblePrompt((FIRST, SECOND), 2.0),
        kinds.LassoPrompt((FIRST, SECOND, (1.0, 5.0, 6.0)), plane=PLANE),
        kinds.TextPrompt("liver"),
    ],
)
def test_prompts_go_along_with_an_image_that_is_moved(prompt):
    steps = (PromptAdded("1", prompt), RegionStep(None), PromptMoved("1", prompt), PromptRemoved("1"))
    moved = transformed_steps(steps, ELSEWHERE)
    assert moved[1] is steps[1] and moved[3] is steps[3] and moved[0].prompt == moved[2].prompt
    there = moved[0].prompt
    for name in ("position", "corners", "points"):
        before, after = (np.reshape(getattr(one, name, FIRST), (-1, 3)) for one in (prompt, there))
        assert not hasattr(prompt, name) or np.allclose(before @ ELSEWHERE[:3, :3].T + ELSEWHERE[:3, 3], after)
    if getattr(prompt, "plane", None) is PLANE:
        across = np.cross(PLANE.up, PLANE.normal)  # lies in the plane, and so does its image
        assert np.isclose(np.dot(there.plane.normal, ELSEWHERE[:3, :3] @ across), 0)
        assert np.isclose(np.dot(there.plane.normal, there.plane.up), np.dot(PLANE.normal, PLANE.up))
    assert np.allclose(_positions(transformed_steps(moved, np.linalg.inv(ELSEWHERE))), _positions(steps))


def _positions(steps):
    prompt = steps[0].prompt
    return [*np.ravel(getattr(prompt, "position", getattr(prompt, "points", getattr(prompt, "corners", ()))))]
