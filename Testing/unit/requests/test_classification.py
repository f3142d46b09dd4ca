import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import AXES, EMPTY_BOX, Box, array_axis, geometry_from_spacing
from FoundationSegLib.imaging.masks import EMPTY_MASK, pack_mask
from FoundationSegLib.requests import classification
from FoundationSegLib.requests.classification_answer import NONE_OF_THESE, RESEARCH_USE, EvidenceMap
from Testing.unit.requests.classification_cases import answer
from Testing.unit.strategies import geometries

BOX = Box((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"start": 3, "stop": 3}, "the range 3:3 holds no slice"),
        ({"start": -1}, "no slice"),
        ({"stop": 0}, "the range 0:0 holds no slice"),
        ({"box": EMPTY_BOX}, "region to classify is empty"),
        ({"segment": EMPTY_MASK}, "segment to classify is empty"),
        ({"box": BOX, "segment": pack_mask(np.ones((1, 1, 1)))}, "not both"),
        ({"margin": -0.1}, "margin"),
        ({"margin": float("inf")}, "margin"),
    ],
)
def test_subjects_that_are_nothing_are_refused(fields, why):
    with pytest.raises(InputError, match=why):
        classification.Subject(**fields)


@pytest.mark.parametrize("fields", [{"slices": -1}, {"parts": 1}, {"parts": 65}])
def test_evidence_in_impossible_numbers_is_refused(fields):
    with pytest.raises(InputError, match="evidence needs"):
        classification.EvidenceWish(**fields)


def test_the_slices_of_a_subject_are_those_that_it_is_on():
    geometry = geometry_from_spacing((4, 6, 8), (1.0, 1.0, 1.0))
    assert classification.slices_of(classification.Subject("j", 4), geometry) == (4, 5)
    assert classification.slices_of(classification.Subject("k", box=Box((1, 1, 2), (3, 5, 4))), geometry) == (1, 2)
    mask = np.zeros((4, 6, 8), bool)
    mask[1, 2, 3] = mask[3, 2, 3] = True
    assert classification.slices_of(classification.Subject(segment=pack_mask(mask)), geometry) == (1, 3)
    for subject in (
        classification.Subject(stop=5),
        classification.Subject("k", box=Box((1, 1, 2), (3, 5, 9))),
        classification.Subject("k", 2, 3, Box((0, 0, 0), (1, 1, 1))),
    ):
        with pytest.raises(InputError):
            classification.slices_of(subject, geometry)


LINES = st.tuples(st.integers(-9, 20), st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))
FRAMES = st.builds(classification.Frame, LINES, LINES)


@given(FRAMES, FRAMES, st.booleans())
def test_a_cut_shows_what_is_inside_and_black_elsewhere(frame, inside, is_colour):
    shape = (12, 15, 3) if is_colour else (12, 15)
    plane = np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)
    cut = frame.cut(plane, inside)
    assert cut.shape == (*frame.shape, *shape[2:])
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            r, c = frame.rows[0] + row, frame.columns[0] + column
            is_seen = (
                0 <= r < 12
                and 0 <= c < 15
                and inside.rows[0] <= r < inside.rows[1]
                and inside.columns[0] <= c < inside.columns[1]
            )
            assert np.array_equal(cut[row, column], plane[r, c] if is_seen else np.zeros(shape[2:]))


def test_a_box_covers_rows_and_columns_in_array_order():
    box = Box((1, 2, 3), (4, 6, 8))
    assert classification.frame_of(box, "k") == classification.Frame((2, 6), (3, 8))
    assert classification.frame_of(box, "j") == classification.Frame((1, 4), (3, 8))
    assert classification.frame_of(box, "i") == classification.Frame((1, 4), (2, 6))


@given(geometries(), st.sampled_from(AXES))
def test_a_square_is_one_in_millimetres_and_holds_the_frame(geometry, axis):
    frame = classification.frame_of(geometry.box, axis)
    found = classification.square(frame, geometry, axis)
    assert found.rows[0] <= 0 and found.rows[1] >= frame.rows[1]
    assert found.columns[0] <= 0 and found.columns[1] >= frame.columns[1]
    spacing = [mm for name, mm in zip("kji", geometry.spacing_mm[::-1], strict=True) if name != axis]
    sides = [count * mm for count, mm in zip(found.shape, spacing, strict=True)]
    if max(found.shape) < 8192:
        assert abs(sides[0] - sides[1]) <= max(spacing) / 2 + 1e-6
    margins = [
        (-line[0], line[1] - there[1]) for line, there in ((found.rows, frame.rows), (found.columns, frame.columns))
    ]
    assert all(0 <= after - before <= 1 for before, after in margins)
    assert classification.slices_of(classification.Subject(axis), geometry) == tuple(
        range(geometry.shape_kji["kji".index(axis)])
    )


def test_a_grid_of_needles_needs_no_memory():
    geometry = geometry_from_spacing((3, 500, 2), (1e-3, 100.0, 1.0))
    assert max(classification.square(classification.frame_of(geometry.box, "k"), geometry, "k").shape) <= 8192


def test_a_margin_is_a_part_of_the_longer_side():
    assert classification.widened(classification.Frame((10, 20), (0, 40)), 0.1) == classification.Frame(
        (6, 24), (-4, 44)
    )
    assert classification.widened(classification.Frame((0, 2), (0, 2)), 0.1) == classification.Frame((-1, 3), (-1, 3))
    assert classification.widened(classification.Frame((0, 2), (0, 2)), 0) == classification.Frame((0, 2), (0, 2))


def test_labels_are_ranked_and_equal_ones_keep_their_order():
    assert [one.name for one in answer().ranked] == ["Spleen", "Liver", "Kidney"]
    even = tuple(replace(one, score=0.5) for one in answer().scores)
    assert [one.name for one in answer(scores=even).ranked] == ["Liver", "Spleen", "Kidney"]


def test_the_verdict_is_what_stands_out_or_none_of_these():
    assert answer().verdict == ("Spleen",)
    none = tuple(replace(one, stands_out=False) for one in answer().scores)
    assert answer(scores=none).verdict == ()
    assert answer(scores=none).to_document()["verdict"] == NONE_OF_THESE


def test_the_report_is_json_and_says_what_it_is_for():
    document = json.loads(json.dumps(answer().to_document(), allow_nan=False))
    assert document["research_use"] == RESEARCH_USE
    assert "not a diagnosis" in RESEARCH_USE and "not calibrated probabilities" in RESEARCH_USE
    assert [one["name"] for one in document["labels"]] == ["Spleen", "Liver", "Kidney"]
    assert document["curves"]["Spleen"] == [pytest.approx(0.7), None, 0.5]
    assert document["aggregation"] == "top-2"
    assert document["model"]["revision"] == "abc123"
    assert document["scoring"] == {"rule": "softmax", "temperature": 1.0, "margin": 0.1}


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="do not fit"):
        answer(slices=(1, 2))
    with pytest.raises(InputError, match="not a number"):
        answer(scores=(replace(answer().scores[0], score=float("nan")), *answer().scores[1:]))


def test_what_was_scored_against_each_other():
    assert answer().is_exclusive and answer(rule="concepts").is_exclusive
    assert not answer(rule="pairs").is_exclusive
    assert np.isnan(answer().curves[1]).all()


def made(values, frame, axis="k", slices=None):
    values = np.asarray(values, np.float32)
    return EvidenceMap("Nodule", "similarity", axis, tuple(slices or range(len(values))), frame, values)


@given(geometries(), st.sampled_from(AXES), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_painting_is_interpolation_between_the_middles_of_cells(geometry, axis, rows, columns, seed):
    rng = np.random.default_rng(seed)
    frame = classification.square(classification.frame_of(geometry.box, axis), geometry, axis)
    if max(frame.shape) > 500:
        return
    count = geometry.shape_kji["kji".index(axis)]
    index = int(rng.integers(count))
    evidence = made(rng.normal(size=(1, rows, columns)), frame, axis, [index])
    box, painted = evidence.paint(geometry)
    place = array_axis(axis)
    assert box.shape_kji == tuple(1 if n == place else size for n, size in enumerate(geometry.shape_kji))
    assert box.start_kji[place] == index
    plane = painted.take(0, axis=place)
    assert evidence.values.min() - 1e-5 <= plane.min() and plane.max() <= evidence.values.max() + 1e-5
    grid = evidence.values[0].astype(np.float64)
    for r, c in zip(rng.integers(plane.shape[0], size=5), rng.integers(plane.shape[1], size=5), strict=True):
        y = (r + 0.5 - frame.rows[0]) / (frame.shape[0] / rows) - 0.5
        x = (c + 0.5 - frame.columns[0]) / (frame.shape[1] / columns) - 0.5
        along = [np.interp(x, range(columns), row) for row in grid]
        assert plane[r, c] == pytest.approx(np.interp(y, range(rows), along), abs=1e-4)


def test_slices_between_hold_nothing():
    geometry = geometry_from_spacing((6, 4, 4))
    evidence = made([[[2.0]], [[3.0]]], classification.Frame((0, 4), (0, 4)), slices=[1, 4])
    box, painted = evidence.paint(geometry)
    assert (box.start_kji, box.stop_kji) == ((1, 0, 0), (5, 4, 4))
    assert [float(plane.max()) for plane in painted] == [2, 2, 2, 3]


def test_a_frame_that_reaches_out_is_cut():
    geometry = geometry_from_spacing((2, 4, 6))
    evidence = made(np.arange(4.0).reshape(1, 2, 2), classification.Frame((-2, 6), (-1, 7)), slices=[1])
    box, painted = evidence.paint(geometry)
    assert (box.start_kji, box.stop_kji) == ((1, 0, 0), (2, 4, 6))
    assert painted[0, 0, 0] < painted[0, -1, -1]


def test_the_threshold_is_between_the_middle_and_the_highest():
    geometry = geometry_from_spacing((1, 8, 8))
    values = np.zeros((1, 4, 4))
    values[0, 2, 1] = 1
    evidence = made(values, classification.Frame((0, 8), (0, 8)))
    assert evidence.threshold(0.5) == 0.5 and evidence.threshold(0) == 0 and evidence.threshold(1) == 1
    _, mask = evidence.mask(geometry)
    rows, columns = np.nonzero(mask[0])
    assert (set(rows), set(columns)) == ({4, 5}, {2, 3})
    with pytest.raises(InputError):
        evidence.threshold(1.5)


def test_flat_evidence_is_no_segment():
    _, mask = made(np.ones((1, 3, 3)), classification.Frame((0, 5), (0, 5))).mask(geometry_from_spacing((1, 5, 5)))
    assert not mask.any()


@pytest.mark.parametrize("values", [np.zeros((2, 3, 3)), np.zeros((1, 0, 3)), np.zeros((1, 3)), [[[np.nan]]]])
def test_values_that_are_none_are_refused(values):
    with pytest.raises(InputError):
        made(values, classification.Frame((0, 5), (0, 5)), slices=[0])
