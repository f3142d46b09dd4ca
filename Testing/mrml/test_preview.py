"""The lines of a preview, and that they leave no trace."""

from typing import get_args

import numpy as np
import pytest
import vtk

from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.mrml.gestures import Gesture, GestureKind
from FoundationSegLib.mrml.slice_tool import Preview, preview_lines
from FoundationSegLib.prompts.kinds import Polarity
from Testing.mrml.test_view_plane import slice_view_of

PATH = ((190.0, 140.0), (210.0, 150.0), (200.0, 165.0))
VIEW = slice_view_of(geometry_from_spacing((50, 50, 50)), "k", 25, zoom=4.0, turn=0.3)


def length(lines):
    return sum(np.linalg.norm(np.diff(line, axis=0), axis=1).sum() for line in lines)


@pytest.mark.parametrize("kind", get_args(GestureKind))
def test_negative_lines_have_gaps(kind):
    positive, negative = (preview_lines(Gesture(kind, polarity, PATH), VIEW) for polarity in Polarity)
    assert 0.4 * length(positive) < length(negative) < 0.95 * length(positive)
    for line in (*positive, *negative):
        assert line.shape[1] == 2 and np.isfinite(line).all()


def test_a_box_shows_whole_voxels():
    (line,) = preview_lines(Gesture("box", Polarity.POSITIVE, PATH), VIEW)
    assert np.array_equal(line[0], line[-1])
    sides = np.linalg.norm(np.diff(line, axis=0), axis=1) / 4.0  # four pixels a voxel
    assert np.allclose(sides, np.round(sides))


@pytest.mark.parametrize("kind", get_args(GestureKind))
@pytest.mark.parametrize("polarity", Polarity)
def test_a_gesture_of_one_place_is_drawn_too(kind, polarity):
    for path in (PATH[:1], (PATH[0], PATH[0])):
        preview_lines(Gesture(kind, polarity, path), VIEW)


def test_a_preview_is_removed():
    renderer = vtk.vtkRenderer()
    preview = Preview(renderer)
    preview.show(preview_lines(Gesture("lasso", Polarity.NEGATIVE, PATH), VIEW), Polarity.NEGATIVE)
    assert renderer.GetViewProps().GetNumberOfItems() == 2
    preview.remove()
    assert renderer.GetViewProps().GetNumberOfItems() == 0
