"""What a picture shows where: cuts, see-through segments, the place of the surfaces, and what is written."""

import numpy as np
import pytest

pytest.importorskip("slicer")

from FoundationSegLib.mrml.rendering.legend import direction_letters, format_volume
from FoundationSegLib.mrml.rendering.panels import fit_beside, round_length, view_axes
from FoundationSegLib.mrml.rendering.subjects import Subject, choose_offset, see_through

GREY = (0.5, 0.5, 0.5)


def subject(name, points, volume_mm3=None):
    points = np.asarray(points, dtype=float)
    return Subject(name, name, GREY, float(volume_mm3 or len(points)), points)


def block(low, high):
    return np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True))), axis=-1).reshape(-1, 3)


def test_the_cut_shows_most_segments():
    lung, nodule = subject("lung", block((0, 0, 0), (20, 20, 40))), subject("nodule", block((5, 5, 30), (8, 8, 33)))
    up = np.array([0.0, 0.0, 1.0])
    assert choose_offset([lung, nodule], up, np.eye(4)) in (30, 31, 32)
    assert choose_offset([], up, np.eye(4)) is None
    # In steps of the volume's slices, through their centres.
    thick = np.diag([1, 1, 5, 1.0])
    thick[2, 3] = 2.0
    assert choose_offset([subject("a", [(0, 0, 7), (1, 0, 12), (0, 0, 12)])], up, thick) == 12


def test_what_hides_others_is_see_through():
    lungs = [subject("right", block((0, 0, 0), (20, 20, 20))), subject("left", block((25, 0, 0), (45, 20, 20)))]
    nodule, heart = subject("nodule", block((8, 8, 8), (12, 12, 12))), subject("heart", block((21, 15, 0), (24, 24, 9)))
    assert see_through([*lungs, nodule, heart], view_axes()) == {"right", "left"}
    assert see_through([*lungs, heart], view_axes()) == frozenset()
    assert see_through([], view_axes()) == frozenset()


def test_the_viewer_is_in_front_with_the_patients_left_on_the_right():
    right, up, towards = view_axes()
    assert (direction_letters(right), direction_letters(up), direction_letters(towards)) == ("L", "S", "A")
    assert np.allclose(view_axes() @ view_axes().T, np.eye(3))


@pytest.mark.parametrize("corner", [(0.0, 0.0), (0.8, 0.3), (1.2, 1.9), (0.2, 1.1)])
def test_the_surfaces_keep_clear_of_the_legend(corner):
    angles = np.linspace(0, 2 * np.pi, 200)
    drawn = np.stack([0.3 + 0.2 * np.cos(angles), -0.5 + 0.4 * np.sin(angles)], axis=1)
    centre, zoom = fit_beside(drawn, corner)
    moved = drawn * zoom - centre
    assert np.abs(moved).max() <= 1
    assert not ((moved[:, 0] < corner[0] - 1) & (moved[:, 1] > 1 - corner[1])).any()
    assert np.ptp(moved[:, 1]) > 0.9


@pytest.mark.parametrize(
    ("direction", "letters"), [((1, 0, 0), "R"), ((-0.9, 0.1, 0), "L"), ((-1, -2, 0), "PL"), ((0.1, 0, -3), "I")]
)
def test_direction_letters(direction, letters):
    assert direction_letters(np.array(direction)) == letters


@pytest.mark.parametrize(("length", "rounded"), [(7.3, 5), (100, 100), (99, 50), (0.25, 0.2), (1999, 1000)])
def test_round_length(length, rounded):
    assert round_length(length) == pytest.approx(rounded)


@pytest.mark.parametrize(
    ("mm3", "text"), [(1_043_210, "1043 ml"), (36_000, "36 ml"), (1359, "1.36 ml"), (27, "0.027 ml")]
)
def test_format_volume(mm3, text):
    assert format_volume(mm3) == text
