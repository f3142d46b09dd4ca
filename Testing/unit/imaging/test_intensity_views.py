import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.intensity import CT_WINDOWS, check_intensity_views, resolve_intensity_views
from Testing.unit.fakes import volume_of

CHANNELS = ((-1024, 1024), (-135, 215), (0, 80))


def ct(**fields):
    voxels = np.linspace(-1000, 1500, 4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
    return volume_of(voxels, modality="CT", **fields)


def mr():
    return volume_of(np.arange(120, dtype=np.int16).reshape(4, 5, 6), modality="MR")


def colour():
    return volume_of(np.arange(360, dtype=np.int64).reshape(4, 5, 6, 3).astype(np.uint8))


def test_ct_is_seen_through_three_windows():
    looks = resolve_intensity_views("auto", ct())
    assert [look.name for look in looks] == list(CT_WINDOWS)
    for look in looks:
        (mapping,) = look.mappings
        width, centre = CT_WINDOWS[look.name]
        assert (mapping.low, mapping.high) == (centre - width / 2, centre + width / 2)
        assert look.see(ct().array_kji[0]).shape == (5, 6)
    assert resolve_intensity_views("ct-windows", ct()) != () and len(resolve_intensity_views("ct-windows", mr())) == 3


def test_windows_are_channels_where_the_model_was_trained_so():
    (look,) = resolve_intensity_views("auto", ct(), CHANNELS)
    seen = look.see(ct().array_kji[1])
    assert seen.shape == (5, 6, 3)
    for n, (low, high) in enumerate(CHANNELS):
        expected = (np.clip(ct().array_kji[1], low, high) - low) / (high - low) * 255
        assert np.array_equal(seen[..., n], expected.astype(np.uint8))
    document = look.to_document()
    assert document["name"] == "ct-channels"
    assert [(one["low"], one["high"]) for one in document["channels"]] == list(CHANNELS)


def test_everything_else_is_seen_as_the_policy_has_it():
    (look,) = resolve_intensity_views("auto", mr(), CHANNELS)
    assert look.name == "percentile"
    (look,) = resolve_intensity_views("ct-bone", ct(), CHANNELS)
    assert look.name == "ct-bone"
    (look,) = resolve_intensity_views("100,50", mr())
    assert (look.name, look.mappings[0].low, look.mappings[0].high) == ("window", 0, 100)


@given(st.sampled_from(["auto", "raw"]))
def test_colour_stays_colour(policy):
    (look,) = resolve_intensity_views(policy, colour(), CHANNELS)
    assert look.name == "colour"
    assert np.array_equal(look.see(colour().array_kji[2]), colour().array_kji[2])


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="not for colour"):
        resolve_intensity_views("ct-windows", colour())
    with pytest.raises(InputError, match="three windows as colours"):
        resolve_intensity_views("ct-channels", ct())
    for policy in ("sharp", "", "1,2,3"):
        with pytest.raises(InputError):
            check_intensity_views(policy)
    for policy in ("auto", "ct-windows", "ct-channels", "ct-lung", "400,40"):
        check_intensity_views(policy)
