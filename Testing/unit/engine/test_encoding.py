import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.engine.encoding import Pictures
from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import AXES, Box, Geometry, array_axis
from FoundationSegLib.imaging.intensity import resolve_intensity_views
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.requests.classification import Subject
from Testing.unit.fakes import volume_of


def numbered(shape=(4, 6, 8), **fields):
    return volume_of(np.arange(np.prod(shape)).reshape(shape).astype(np.uint8), **fields)


def look_of(volume):
    (look,) = resolve_intensity_views("raw", volume)
    return look


def test_all_slices_or_a_range_of_them():
    volume = numbered()
    assert Pictures.of(volume, Subject()).slices == (0, 1, 2, 3)
    assert Pictures.of(volume, Subject("i", 2, 5)).slices == (2, 3, 4)
    assert Pictures.of(volume, Subject("j", 4)).slices == (4, 5)
    for subject in (Subject(stop=5), Subject(start=4), Subject("i", 0, 9)):
        with pytest.raises(InputError, match="slices across"):
            Pictures.of(volume, subject)


def test_a_region_has_its_slices_and_is_black_outside():
    volume = numbered()
    pictures = Pictures.of(volume, Subject("k", box=Box((1, 1, 2), (3, 5, 4))))
    assert pictures.slices == (1, 2)
    picture = pictures.picture(1, look_of(volume))
    shown = pictures.image_area()
    assert picture.shape == shown.shape == (4, 4) and shown.sum() == 8
    assert set(picture[shown]) == set(volume.array_kji[1, 1:5, 2:4].ravel())
    assert not picture[~shown].any()
    assert Pictures.of(volume, Subject("k", 2, box=Box((1, 1, 2), (3, 5, 4)))).slices == (2,)
    with pytest.raises(InputError, match="do not meet"):
        Pictures.of(volume, Subject("k", 3, box=Box((1, 1, 2), (3, 5, 4))))
    with pytest.raises(InputError, match="reaches out"):
        Pictures.of(volume, Subject("k", box=Box((1, 1, 2), (3, 5, 9))))


def test_a_segment_is_seen_with_what_is_around_it_or_alone():
    volume = numbered((4, 20, 20))
    mask = np.zeros((4, 20, 20), bool)
    mask[1, 5:9, 6:10] = mask[3, 5:8, 6:9] = True
    segment = pack_mask(mask)
    cropped = Pictures.of(volume, Subject(segment=segment, margin=0.25))
    assert cropped.slices == (1, 3)  # on slice 2 there is nothing of it
    assert cropped.picture(1, look_of(volume)).shape == (6, 6)
    assert cropped.image_area().all()
    masked = Pictures.of(volume, Subject(segment=segment, view="mask", margin=0.25))
    seen = masked.picture(3, look_of(volume))
    assert set(seen[seen > 0]) <= set(volume.array_kji[3][mask[3]])
    assert np.count_nonzero(seen) == np.count_nonzero(volume.array_kji[3][mask[3]])
    assert masked.key != cropped.key


def test_pictures_of_a_segment_elsewhere_are_others():
    volume, views = numbered((4, 20, 20)), set()
    for start in range(3):
        mask = np.zeros((4, 20, 20), bool)
        mask[0, 5:9, 6:10] = True
        mask[0, 5, 6 + start] = False
        views.add(Pictures.of(volume, Subject(segment=pack_mask(mask), view="mask")).key)
    assert len(views) == 3


@given(st.sampled_from(AXES), st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
def test_the_same_anatomy_gives_the_same_picture_however_it_is_stored(axis, order, signs):
    """Permuted and flipped in memory, it is turned back to how a radiologist sees it."""
    rng = np.random.default_rng(5)
    world = rng.integers(0, 255, (5, 7, 9)).astype(np.uint8)
    plain = volume_of(world)
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    stored = world
    for n in range(3):  # n: an axis of the stored array, k first
        source = order[n]
        matrix[2 - source, 2 - n] = signs[n]
        if signs[n] < 0:
            stored = np.flip(stored, source)
            matrix[2 - source, 3] = world.shape[source] - 1
    stored = np.transpose(stored, order)
    volume = Volume(np.ascontiguousarray(stored), Geometry(matrix, stored.shape))
    place = order.index(array_axis(axis))
    name = AXES[2 - place]
    one, other = Pictures.of(plain, Subject(axis)), Pictures.of(volume, Subject(name))
    index = 2
    same = index if signs[place] > 0 else world.shape[array_axis(axis)] - 1 - index
    a, b = one.picture(index, look_of(plain)), other.picture(same, look_of(volume))
    # the padding of an odd difference goes to the end of the stored axis, one pixel further here or there
    assert np.array_equal(a[one.image_area()], b[other.image_area()])


def test_colour_is_kept():
    rng = np.random.default_rng(0)
    volume = volume_of(rng.integers(0, 255, (2, 6, 4, 3)).astype(np.uint8))
    (look,) = resolve_intensity_views("auto", volume)
    pictures = Pictures.of(volume, Subject())
    picture = pictures.picture(1, look)
    assert picture.shape == (6, 6, 3)
    assert np.array_equal(picture[pictures.image_area()].reshape(6, 4, 3)[::-1, ::-1], volume.array_kji[1])
    assert not pictures.is_blank(picture)
