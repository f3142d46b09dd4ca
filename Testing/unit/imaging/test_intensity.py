import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging import intensity
from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from Testing.unit.strategies import finite

SHAPE = (4, 30, 40)


def volume_of(array, **fields):
    return Volume(array, geometry_from_spacing(array.shape[:3]), **fields)


def ct_array(padding=None, dtype=np.int16):
    """Air around soft tissue with some bone; optionally a scanner's padding in the corners."""
    array = np.full(SHAPE, -1000, dtype)
    array[:, 5:25, 5:35] = np.random.default_rng(1).normal(40, 60, (4, 20, 30))
    array[:, 10:12, 10:12] = 900
    if padding is not None:
        array[:, :3, :3] = padding
    return array


def mr_array(dtype=np.uint16):
    return np.random.default_rng(2).gamma(2.0, 150.0, SHAPE).astype(dtype)


def limits(mapping):
    return mapping.low, mapping.high


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("ct-soft-tissue", (-160.0, 240.0)),
        ("ct-lung", (-1350.0, 150.0)),
        ("ct-bone", (-500.0, 1300.0)),
        ("350,50", (-125.0, 225.0)),
        (" 1.5 , -0.5 ", (-1.25, 0.25)),
        ("1e3,0", (-500.0, 500.0)),
    ],
)
def test_windows_are_width_and_centre(policy, expected):
    mapping = intensity.resolve_intensity(policy, volume_of(mr_array()))
    assert limits(mapping) == expected
    assert mapping.policy == policy
    assert mapping.rule == (policy if policy in intensity.NAMED_POLICIES else "window")


@pytest.mark.parametrize(
    "policy",
    [
        *("", "CT-SOFT-TISSUE", "soft", "400", "400,40,1", "400;40", "a,b", ",", "0,40", "-400,40"),
        *("nan,0", "400,nan", "inf,0", "400,inf", "1e999,0"),
    ],
)
def test_unknown_policies_are_refused_before_any_voxel_is_looked_at(policy):
    with pytest.raises(InputError, match=r"policy|window") as caught:
        intensity.check_policy(policy)
    assert repr(policy) in str(caught.value)
    with pytest.raises(InputError):
        intensity.resolve_intensity(policy, volume_of(mr_array()))


@pytest.mark.parametrize("policy", ["1e-300,40", "1.7e308,1.7e308"])
def test_a_window_that_leaves_nothing_to_see_is_refused(policy):
    with pytest.raises(InputError, match="nothing to see"):
        intensity.resolve_intensity(policy, volume_of(mr_array()))


@pytest.mark.parametrize(
    ("array", "modality", "rule"),
    [
        (ct_array(), None, "ct-soft-tissue"),
        (ct_array(), "", "ct-soft-tissue"),
        (ct_array(padding=-3024), None, "ct-soft-tissue"),
        (ct_array(padding=-2000, dtype=np.int32), None, "ct-soft-tissue"),
        (ct_array(dtype=np.float32), None, "ct-soft-tissue"),
        (ct_array(padding=32767), None, "ct-soft-tissue"),
        (np.maximum(ct_array(), -500), None, "ct-soft-tissue"),
        (np.maximum(ct_array(), -499), None, "percentile"),
        (np.minimum(ct_array(), 50), None, "percentile"),
        (ct_array().astype(np.int32) * 40, None, "percentile"),
        (ct_array() + np.int16(1024), None, "percentile"),
        (mr_array(), None, "percentile"),
        (mr_array(np.float32) - 400, None, "percentile"),
        (ct_array(), "CT", "ct-soft-tissue"),
        (mr_array(), "CT", "ct-soft-tissue"),
        (ct_array(), "MR", "percentile"),
        (ct_array(), "PT", "percentile"),
        (mr_array(), "MR", "percentile"),
    ],
)
def test_auto_goes_by_the_modality_or_else_by_the_values(array, modality, rule):
    mapping = intensity.resolve_intensity("auto", volume_of(array, modality=modality))
    assert (mapping.policy, mapping.rule) == ("auto", rule)
    assert limits(mapping) == limits(intensity.resolve_intensity(rule, volume_of(array)))


def test_auto_finds_a_ct_of_more_than_a_million_voxels_by_a_part_of_them():
    array = np.full((40, 200, 300), -1000, np.int16)
    array[:, 50:150, 50:250] = 40
    array[20, 100, 100] = 1200
    assert intensity.resolve_intensity("auto", volume_of(array)).rule == "ct-soft-tissue"
    assert intensity.resolve_intensity("auto", volume_of(array.astype(np.int32) * 5)).rule == "percentile"


@pytest.mark.parametrize("policy", ["auto", "raw"])
@pytest.mark.parametrize(
    ("dtype", "peak", "high"),
    [(np.uint8, 200, 255.0), (np.uint16, 4000, 65535.0), (np.float32, 0.9, 1.0), (np.float32, 250.0, 255.0)],
)
def test_colour_stays_colour(policy, dtype, peak, high):
    array = np.zeros((1, 5, 6, 3), dtype)
    array[0, 2, 2] = (peak, 0, 0)
    mapping = intensity.resolve_intensity(policy, volume_of(array, modality="CT"))
    assert (mapping.rule, *limits(mapping)) == ("colour", 0.0, high)


def test_8_bit_colour_and_raw_8_bit_grey_come_through_untouched():
    ramp = np.arange(256, dtype=np.uint8)[10:250]
    for array in (ramp.reshape(1, 4, 60), ramp.reshape(1, 4, 20, 3)):
        volume = volume_of(array)
        assert np.array_equal(intensity.resolve_intensity("raw", volume).to_uint8(array), array)
    assert np.array_equal(intensity.resolve_intensity("auto", volume).to_uint8(array), array)


def test_colour_can_be_windowed_when_asked():
    array = np.arange(60, dtype=np.uint8).reshape(1, 4, 5, 3)
    assert limits(intensity.resolve_intensity("10,20", volume_of(array))) == (15.0, 25.0)
    assert intensity.resolve_intensity("percentile", volume_of(array)).rule == "percentile"


@given(
    st.sampled_from(["u1", "i1", "<i2", ">i2", "u2", "i4", "u8", "f4", "f8"]).flatmap(
        lambda dtype: arrays(
            dtype, (2, 5, 6), elements=st.integers(-99 if "u" not in dtype else 0, 99), fill=st.nothing()
        )
    )
)
def test_percentiles_are_of_the_positive_voxels_or_of_all(array):
    values = np.sort([float(v) for v in array.flat if v > 0] or [float(v) for v in array.flat])
    if array.min() == array.max():
        return
    expected = tuple(np.interp(part * (len(values) - 1), range(len(values)), values) for part in (0.005, 0.995))
    if not expected[0] < expected[1]:
        expected = (float(array.min()), float(array.max()))
    mapping = intensity.resolve_intensity("percentile", volume_of(array))
    assert limits(mapping) == pytest.approx(expected, rel=1e-6)
    assert mapping.low < mapping.high


def test_percentiles_of_half_precision_are_those_of_double():
    array = np.random.default_rng(3).gamma(2.0, 4000.0, (3, 200, 200)).clip(0, 60000).astype(np.float16)
    mapping = intensity.resolve_intensity("percentile", volume_of(array))
    assert limits(mapping) == pytest.approx(np.percentile(array.astype(np.float64), (0.5, 99.5)), rel=1e-3)


def test_a_binary_image_is_seen_whole():
    array = np.zeros((1, 10, 10), np.uint8)
    array[0, 3:5, 3:5] = 1
    assert limits(intensity.resolve_intensity("percentile", volume_of(array))) == (0.0, 1.0)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", np.uint16, np.float16, np.float64])
def test_raw_is_the_whole_range(dtype):
    array = np.linspace(3, 700, 120).reshape(4, 5, 6).astype(dtype)
    assert limits(intensity.resolve_intensity("raw", volume_of(array))) == (3.0, 700.0)


def test_display_is_the_window_the_image_brings():
    mapping = intensity.resolve_intensity("display", volume_of(mr_array(), window_level=(500.0, 250.0)))
    assert (mapping.rule, *limits(mapping)) == ("display", 0.0, 500.0)


@pytest.mark.parametrize(
    "window", [None, (0.0, 40.0), (-1.0, 40.0), (math.nan, 0.0), (math.inf, 0.0), (10.0, math.nan)]
)
def test_a_display_window_that_is_none_is_refused(window):
    with pytest.raises(InputError):
        intensity.resolve_intensity("display", volume_of(mr_array(), window_level=window))


def test_the_report_says_what_was_used():
    document = intensity.resolve_intensity("auto", volume_of(ct_array())).document
    assert document == {
        "policy": "auto",
        "rule": "ct-soft-tissue",
        "low": -160.0,
        "high": 240.0,
        "window": 400.0,
        "level": 40.0,
    }


@given(finite(-5000, 5000), st.integers(1, 5000) | finite(0.01, 5000.0))
def test_the_limits_become_0_and_255_exactly(low, width):
    mapping = intensity.IntensityMapping("test", "window", low, low + width)
    values = np.array([low - 1e6, low, (2 * low + width) / 2, low + width, low + width + 1e6])
    seen = mapping.to_uint8(values)
    assert seen[[0, 1, 3, 4]].tolist() == [0, 0, 255, 255]
    assert seen[2] in (127, 128)


@given(arrays(np.int16, (3, 4, 5)), st.integers(1, 3000), st.integers(-1000, 1000))
def test_8_bits_are_the_published_formula_rounded_down(array, width, centre):
    mapping = intensity.resolve_intensity(f"{width},{centre}", volume_of(array))
    clipped = np.clip(array.astype(float), mapping.low, mapping.high)
    expected = np.floor((clipped - mapping.low) / (mapping.high - mapping.low) * 255.0)
    for twin in (
        array,
        array.astype(">i2"),
        array.astype(np.float64),
        np.asfortranarray(array),
        array[:, ::-1][:, ::-1],
    ):
        seen = mapping.to_uint8(twin)
        assert seen.dtype == np.uint8
        assert np.array_equal(seen, expected)
    colour = np.stack([array] * 3, axis=-1)
    assert np.array_equal(mapping.to_uint8(colour), np.stack([expected] * 3, axis=-1))
    assert np.array_equal(mapping.to_uint8(array[1]), expected[1])
    assert np.array_equal(mapping.to_uint8(array[1, 2]), expected[1, 2])


@pytest.mark.parametrize(
    ("low", "high"), [(40.0, 40.0), (41.0, 40.0), (math.nan, 1.0), (0.0, math.inf), (-1.7e308, 1.7e308)]
)
def test_a_mapping_needs_a_range(low, high):
    with pytest.raises(InputError, match="nothing to see"):
        intensity.IntensityMapping("test", "window", low, high)


CHANNELS = ((-1024, 1024), (-135, 215), (0, 80))


def ct(**fields):
    voxels = np.linspace(-1000, 1500, 4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
    return volume_of(voxels, modality="CT", **fields)


def mr():
    return volume_of(np.arange(120, dtype=np.int16).reshape(4, 5, 6), modality="MR")


def colour():
    return volume_of(np.arange(360, dtype=np.int64).reshape(4, 5, 6, 3).astype(np.uint8))


def test_ct_is_seen_through_three_windows():
    looks = intensity.resolve_intensity_views("auto", ct())
    assert [look.name for look in looks] == list(intensity.CT_WINDOWS)
    for look in looks:
        (mapping,) = look.mappings
        width, centre = intensity.CT_WINDOWS[look.name]
        assert (mapping.low, mapping.high) == (centre - width / 2, centre + width / 2)
        assert look.see(ct().array_kji[0]).shape == (5, 6)
    assert (
        intensity.resolve_intensity_views("ct-windows", ct()) != ()
        and len(intensity.resolve_intensity_views("ct-windows", mr())) == 3
    )


def test_windows_are_channels_where_the_model_was_trained_so():
    (look,) = intensity.resolve_intensity_views("auto", ct(), CHANNELS)
    seen = look.see(ct().array_kji[1])
    assert seen.shape == (5, 6, 3)
    for n, (low, high) in enumerate(CHANNELS):
        expected = (np.clip(ct().array_kji[1], low, high) - low) / (high - low) * 255
        assert np.array_equal(seen[..., n], expected.astype(np.uint8))
    document = look.to_document()
    assert document["name"] == "ct-channels"
    assert [(one["low"], one["high"]) for one in document["channels"]] == list(CHANNELS)


def test_everything_else_is_seen_as_the_policy_has_it():
    (look,) = intensity.resolve_intensity_views("auto", mr(), CHANNELS)
    assert look.name == "percentile"
    (look,) = intensity.resolve_intensity_views("ct-bone", ct(), CHANNELS)
    assert look.name == "ct-bone"
    (look,) = intensity.resolve_intensity_views("100,50", mr())
    assert (look.name, look.mappings[0].low, look.mappings[0].high) == ("window", 0, 100)


@given(st.sampled_from(["auto", "raw"]))
def test_colour_stays_colour_of_intensity_views(policy):
    (look,) = intensity.resolve_intensity_views(policy, colour(), CHANNELS)
    assert look.name == "colour"
    assert np.array_equal(look.see(colour().array_kji[2]), colour().array_kji[2])


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="not for colour"):
        intensity.resolve_intensity_views("ct-windows", colour())
    with pytest.raises(InputError, match="three windows as colours"):
        intensity.resolve_intensity_views("ct-channels", ct())
    for policy in ("sharp", "", "1,2,3"):
        with pytest.raises(InputError):
            intensity.check_intensity_views(policy)
    for policy in ("auto", "ct-windows", "ct-channels", "ct-lung", "400,40"):
        intensity.check_intensity_views(policy)
