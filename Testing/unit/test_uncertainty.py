from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from FoundationSegLib.api import map_uncertainty, open_session
from FoundationSegLib.errors import InputError, PromptError
from FoundationSegLib.imaging.geometry import Box, Geometry
from FoundationSegLib.imaging.masks import EMPTY_MASK, pack_mask
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import (
    BoxPrompt,
    LassoPrompt,
    ObliquePlane,
    PointPrompt,
    ScribblePrompt,
    SegmentPrompts,
    TextPrompt,
)
from FoundationSegLib.prompts.oblique import place_in_view
from FoundationSegLib.prompts.placement import place_box, prompt_positions
from FoundationSegLib.requests.segmentation import (
    CheckpointRecord,
    Prediction,
    PredictRequest,
    Propagation,
    SegmentPrediction,
    SliceScores,
)
from FoundationSegLib.requests.uncertainty import SliceDoubts, uncertainty, uncertainty_request
from FoundationSegLib.session.measures import slice_doubts
from FoundationSegLib.session.segments import new_segment
from FoundationSegLib.session.steps import ModelChoice
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.engine.engine_cases import ct, new_engine
from Testing.unit.fakes import FakeModel

GRID = Geometry([[-0.8, 0, 0, 30], [0, 0.7, 0, -40], [0, 0, 5.0, 7], [0, 0, 0, 1]], (9, 60, 50))


def at(i, j, k):
    return tuple(GRID.to_ras((i, j, k)).tolist())


def request(*prompts):
    return PredictRequest(3, "fake", "key", (SegmentPrompts("A", prompts),), propagation=Propagation())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_jittered_prompts_stay_in_the_image_and_on_their_slices(seed, answers):
    rng = np.random.default_rng(seed)
    i, j, k = (int(rng.integers(0, size)) for size in reversed(GRID.shape_kji))
    ends = sorted(rng.integers(0, 50, 2)), sorted(rng.integers(0, 60, 2))
    flat = BoxPrompt((at(ends[0][0], ends[1][0], k), at(ends[0][1] + 2, ends[1][1] + 2, k)))
    solid = BoxPrompt((at(5, 6, 2), at(25, 40, 6)))
    plane = ObliquePlane(at(20, 20, 4), (0.0, 0.5, 1.0), (0.0, 1.0, -0.5))
    lines = [ScribblePrompt((at(9, 9, 4), at(12, 14, 4))), LassoPrompt((at(0, 0, 1), at(9, 1, 1), at(3, 8, 1)))]
    given_prompts = (flat, solid, PointPrompt(at(i, j, k)), PointPrompt(at(20, 20, 4), plane=plane), *lines)
    asked = uncertainty_request(request(*given_prompts), GRID, answers, seed)
    assert asked == uncertainty_request(request(*given_prompts), GRID, answers, seed)
    first, *others = asked.segments
    assert first.prompts == given_prompts and len(others) == answers - 1
    assert len({segment.name for segment in asked.segments}) == answers
    for segment in others:
        assert segment.prompts != given_prompts
        for before, after in zip(given_prompts, segment.prompts, strict=True):
            if isinstance(before, BoxPrompt):
                old, new = place_box(before, GRID), place_box(after, GRID)
                assert (old.axis, old.slices) == (new.axis, new.slices)
                most = 0.08 * np.ptp([old.box.start_kji, old.box.stop_kji], axis=0) + 2
                assert np.all(np.abs(np.subtract(old.box.start_kji, new.box.start_kji)) <= most)
            else:
                index = GRID.to_ijk(prompt_positions(after))
                assert np.all(index > -0.5) and np.all(index < np.array(GRID.shape_kji[::-1]) - 0.5)
                assert before.plane or np.allclose(index[:, 2], GRID.to_ijk(prompt_positions(before))[:, 2])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(-0.7, 0.7), st.floats(-0.7, 0.7))
def test_what_was_drawn_in_an_oblique_view_is_jittered_within_it(seed, tilt, lean):
    normal, up = np.array((0.4, tilt, 1.0)), np.array((0.0, 1.0, lean))  # which need not be at right angles
    across, centre = np.cross(up, normal), np.array(at(25, 30, 4))
    up_in_view = np.cross(normal, across)
    right_mm, up_mm = (6 * line / np.linalg.norm(line) for line in (across, up_in_view))
    plane = ObliquePlane(*map(tuple, (centre.tolist(), normal.tolist(), up.tolist())))
    corners = tuple(tuple(corner.tolist()) for corner in (centre - right_mm + up_mm, centre + right_mm - up_mm))
    prompts = (BoxPrompt(corners, plane=plane), PointPrompt(corners[0], plane=plane))
    for segment in uncertainty_request(request(*prompts), GRID, 6, seed).segments[1:]:
        assert all(before != after for before, after in zip(prompts, segment.prompts, strict=True))
        for prompt in segment.prompts:
            place_in_view(prompt, GRID)
            positions = np.array(prompt_positions(prompt)) - centre
            assert np.abs(positions @ normal).max() < 1e-9
            assert (np.abs(positions @ across / np.linalg.norm(across)) <= 6 + 1.41).all()


@pytest.mark.parametrize(
    ("prompts", "answers", "error"),
    [
        ((TextPrompt("liver"),), 4, PromptError),
        ((BoxPrompt((at(1, 1, 40), at(5, 5, 40))),), 4, PromptError),
        ((PointPrompt(at(1, 1, 1)),), 1, InputError),
        ((PointPrompt(at(1, 1, 1)),), 65, InputError),
    ],
)
def test_requests_that_cannot_be_jittered(prompts, answers, error):
    with pytest.raises(error):
        uncertainty_request(request(*prompts), GRID, answers)


def prediction(*masks, slices=None):
    segments = tuple(SegmentPrediction(mask, 0.5, slices) for mask in masks)
    return Prediction(1, segments, {}, CheckpointRecord("fake", "", "", ""), "cpu", "float32")


def test_the_map_is_the_entropy_of_the_vote_and_the_larger_of_several_segments():
    a, b = np.zeros((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
    a[1, 1:4, 1:4] = True
    b[1, 1:4, 1:3] = True
    b[2, 2, 2] = True
    found = uncertainty(prediction(*map(pack_mask, (a, b, a, b))), 4)
    whole = np.zeros(a.shape, np.float32)
    whole[found.box.slices] = found.values_kji
    assert np.array_equal(whole, (a ^ b).astype(np.float32)) and found.values_kji.dtype == np.float32
    assert found.slices.axis == "k" and found.slices.doubts == {1: pytest.approx(1 / 3), 2: 1.0}
    quarter = uncertainty(prediction(*map(pack_mask, (a, a, a, b))), 4).values_kji
    assert (
        quarter.max() == pytest.approx(0.8113, abs=1e-4)
        and not uncertainty(prediction(pack_mask(a)), 1).values_kji.any()
    )
    both = uncertainty(prediction(*map(pack_mask, (a, b, b, b)), EMPTY_MASK, EMPTY_MASK), 2)
    assert both.values_kji.max() == 1.0
    with pytest.raises(InputError, match="no answer has a voxel"):
        uncertainty(prediction(EMPTY_MASK, EMPTY_MASK), 2)


def test_doubtful_slices_are_the_unsure_ones_and_the_highest_quarter_and_come_in_turn():
    doubts = SliceDoubts("k", {2: 0.1, 3: 0.5, 4: 0.05, 7: 0.2, 8: 0.45, 9: 0.0, 10: 0.0, 11: 0.0})
    assert doubts.doubtful == (3, 8)
    assert [doubts.next_doubtful(number) for number in (None, 2, 3, 8, 11)] == [3, 3, 8, 3, 3]
    assert SliceDoubts("j", {5: 0.01, 6: 0.02}).doubtful == (6,)


def test_a_session_keeps_the_estimates_of_slices_through_undo_and_forgets_corrected_ones(tmp_path):
    model = FakeModel()
    client = InlineClient(new_engine(tmp_path, model))
    session = open_session(ct(), client, ModelChoice("fake"))
    segment = new_segment(session, "Block")
    segment.add(BoxPrompt(((3.0, 2.0, 1.0), (9.0, 7.0, 1.0))))
    assert slice_doubts(session, segment.segment_id).doubts == {1: 0.25}
    segment.add(BoxPrompt(((3.0, 2.0, 4.0), (9.0, 7.0, 4.0))))
    segment.propagate()
    assert slice_doubts(session, segment.segment_id) == SliceDoubts("k", dict.fromkeys(range(1, 5), 0.25))
    voxels = session.read(segment.segment_id)
    voxels[2, 3, 4] = False
    session.store.put(segment.segment_id, voxels)
    session.detect_external_changes()
    assert sorted(slice_doubts(session, segment.segment_id).doubts) == [1, 3, 4]
    encodes = len(model.encoded)
    found = map_uncertainty(session, "Block", client, 4)
    assert found.answers == 4 and found.values_kji.shape == found.box.shape_kji
    assert len(model.encoded) == encodes, "every slice was encoded once, for all answers"
    assert np.array_equal(session.read(segment.segment_id), voxels), "nothing is changed"
    empty = new_segment(session, "Empty")
    assert slice_doubts(session, empty.segment_id) is None
    with pytest.raises(InputError, match="no prompts"):
        map_uncertainty(session, "Empty", client)


def test_estimates_of_a_part_are_told_on_the_whole_image():
    scores = SliceScores("j", (0, 3), (0.9, 0.4))
    assert scores.shifted(5) == SliceScores("j", (5, 8), (0.9, 0.4)) and scores.unsure == (3,)


class UnsureModel(FakeModel):
    def decode(self, *arguments):
        return replace(super().decode(*arguments), score=0.5)


def test_slices_of_a_region_that_the_model_is_not_sure_of_are_named_by_their_numbers_in_the_image(tmp_path):
    engine, volume = new_engine(tmp_path, UnsureModel()), ct()
    boxes = [((3.0, 2.0, 2.0), (9.0, 7.0, 2.0)), ((3.0, 3.0, 1.0), (9.0, 3.0, 4.0))]
    segments = tuple(SegmentPrompts(str(n), (BoxPrompt(corners),)) for n, corners in enumerate(boxes))
    region = Box((1, 2, 3), volume.geometry.shape_kji)
    engine.add_volume(volume)
    question = PredictRequest(1, "fake", volume.key, segments, propagation=Propagation(), region=region)
    notes = engine.predict(question, Progress()).notes
    for n, numbers in enumerate(("1 to 4", "3 to 6")):
        assert f"segments[{n}]: the model is not sure of the slices {numbers}: check them" in notes
