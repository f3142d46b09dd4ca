"""Clicks against a plain form of the challenge's rule; the protocol with models that are made of rules."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import Cancelled, CheckpointError, InferenceError, InputError, PromptError
from FoundationSegLib.evaluation.protocol import ProtocolSettings
from FoundationSegLib.evaluation.simulated_prompts import box_around, evaluate_object, next_click
from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt, Polarity
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, Propagation, SegmentPrediction
from Testing.unit.evaluation.masks import block, pairs, shapes, spacings
from Testing.unit.fakes import volume_of

NEIGHBOURS = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]


def components(error):
    """The sets of voxels that hang together by faces, edges or corners, in the order of their first voxels."""
    left, found = {tuple(map(int, voxel)) for voxel in np.argwhere(error)}, []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        queue, component = [start], {start}
        while queue:
            voxel = queue.pop()
            for step in NEIGHBOURS:
                near = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if near in left:
                    left.remove(near)
                    component.add(near)
                    queue.append(near)
        found.append(component)
    return found


def depths(component, shape, spacing):
    """By voxel of the component: mm to the nearest voxel outside, one layer around the image included."""
    outside = [v for v in itertools.product(*(range(-1, n + 1) for n in shape)) if v not in component]
    scale = np.array(spacing[::-1])
    return {v: min(np.linalg.norm((np.array(v) - o) * scale) for o in outside) for v in component}


def challenge_click(error, seed=42):
    """The voxel (k, j, i) by the challenge's rule: distances in voxels."""
    largest = max(components(error), key=len)
    depth = depths(largest, error.shape, (1, 1, 1))
    deepest = [v for v in sorted(depth) if np.isclose(depth[v], max(depth.values()))]
    np.random.seed(seed)  # noqa: NPY002
    return deepest[np.random.choice(len(deepest))]  # noqa: NPY002


@given(pairs, spacings)
def test_a_click_lies_deepest_in_the_largest_error(pair, spacing):
    truth, mask = pair
    click = next_click(truth, mask, spacing)
    if np.array_equal(truth, mask):
        assert click is None
        return
    k, j, i = click.index_ijk[::-1]
    assert truth[k, j, i] != mask[k, j, i]
    assert click.polarity == (Polarity.POSITIVE if truth[k, j, i] else Polarity.NEGATIVE)
    parts = components(truth != mask)
    own = next(part for part in parts if (k, j, i) in part)
    assert len(own) == max(map(len, parts))
    depth = depths(own, truth.shape, spacing)
    assert depth[k, j, i] == pytest.approx(max(depth.values()))


@given(pairs, st.integers(0, 2**32 - 1))
def test_with_a_spacing_of_one_it_is_the_challenges_click(pair, seed):
    truth, mask = pair
    click = next_click(truth, mask, seed=seed)
    assert click is None or click.index_ijk[::-1] == challenge_click(truth != mask, seed)


@given(shapes, spacings)
def test_a_perfect_segment_needs_no_click(shape, spacing):
    mask = np.random.default_rng(1).random(shape) > 0.5
    assert next_click(mask, mask.copy(), spacing) is None


def test_the_seed_chooses_among_equals_and_nothing_else_does():
    truth = np.ones((1, 1, 60), np.bool_)
    clicks = {next_click(truth, ~truth, seed=seed) for seed in range(20)}
    assert len(clicks) > 1
    assert next_click(truth, ~truth) == next_click(truth, ~truth)
    np.random.seed(7)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    next_click(truth, ~truth)
    assert np.array_equal(np.random.get_state()[1], before), "nobody else's random numbers change"  # noqa: NPY002


SHAPE = (8, 10, 12)
TRUTH = block(SHAPE, (2, 6), (3, 8), (4, 9))
VOLUME = volume_of(np.arange(960, dtype=np.int16).reshape(SHAPE))


def prediction(request, mask, **fields):
    record = CheckpointRecord(request.model_id, "nowhere", "1", "ab")
    segments = (SegmentPrediction(pack_mask(mask), 0.5),)
    return Prediction(request.request_id, segments, {"policy": request.intensity}, record, "cpu", "float32", **fields)


class Painter:
    """Fills a box, and paints with each click a cube of so many voxels; remembers what it was asked."""

    def __init__(self, radius=1, volume=VOLUME, **fields):
        self.radius, self.volume, self.fields, self.requests = radius, volume, fields, []

    def __call__(self, request):
        self.requests.append(request)
        mask = np.zeros(self.volume.geometry.shape_kji, np.bool_)
        for prompt in request.segments[0].prompts:
            if isinstance(prompt, BoxPrompt):
                ends = [self.volume.geometry.nearest_voxel(corner)[::-1] for corner in prompt.corners]
                mask[tuple(slice(a, b + 1) for a, b in zip(*ends, strict=True))] = True
            else:
                centre = self.volume.geometry.nearest_voxel(prompt.position)[::-1]
                near = tuple(slice(max(0, n - self.radius), n + self.radius + 1) for n in centre)
                mask[near] = prompt.polarity is Polarity.POSITIVE
        return prediction(request, mask, **self.fields)


def run(model, protocol="box+clicks", truth=TRUTH, **settings):
    return evaluate_object(
        model, "any", getattr(model, "volume", VOLUME), truth, ProtocolSettings(protocol, **settings)
    )


def kinds(scores):
    return [step.prompt for step in scores.steps]


def test_a_box_then_clicks_each_with_all_prompts_so_far():
    model, told = Painter(), []
    settings = ProtocolSettings("box+clicks", 3, intensity="ct-lung")
    scores = evaluate_object(model, "any", VOLUME, TRUTH, settings, lambda: told.append(1))
    assert len(told) == settings.steps == 4
    assert {(request.intensity, request.volume_key) for request in model.requests} == {("ct-lung", VOLUME.key)}
    assert [len(request.segments[0].prompts) for request in model.requests] == [1, 2, 3, 4]
    assert [type(prompt) for prompt in model.requests[-1].segments[0].prompts] == [BoxPrompt] + [PointPrompt] * 3
    assert len({request.request_id for request in model.requests}) == 4
    assert kinds(scores)[:2] == ["box", "negative click"], "the box is wider than the object"
    assert scores.steps[0].dice == pytest.approx(2 * 100 / (100 + 4 * 7 * 7))
    assert all(step.seconds >= 0 and step.error is None for step in scores.steps)
    assert scores.origin.checkpoint.model_id == "any"


def test_clicks_alone_begin_in_the_middle_and_are_carried_on_and_a_box_is_not():
    model = Painter()
    scores = run(model, "clicks", clicks=1)
    first = model.requests[0].segments[0].prompts[0]
    assert (first.polarity, first.plane) == (Polarity.POSITIVE, "k")
    i, j, k = first.position
    assert (5 <= i <= 7, 4 <= j <= 6, 3 <= k <= 4) == (True, True, True), "two voxels from the border of the object"
    assert model.requests[0].propagation == Propagation()
    assert kinds(scores) == ["positive click"]
    assert scores.dice_auc is None
    scores = run(model, "box")
    assert (kinds(scores), scores.dice_auc, scores.nsd_auc) == (["box"], None, None)
    assert model.requests[-1].propagation is None, "a box has its range"


def test_nothing_is_asked_about_a_perfect_segment():
    model = Painter(radius=9)  # one click paints everything
    scores = run(model, "clicks", truth=np.ones(SHAPE, np.bool_))
    assert kinds(scores) == ["positive click"] + ["none"] * 4
    assert len(model.requests) == 1
    assert [step.dice for step in scores.steps] == [1] * 5
    assert scores.steps[-1].seconds is None
    assert (scores.dice_auc, scores.nsd_auc) == (4, 4)


@pytest.mark.parametrize("error", [PromptError("no such thing"), InferenceError("out of memory")])
def test_a_step_that_fails_has_found_nothing_and_the_next_goes_on(error):
    painter = Painter()

    def model(request):
        if len(painter.requests) == 1:
            painter.requests.append(request)
            raise error
        return painter(request)

    scores = run(model, clicks=3)
    assert [step.error for step in scores.steps] == [None, error, None, None]
    assert (scores.steps[1].dice, scores.steps[1].nsd, scores.steps[1].seconds) == (0, 0, None)
    assert scores.steps[2].prompt == "positive click", "nothing was found: the object is clicked"
    assert scores.steps[3].dice > 0


@pytest.mark.parametrize("error", [CheckpointError("none"), Cancelled("stopped"), InputError("no image")])
def test_what_every_step_would_fail_with_ends_it(error):
    def model(request):
        raise error

    with pytest.raises(type(error)):
        run(model)


def test_loading_the_model_is_told_apart():
    scores = run(Painter(timings_s={"load": 5.0, "encode": 0.1}, notes=("clipped",)), clicks=2)
    assert [step.seconds for step in scores.steps] == [0, 0, 0]
    assert scores.load_s == 15
    assert scores.notes == ("clipped",)


def test_space_is_that_of_the_image():
    """An oblique, anisotropic grid: prompts are in RAS, and mean the same voxels."""
    matrix = geometry_from_spacing(SHAPE, (0.7, 0.9, 5.0)).ijk_to_ras.copy()
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1]])
    matrix[:3, :3], matrix[:3, 3] = turn @ matrix[:3, :3], (10, -20, 30)
    volume = Volume(VOLUME.array_kji, replace(VOLUME.geometry, ijk_to_ras=matrix))
    scores = run(Painter(volume=volume), clicks=2)
    plain = run(Painter(), clicks=2)
    assert scores.steps[0].dice == plain.steps[0].dice
    k, j, i = scores.steps[1].index_ijk[::-1]
    assert TRUTH[k, j, i] == (scores.steps[1].prompt == "positive click")


@given(st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 2**31))
def test_the_box_holds_the_object_and_one_voxel_more_within_slices(shape, seed):
    mask = np.random.default_rng(seed).random(shape) > 0.8
    if not mask.any():
        return
    corners = np.array(box_around(mask, geometry_from_spacing(shape)).corners)
    voxels = np.argwhere(mask)[:, ::-1]
    assert np.array_equal(corners[0], np.maximum(np.subtract(voxels.min(axis=0), (1, 1, 0)), 0))
    assert np.array_equal(corners[1], np.minimum(np.add(voxels.max(axis=0), (1, 1, 0)), np.subtract(shape[::-1], 1)))
