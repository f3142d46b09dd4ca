import numpy as np

from FoundationSegLib.engine.caches import SliceCache
from FoundationSegLib.imaging.intensity import IntensityMapping
from FoundationSegLib.models.protocols import SlicePoint, SlicePrompt
from FoundationSegLib.progress import Progress
from Testing.unit.engine.slice_cases import AS_IT_IS, SHAPE, bright, cache_of, find, inference_on, numbered, track
from Testing.unit.fakes import FakeModel


def test_a_slice_is_encoded_once_however_many_prompts_it_gets():
    model, cache = FakeModel(), cache_of(10**6)
    first, second = (inference_on(numbered(), model, cache) for _ in range(2))
    find(first, [track(4, range(3, 6)), track(5, range(4, 7), prompt=SlicePrompt((1, 1, 5, 5)))])
    assert (first.counts.encodes, first.counts.decodes, len(model.encoded)) == (4, 6, 4)
    find(second, [track(4, range(3, 6))])
    assert (second.counts.encodes, second.counts.decodes, len(model.encoded)) == (0, 3, 4)


def test_what_was_asked_before_is_not_asked_again():
    model, cache = FakeModel(), SliceCache.within(10**6)
    first, second = (inference_on(bright(), model, cache) for _ in range(2))
    masks = [find(one, [track(4, range(3, 6))]) for one in (first, second)]
    assert masks[0] == masks[1]
    assert (first.counts.decodes, second.counts.decodes) == (3, 0)
    assert second.counts.encodes == 0, "nobody needs the embedding"
    another = inference_on(bright(), model, cache, IntensityMapping("raw", "raw", 0.0, 254.0))
    find(another, [track(4, range(3, 6))])
    assert another.counts.decodes == 3


def test_a_prompt_is_asked_as_it_grew_and_each_answer_goes_into_the_next():
    model = FakeModel()
    box = SlicePrompt((1, 1, 5, 5))
    more = SlicePrompt(box.box, (SlicePoint(8.0, 8.0),))
    inference = inference_on(bright(), model, SliceCache.within(10**6))
    first = inference.ask("k", 3, (box,))
    last = inference.ask("k", 3, (box, more))
    assert [(prompt, previous and previous is first) for prompt, previous in model.asked] == [(box, None), (more, True)]
    assert inference.counts.decodes == 2, "the first was known"
    assert inference.ask("k", 3, (box, more)) is last
    inference.ask("k", 3, (more,))
    assert model.asked[-1] == (more, None), "without the box before it, it is another question"


def test_another_axis_intensity_or_image_is_encoded_anew():
    model, cache = FakeModel(), cache_of(10**6)
    other = numbered()
    other[0, 0, 0] = 77
    for array, axis, mapping in (
        (numbered(), "k", AS_IT_IS),
        (numbered(), "j", AS_IT_IS),
        (numbered(), "k", IntensityMapping("raw", "raw", 0.0, 254.0)),
        (numbered(), "k", IntensityMapping("raw", "raw", 1.0, 255.0)),
        (other, "k", AS_IT_IS),
    ):
        inference = inference_on(array, model, cache, mapping)
        find(inference, [track(4, range(4, 5), axis=axis)], Progress())
        assert inference.counts.encodes == 1


def test_the_model_sees_left_on_the_right():
    array = np.zeros(SHAPE, np.uint8)
    array[4, 2, 1] = 200  # in a volume stored towards right, anterior and superior
    model = FakeModel()
    find(inference_on(array, model, as_stored=False), [track(4, range(4, 5))], Progress())
    assert np.argwhere(model.encoded[0]).tolist() == [[9 - 2, 11 - 1]]


def test_the_model_sees_the_slices_through_the_mapping_in_8_bits():
    array = np.linspace(-1000, 1000, num=int(np.prod(SHAPE))).reshape(SHAPE)
    mapping = IntensityMapping("400,40", "window", -160.0, 240.0)
    model = FakeModel()
    find(inference_on(array, model, mapping=mapping), [track(4, range(4, 5))], Progress())
    assert model.encoded[0].dtype == np.uint8
    assert np.array_equal(model.encoded[0], mapping.to_uint8(array[4]))


def test_colour_slices_keep_their_colours():
    array = np.zeros((*SHAPE, 3), np.uint8)
    array[4, 2:5, 3:6, 1] = 200
    model = FakeModel()
    mask = find(inference_on(array, model), [track(4, range(4, 5))], Progress())
    assert model.encoded[0].shape == (10, 12, 3)
    assert (mask.box.start_kji, mask.box.stop_kji) == ((4, 2, 3), (5, 5, 6))
