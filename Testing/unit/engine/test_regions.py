"""A model that sees a part of the image says what it would of that part alone, pasted back voxel for voxel."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError, PromptError
from FoundationSegLib.imaging.geometry import Box
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, MaskPrompt, PointPrompt, ScribblePrompt, SegmentPrompts
from FoundationSegLib.prompts.regions import crop_volume
from FoundationSegLib.requests.segmentation import PredictRequest, Propagation
from Testing.unit.engine.engine_cases import SHAPE, ct, new_engine
from Testing.unit.fakes import FakeModel, FakeVolumeModel, fake_card
from Testing.unit.strategies import geometries

SLICES = {"prompts": ["box", "point", "mask"], "negative": ["point"], "translations": {"scribble": "points"}}
VOLUMES = {"dimensions": [3], "channels": [1], "prompts": ["box", "point", "mask", "scribble"], "intensity": "raw"}
REGION = Box((1, 2, 3), (5, 8, 10))


@pytest.fixture(params=["slices", "volumes"])
def engine(request, tmp_path):
    if request.param == "slices":
        return new_engine(tmp_path, FakeModel(), fake_card(**SLICES))
    return new_engine(tmp_path, FakeVolumeModel(), fake_card(**VOLUMES))


def ask(engine, volume, *prompts, **fields):
    engine.add_volume(volume)
    segments = (SegmentPrompts("A", prompts),)
    return engine.predict(PredictRequest(1, "fake", volume.key, segments, **fields), Progress())


def test_the_answer_is_that_of_the_part_pasted_back(engine):
    volume = ct()
    part = crop_volume(volume, REGION)
    box = BoxPrompt(((3.0, 2.0, 1.0), (9.0, 7.0, 4.0)))
    click, stroke = PointPrompt((5.0, 4.0, 2.0)), ScribblePrompt(((5.0, 4.0, 2.0), (7.0, 4.0, 2.0)))
    seed = np.zeros(SHAPE, np.bool_)
    seed[2:4, 3:6, 4:7] = True
    known = MaskPrompt("a", "b", voxels=pack_mask(seed))
    there = replace(known, voxels=pack_mask(seed[REGION.slices]))
    for prompts, same in (((box,), (box,)), ((click, stroke), (click, stroke)), ((known, click), (there, click))):
        seen = ask(engine, volume, *prompts, region=REGION, intensity="raw")
        alone = ask(engine, part, *same, intensity="raw").segments[0].mask.expand(part.array_kji.shape)
        whole = seen.segments[0].mask.expand(SHAPE)
        assert alone.any() and np.array_equal(whole[REGION.slices], alone)
        assert whole.sum() == alone.sum()
        assert seen.notes[0] == "the model saw the region i 3:10, j 2:8, k 1:5 only"


@given(geometry=geometries(), shares=st.tuples(*[st.floats(0, 1)] * 9))
def test_so_it_is_on_any_grid(geometry, shares):
    """A model that finds the bright cube around a click: the same in the region, nothing outside, on every grid."""
    shape = geometry.shape_kji
    place = tuple(int(share * (n - 1)) for share, n in zip(shares[:3], shape, strict=True))
    low = tuple(int(share * p) for share, p in zip(shares[3:6], place, strict=True))
    high = tuple(p + 1 + int(share * (n - 1 - p)) for share, p, n in zip(shares[6:], place, shape, strict=True))
    array = np.zeros(shape, np.int16)
    array[tuple(slice(max(0, p - 1), p + 2) for p in place)] = 100
    array[low] = -100
    region = Box(low, high)
    assume(low != place and np.ptp(array[region.slices]) > 0)
    volume = Volume(array, geometry)
    with TemporaryDirectory() as folder:
        engine = new_engine(Path(folder), FakeVolumeModel(), fake_card(**VOLUMES))
        click = PointPrompt(tuple(geometry.to_ras(place[::-1])))
        whole = ask(engine, volume, click).segments[0].mask.expand(shape)
        seen = ask(engine, volume, click, region=region).segments[0].mask.expand(shape)
    inside = np.zeros(shape, np.bool_)
    inside[region.slices] = True
    assert np.array_equal(seen & (array > 0), whole & (array > 0) & inside)
    assert not (seen & ~inside).any()


def test_intensities_are_those_of_the_whole_image(engine):
    volume = ct()
    whole = ask(engine, volume, PointPrompt((5.0, 4.0, 2.0)), intensity="percentile")
    seen = ask(engine, volume, PointPrompt((5.0, 4.0, 2.0)), intensity="percentile", region=REGION)
    assert seen.intensity == whole.intensity


@pytest.mark.parametrize(
    ("region", "error", "message"),
    [
        (Box((6, 0, 0), (9, 10, 12)), InputError, "region of interest lies outside the image"),
        (Box((0, 0, 0), (1, 10, 12)), PromptError, "wholly outside the region of interest"),
        (Box((2, 3, 4), (3, 6, 7)), InputError, "the region of interest is constant: every voxel is 200"),
    ],
)
def test_a_region_with_nothing_to_see_is_refused(engine, region, error, message):
    with pytest.raises(error, match=message):
        ask(engine, ct(), PointPrompt((5.0, 4.0, 2.0)), region=region)


def test_the_same_part_is_viewed_once_and_let_go_with_its_image(engine):
    volume = ct()
    counts = [ask(engine, volume, PointPrompt((5.0, 4.0, 2.0)), region=REGION).counts["encodes"] for _ in range(2)]
    assert counts == [1, 0]
    assert len(engine.slice_cache.embeddings) or engine.views.nbytes
    engine.remove_volume(volume.key)
    assert (len(engine.slice_cache.embeddings), len(engine.slice_cache.answers), engine.views.nbytes) == (0, 0, 0)


@pytest.mark.parametrize(
    ("propagation", "slices"),
    [
        (Propagation(), {1, 2, 3}),
        (Propagation(start=2), {2, 3}),
        (Propagation(stop=3), {1, 2}),
        (Propagation(start=0, stop=99), {1, 2, 3}),
        (Propagation(direction="up"), {2, 3}),
    ],
)
def test_slices_are_counted_in_the_whole_image(model, tmp_path, propagation, slices):
    engine = new_engine(tmp_path, model, fake_card(**SLICES))
    region = Box((1, 0, 0), (4, 10, 12))
    answer = ask(engine, ct(), PointPrompt((5.0, 4.0, 2.0)), region=region, propagation=propagation)
    assert set(np.nonzero(answer.segments[0].mask.expand(SHAPE))[0]) == slices


def test_ranges_that_meet_no_region_or_several_axes_are_refused(model, tmp_path):
    engine = new_engine(tmp_path, model, fake_card(**SLICES))
    region, click = Box((1, 0, 0), (4, 10, 12)), PointPrompt((5.0, 4.0, 2.0))
    with pytest.raises(InputError, match="no slice of the region of interest"):
        ask(engine, ct(), click, region=region, propagation=Propagation(start=4))
    with pytest.raises(InputError, match="prompts of one axis only"):
        ask(engine, ct(), click, replace(click, plane="i"), region=region, propagation=Propagation(start=1))
