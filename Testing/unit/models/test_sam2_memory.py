"""A memory of one object against transformers' own video session on raw frames."""

from copy import copy, deepcopy

import numpy as np
import pytest
import torch

from FoundationSegLib.errors import InferenceError
from FoundationSegLib.models.cpu_kernels.sam import HieraBlock, MemoryAttention
from FoundationSegLib.models.protocols import SliceMask, SlicePoint, SlicePrompt
from FoundationSegLib.models.segmentation.sam2 import Sam2, Sam2Preparation
from Testing.models.reference_sam2 import Video
from Testing.models.sam_reference import Waits
from Testing.models.small_sam2 import small_edgetam, small_network, volume_of_slices

SIZE = 128
SHAPE = (48, 64)
START, SLICES = 3, 7
BOX = SlicePrompt((20.0, 10.0, 50.0, 40.0))
POINT = SlicePrompt(points=(SlicePoint(38, 20),))
POINTS = SlicePrompt(points=(SlicePoint(38, 20), SlicePoint(5, 40, False)))
BOTH = SlicePrompt(BOX.box, POINTS.points)
_DISC = (np.mgrid[:48, :64][0] - 20) ** 2 + (np.mgrid[:48, :64][1] - 38) ** 2 < 150
MASK = SlicePrompt(mask=SliceMask.pack(_DISC))
PROMPTS = {"box": BOX, "point": POINT, "points": POINTS, "box and points": BOTH, "mask": MASK}


@pytest.fixture(scope="module", params=[(small_network, 0), (small_edgetam, 4)], ids=["SAM 2", "EdgeTAM"])
def reference(request):
    small, seed = request.param
    return small(seed, SIZE)


@pytest.fixture(scope="module")
def quick(reference):
    """With the kernels for a CPU, which sum in another order."""
    return Sam2(deepcopy(reference), Sam2Preparation(SIZE), "cpu")


@pytest.fixture(scope="module")
def model(quick, reference):
    """With transformers' own modules, so that every answer is the session's."""
    model = copy(quick)
    model.network = deepcopy(quick.network)
    for ours, theirs in zip(model.network.modules(), reference.modules(), strict=True):
        if isinstance(ours, HieraBlock | MemoryAttention):
            ours.__class__ = type(theirs)
    return model


@pytest.fixture(scope="module")
def frames():
    return volume_of_slices(SLICES, SHAPE)


@pytest.fixture(scope="module")
def embeddings(model, frames):
    return [model.encode(frame) for frame in frames]


@pytest.fixture(scope="module")
def session(reference, frames):
    return Video(reference, frames, SIZE, kept=SLICES)


@pytest.fixture
def video(session):
    """transformers' session without prompts; it has its own embeddings of the frames."""
    session.reset()
    return session


@pytest.fixture
def logits(model):
    """What a memory's masks are made of, in the order of its answers."""
    coarse = []
    hook = model.network.register_forward_hook(lambda _module, _inputs, output: coarse.append(output.pred_masks))
    yield coarse
    hook.remove()


def both_ways(memory, embeddings, start=START):
    """Up to the end, then down to the beginning: answers by slice."""
    answers = {i: memory.follow(i, embeddings[i], True) for i in range(start + 1, len(embeddings))}
    return answers | {i: memory.follow(i, embeddings[i], False) for i in range(start - 1, -1, -1)}


def both_ways_said(video, start=START):
    return {**video.propagate(start, True), **video.propagate(start, False)}


def check_answers(answers, said, atol=1e-5):
    assert set(answers) <= set(said)
    for index, answer in answers.items():
        one = said[index][0] if isinstance(said[index], list) else said[index]
        np.testing.assert_array_equal(answer.mask, one.mask, err_msg=f"slice {index}")
        assert answer.absent == (not one.present)
        assert not (answer.absent and answer.mask.any())
        if one.score is not None:
            assert answer.score == pytest.approx(min(max(one.score, 0), 1), abs=atol)


def check_following(model, video, embeddings, prompt):
    memory = model.remember(len(embeddings))
    answers, said = {START: memory.prompt(START, embeddings[START], prompt)}, {START: video.prompt(START, prompt)}
    check_answers(answers, said)
    said |= both_ways_said(video)
    check_answers(both_ways(memory, embeddings), said)
    return said


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_following_is_what_transformers_session_says(model, video, embeddings, prompt, logits):
    said = check_following(model, video, embeddings, prompt)
    order = (START, *range(START + 1, SLICES), *range(START - 1, -1, -1))
    for index, coarse in zip(order, logits, strict=True):
        torch.testing.assert_close(coarse, said[index][0].coarse, rtol=0, atol=1e-4)


@pytest.mark.parametrize("prompt", [BOX, POINTS, MASK], ids=["box", "points", "mask"])
def test_kernels_for_a_cpu_follow_to_the_same_masks(quick, video, frames, prompt):
    """But for pixels whose logit is next to zero: what is remembered has 8 bits, which rounding may turn."""
    memory, embeddings = quick.remember(SLICES), [quick.encode(frame) for frame in frames]
    answers = {START: memory.prompt(START, embeddings[START], prompt)} | both_ways(memory, embeddings)
    said = {START: video.prompt(START, prompt)[0]} | {
        n: one for n, (one,) in both_ways_said(video).items() if n != START
    }
    for index, answer in answers.items():
        assert answer.absent == (not said[index].present)
        turned = said[index].logits[answer.mask != said[index].mask]
        np.testing.assert_allclose(turned, 0, rtol=0, atol=1e-3, err_msg=f"slice {index}")


def test_the_device_is_waited_for_once_a_slice(model, embeddings):
    memory = model.remember(SLICES)
    with Waits() as waits:
        memory.prompt(START, embeddings[START], BOX)
        both_ways(memory, embeddings)
    assert waits.count == SLICES


def test_prompts_on_several_slices_are_what_transformers_session_says(model, video, embeddings):
    memory = model.remember(SLICES)
    prompts = {1: BOX, 4: POINTS, 5: MASK}
    answers = {i: memory.prompt(i, embeddings[i], prompt) for i, prompt in prompts.items()}
    said = {i: video.prompt(i, prompt) for i, prompt in prompts.items()}
    check_answers(answers, said)
    again = both_ways(memory, embeddings, 1)
    check_answers(again, both_ways_said(video, 1))
    assert all(again[i] is answers[i] for i in (4, 5))


def test_the_order_of_prompts_does_not_matter(model, embeddings):
    answers = []
    for order in ((1, 4, 5), (5, 1, 4)):
        memory = model.remember(SLICES)
        for index in order:
            memory.prompt(index, embeddings[index], {1: BOX, 4: POINTS, 5: MASK}[index])
        answers.append(both_ways(memory, embeddings, 1))
    for index, answer in answers[0].items():
        np.testing.assert_array_equal(answer.mask, answers[1][index].mask)
        assert answer.score == answers[1][index].score


def test_several_objects_are_what_one_session_with_all_of_them_says(model, video, embeddings):
    prompts = (POINT, SlicePrompt(points=(SlicePoint(10, 30),)), SlicePrompt(points=(SlicePoint(50, 8, False),)))
    first = video.prompt(START, *prompts)
    said = both_ways_said(video)
    memories = [model.remember(SLICES) for _ in prompts]
    for number, (memory, prompt) in enumerate(zip(memories, prompts, strict=True)):
        check_answers({START: memory.prompt(START, embeddings[START], prompt)}, {START: first[number]})
    # Slice by slice, as an engine may: what one memory does is nothing to the others.
    steps = [(i, True) for i in range(START + 1, SLICES)] + [(i, False) for i in range(START - 1, -1, -1)]
    for index, upwards in steps:
        for number, memory in enumerate(memories):
            answer = memory.follow(index, embeddings[index], upwards)
            check_answers({index: answer}, {index: said[index][number]})


@pytest.mark.parametrize("upwards", [True, False])
def test_a_correction_sees_what_is_remembered(model, video, embeddings, upwards):
    memory = model.remember(SLICES)
    memory.prompt(START, embeddings[START], BOX)
    video.prompt(START, BOX)
    both_ways(memory, embeddings)
    both_ways_said(video)
    index = START + 2 if upwards else START - 2
    corrected = memory.prompt(index, embeddings[index], POINTS)
    check_answers({index: corrected}, {index: video.prompt(index, POINTS, reverse=not upwards)})
    fresh = model.remember(SLICES).prompt(index, embeddings[index], POINTS)
    assert (corrected.mask != fresh.mask).any() or corrected.score != fresh.score
    beyond = index + 1 if upwards else index - 1
    said = video.propagate(beyond, upwards) or {0: video.said(lambda: video.network(video.session, 0, reverse=True))}
    steps = range(beyond, SLICES) if upwards else range(beyond, -1, -1)
    check_answers({i: memory.follow(i, embeddings[i], upwards) for i in steps}, said)
    assert memory.follow(index, embeddings[index], upwards) is corrected


def test_a_prompt_on_a_slice_that_was_prompted_before_replaces_the_first(model, embeddings):
    memory, other = model.remember(SLICES), model.remember(SLICES)
    memory.prompt(START, embeddings[START], BOX)
    for one in (memory, other):
        one.prompt(START, embeddings[START], POINTS)
    found, expected = both_ways(memory, embeddings), both_ways(other, embeddings)
    assert all((found[i].mask == expected[i].mask).all() for i in expected)


def test_a_mask_with_points_is_refined_first_and_then_remembered(model, embeddings):
    prompt = SlicePrompt(BOX.box, POINTS.points, MASK.mask)
    memory, other = model.remember(SLICES), model.remember(SLICES)
    answer = memory.prompt(START, embeddings[START], prompt)
    alone = model.decode(embeddings[START], prompt)
    np.testing.assert_array_equal(answer.mask, alone.mask)
    assert answer.score == alone.score
    other.prompt(START, embeddings[START], SlicePrompt(mask=SliceMask.pack(alone.mask)))
    found, expected = both_ways(memory, embeddings), both_ways(other, embeddings)
    assert all((found[i].mask == expected[i].mask).all() for i in expected)


def test_a_mask_is_believed(model, embeddings):
    answer = model.remember(SLICES).prompt(START, embeddings[START], MASK)
    assert (answer.score, answer.absent) == (1.0, False)
    assert (answer.mask == _DISC).mean() > 0.98


def test_an_empty_mask_means_absent(model, embeddings):
    answer = model.remember(SLICES).prompt(2, embeddings[2], SlicePrompt(mask=SliceMask.pack(np.zeros(SHAPE, bool))))
    assert answer.absent
    assert not answer.mask.any()


def test_without_a_prompt_there_is_nothing_to_follow(model, embeddings):
    with pytest.raises(InferenceError, match="nothing to follow"):
        model.remember(SLICES).follow(0, embeddings[0], True)


def test_a_long_way_needs_no_more_memory_and_changes_no_answer(model, reference):
    """More slices than the network looks back at, with two prompts; transformers' session keeps everything."""
    frames = volume_of_slices(26)
    embeddings = [model.encode(frame) for frame in frames]
    memory, video = model.remember(len(frames)), Video(reference, frames, SIZE, kept=len(frames))
    for index in (9, 12):
        memory.prompt(index, embeddings[index], BOX)
        video.prompt(index, BOX)
    said, largest = both_ways_said(video, 9), 0
    for upwards, steps in ((True, range(10, 26)), (False, range(8, -1, -1))):
        for index in steps:
            check_answers({index: memory.follow(index, embeddings[index], upwards)}, said)
            largest = max(largest, memory.nbytes)
    # Spatial memories from six below the first prompt to six above the second, and six beside the latest.
    tokens = (SIZE // 16) ** 2 * 64
    assert largest < 2 * (16 + 7) * tokens + 4 * tokens + len(frames) * (128 * 4 + 64)


def test_fifty_slices_take_what_fifteen_take_but_for_pointers(model, embeddings):
    memory, sizes = model.remember(50), []
    memory.prompt(0, embeddings[0], BOX)
    for index in range(1, 50):
        memory.follow(index, embeddings[index % SLICES], True)
        sizes.append(memory.nbytes)
    spatial = 24 * 64 * 4 if hasattr(model.network, "spatial_perceiver") else 0  # EdgeTAM's 24 tokens are kept
    assert max(sizes) - sizes[14] <= 35 * (128 * 4 + 64 + spatial)
