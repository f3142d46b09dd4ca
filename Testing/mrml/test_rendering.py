import ctypes.util

import numpy as np
import pytest
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from FoundationSegLib.errors import GeometryError, InputError, OutputError
from FoundationSegLib.mrml.rendering.legend import PictureSegment, direction_letters, format_volume, list_segments
from FoundationSegLib.mrml.rendering.overview import choose_offset, render_overview
from FoundationSegLib.mrml.rendering.panels import fit_beside, round_length, see_through, view_axes
from FoundationSegLib.mrml.rendering.stage import open_window
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.surfaces import add_coarse_surface
from Testing.mrml.picture_phantom import (
    BLOB_RAS,
    MAGENTA,
    MATRICES,
    RADIUS_MM,
    SHAPE,
    YELLOW,
    add_segmentation,
    add_volume,
    ball,
    centred,
    phantom,
    turn,
)
from Testing.mrml.random_geometries import add_parent

SIZE = (480, 360)


@pytest.fixture(scope="module")
def headless(opengl):
    return boot_scene()


def picture(volume, segmentation, path, **options):
    """The rendered PNG, (height, width, 3), first row at the top."""
    render_overview(volume, segmentation, path, **{"size": SIZE, "low": 0, "high": 255, **options})
    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(path))
    reader.Update()
    width, height, _ = reader.GetOutput().GetDimensions()
    pixels = vtk_to_numpy(reader.GetOutput().GetPointData().GetScalars())
    return pixels.reshape(height, width, -1)[::-1].astype(int)


def panels(pixels):
    """The four views without their bars: axial, 3-D, coronal, sagittal."""
    gap = np.flatnonzero((pixels[:, :20] == 40).all(axis=(1, 2)))
    column = pixels.shape[1] // 2
    bar = 12
    top, bottom = slice(bar, gap[0]), slice(gap[-1] + 1 + bar, None)
    left, right = slice(0, column - 1), slice(column + 1, None)
    return pixels[top, left], pixels[top, right], pixels[bottom, left], pixels[bottom, right]


def is_magenta(pixels):
    return (pixels[..., 0] - pixels[..., 1] > 50) & (pixels[..., 2] - pixels[..., 1] > 50)


def from_middle(mask):
    """Where a mask is, in pixels right of and above the middle of its panel."""
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    return columns.mean() - (width - 1) / 2, (height - 1) / 2 - rows.mean()


def check_sides(pixels):
    """The blob is left, anterior and superior of the middle, at the right distances."""
    axial, _, coronal, sagittal = (from_middle(is_magenta(panel)) for panel in panels(pixels))
    left, anterior, superior = -BLOB_RAS[0], BLOB_RAS[1], BLOB_RAS[2]
    for (right, up), expected in (
        (axial, (left, anterior)),
        (coronal, (left, superior)),
        (sagittal, (-anterior, superior)),
    ):
        assert np.sign([right, up]).tolist() == np.sign(expected).tolist()
        assert right / up == pytest.approx(expected[0] / expected[1], rel=0.2)


@pytest.mark.parametrize("name", MATRICES)
def test_nothing_is_mirrored(headless, tmp_path, name):
    check_sides(picture(*phantom(MATRICES[name]), tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["along LPS", "oblique", "sheared"])
def test_the_segment_lies_on_the_blob(headless, tmp_path, name, full):
    if name == "along LPS" and not full:
        pytest.skip("the turned ones are enough: run with --full")
    volume, segmentation = phantom(MATRICES[name])
    middle = tuple(centred(np.eye(4), (1, 1, 1))[:3, 3] + BLOB_RAS)
    bare = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    with_segment = panels(picture(volume, segmentation, tmp_path / "a.png", centre_ras=middle))
    without = panels(picture(volume, bare, tmp_path / "b.png", centre_ras=middle))
    inner = np.s_[16:-32, 16:-16]  # without the letters and the ruler
    for number in (0, 2, 3):
        overlay, blob = is_magenta(with_segment[number][inner]), without[number][inner].min(axis=-1) > 160
        # Voxels against interpolated grey: edges differ by half a voxel, places do not.
        assert (overlay & blob).sum() / (overlay | blob).sum() > 0.7
        assert from_middle(overlay) == pytest.approx(from_middle(blob), abs=0.6)


def test_a_parent_transform_moves_both(headless, tmp_path):
    volume, segmentation = phantom(np.linalg.inv(turn(2, -25)) @ MATRICES["along LPS"])
    middle = np.array([30.0, -40.0, 500.0])
    matrix = turn(2, -25)
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle
    add_parent(slicer.mrmlScene, matrix, volume, segmentation)
    moved = matrix[:3, :3] @ BLOB_RAS
    right, up = from_middle(is_magenta(panels(picture(volume, segmentation, tmp_path / "a.png"))[0]))
    assert right / up == pytest.approx(-moved[0] / moved[1], rel=0.2) and right > 0 and up > 0


def test_the_surfaces_are_seen_from_the_front(headless, tmp_path):
    matrix = centred(MATRICES["oblique"], SHAPE)
    middle = np.array([30.0, -40.0, 500.0])
    left, right = (ball(matrix, SHAPE, middle + side) for side in ([-20, 0, 10], [20, 0, -10]))
    volume = add_volume(np.zeros(SHAPE), matrix)
    segmentation = add_segmentation(volume, {"left": (left, MAGENTA), "right": (right, YELLOW)})
    view = panels(picture(volume, segmentation, tmp_path / "a.png"))[1][40:]  # below the legend
    magenta = from_middle(is_magenta(view))
    yellow = from_middle((view[..., 0] - view[..., 2] > 60) & (view[..., 1] - view[..., 2] > 60))
    assert magenta[0] > yellow[0] + 20 and magenta[1] > yellow[1] + 10


def test_grey_values_follow_the_limits(headless, tmp_path):
    matrix = centred(np.eye(4), (40, 40, 40))
    volume = add_volume(np.full((40, 40, 40), 100), matrix)
    axial = panels(picture(volume, add_segmentation(volume, {}), tmp_path / "a.png", low=50, high=250))[0]
    height, width, _ = axial.shape
    assert axial[height // 2, width // 2].tolist() == pytest.approx([64] * 3, abs=2)


@pytest.mark.parametrize("slices", [1, 40])
def test_colours_stay(headless, tmp_path, slices):
    array = np.broadcast_to(np.array([200, 100, 20]), (slices, 40, 40, 3))
    volume = add_volume(array, centred(np.eye(4), array.shape[:3]))
    pixels = picture(volume, add_segmentation(volume, {}), tmp_path / "a.png")
    shown = pixels if slices == 1 else panels(pixels)[0]
    height, width, _ = shown.shape
    assert shown[height // 2, width // 2].tolist() == pytest.approx([200, 100, 20], abs=2)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_fills_the_picture(headless, tmp_path, axis):
    shape = [60, 80, 70]
    shape[axis] = 1
    matrix = centred(turn(0, 20) @ np.diag([-1, -1, 1, 1.0]), shape)
    corner = np.zeros(shape, bool)
    corner[tuple(slice(0, max(1, n // 4)) for n in shape)] = True
    volume = add_volume(np.full(shape, 120), matrix)
    pixels = picture(volume, add_segmentation(volume, {"corner": (corner, MAGENTA)}), tmp_path / "a.png")
    right, up = from_middle(is_magenta(pixels[12:]))
    # The first voxel is at right, anterior, inferior.
    expected = {0: (-1, 1), 1: (-1, -1), 2: (-1, -1)}[axis]
    assert np.sign([right, up]).tolist() == list(expected) and is_magenta(pixels).mean() > 0.02


def test_an_image_without_geometry_has_the_directions_that_it_names(headless, tmp_path):
    """A plain image is drawn as it is in the file, with pixels in place of millimetres, and no letters but its own."""
    array = np.full((1, 200, 260), 120)
    corner = np.zeros(array.shape, bool)
    corner[:, :50, :50] = True
    volume = add_volume(array, np.diag([-1.0, -1, 1, 1]))
    segmentation = add_segmentation(volume, {"corner": (corner, MAGENTA)})
    with_letters = picture(volume, segmentation, tmp_path / "a.png")
    without = picture(volume, segmentation, tmp_path / "b.png", in_pixels=True, sides=("", ""))
    right, up = from_middle(is_magenta(without[12:]))
    assert right < 0 < up
    xray = picture(volume, segmentation, tmp_path / "c.png", sides=("R", "I"))
    at_the_right, at_the_left = np.s_[162:212, -20:], np.s_[162:212, :20]  # where letters stand
    assert (with_letters[at_the_right].min(axis=-1) > 200).any()
    assert not (without[at_the_right].min(axis=-1) > 200).any()
    assert (xray[at_the_left].min(axis=-1) > 200).any()
    assert not np.array_equal(xray[at_the_right], with_letters[at_the_right]), "R is where L was"


def test_nothing_is_left_behind(headless, tmp_path, capfd):
    volume, segmentation = phantom(MATRICES["oblique"])
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevel(30, 10)
    scene = slicer.mrmlScene
    before = [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]
    capfd.readouterr()
    picture(volume, segmentation, tmp_path / "a.png")
    assert capfd.readouterr() == ("", "") and slicer.mrmlScene is scene
    assert [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())] == before
    assert not segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    assert (volume.GetDisplayNode().GetWindow(), volume.GetDisplayNode().GetLevel()) == (30, 10)


def test_many_oddly_named_segments(headless, tmp_path, capfd):
    matrix = centred(np.eye(4), (30, 30, 30))
    volume = add_volume(np.zeros((30, 30, 30)), matrix)
    names = ["$a$ b", "a|b", "a\nb", "肝臓", "", "long " * 30, *map(str, range(20))]
    masks = {}
    for number, name in enumerate(names):
        mask = np.zeros((30, 30, 30), bool)
        mask[number] = True
        masks[name] = (mask, MAGENTA)
    segmentation = add_segmentation(volume, masks)
    capfd.readouterr()
    picture(volume, segmentation, tmp_path / "a.png")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("voxels", [1, 2, 3, 5])
def test_small_segments_keep_a_surface(headless, voxels):
    mask = np.zeros((20, 20, 20), bool)
    mask[8 : 8 + voxels, 8 : 8 + voxels, 8 : 8 + voxels] = True
    segmentation = add_segmentation(add_volume(np.zeros((20, 20, 20)), np.eye(4)), {"small": (mask, YELLOW)})
    surface = add_coarse_surface(segmentation.GetSegmentation().GetNthSegment(0))
    assert np.ptp(vtk_to_numpy(surface.GetPoints().GetData()), axis=0).min() > voxels * 0.6
    assert list_segments(segmentation)[0].volume_mm3 == pytest.approx(voxels**3)


@pytest.mark.parametrize("most_voxels", [1_000_000, 300])
@pytest.mark.parametrize("name", ["oblique", "sheared", "permuted"])
def test_surfaces_lie_on_the_voxels(headless, name, most_voxels):
    _, segmentation = phantom(MATRICES[name])
    surface = add_coarse_surface(segmentation.GetSegmentation().GetNthSegment(0), most_voxels)
    points = vtk_to_numpy(surface.GetPoints().GetData())
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    assert middle == pytest.approx(np.array([30.0, -40.0, 500.0]) + BLOB_RAS, abs=1.5)
    assert np.ptp(points, axis=0) == pytest.approx(2 * RADIUS_MM, abs=4)


def test_a_warped_volume_is_refused(headless, tmp_path):
    volume, segmentation = phantom(np.eye(4))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    warp = vtk.vtkThinPlateSplineTransform()
    transform.SetAndObserveTransformToParent(warp)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(GeometryError, match="harden"):
        render_overview(volume, segmentation, tmp_path / "a.png")


def test_what_cannot_be_drawn_is_refused(headless, tmp_path):
    volume, segmentation = phantom(np.eye(4))
    with pytest.raises(InputError, match="too small"):
        render_overview(volume, segmentation, tmp_path / "a.png", size=(100, 400))
    with pytest.raises(OutputError, match=r"a\.png"):
        render_overview(volume, segmentation, tmp_path / "missing" / "a.png", size=(200, 200))
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    with pytest.raises(InputError, match="empty"):
        render_overview(empty, segmentation, tmp_path / "a.png")


def test_without_opengl_the_error_says_what_to_install(monkeypatch, capfd):
    monkeypatch.setenv("VTK_DEFAULT_OPENGL_WINDOW", "vtkOSOpenGLRenderWindow")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(OutputError, match="libegl1"):
        open_window(64, 64)
    assert capfd.readouterr().err == ""


GREY = (0.5, 0.5, 0.5)


def shown(name, points, volume_mm3=None):
    points = np.asarray(points, dtype=float)
    return PictureSegment(name, name, GREY, float(volume_mm3 or len(points)), points)


def block(low, high):
    return np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True))), axis=-1).reshape(-1, 3)


def test_the_cut_shows_most_segments():
    lung, nodule = (
        shown("lung", block((0, 0, 0), (20, 20, 40))),
        shown("nodule", block((5, 5, 30), (8, 8, 33))),
    )
    up = np.array([0.0, 0.0, 1.0])
    assert choose_offset([lung, nodule], up, np.eye(4)) in (30, 31, 32) and choose_offset([], up, np.eye(4)) is None
    # What no other view shows counts for more than all that one does.
    apart, far, seen = shown("apart", block((0, 0, 50), (3, 3, 53))), np.eye(4), {0, 1}
    assert choose_offset([lung, nodule, apart], up, far, seen) in (50, 51, 52) and seen == {0, 1, 2}
    # In steps of the volume's slices, through their centres.
    thick = np.diag([1, 1, 5, 1.0])
    thick[2, 3] = 2.0
    assert choose_offset([shown("a", [(0, 0, 7), (1, 0, 12), (0, 0, 12)])], up, thick) == 12


def test_what_hides_others_is_see_through():
    lungs = [
        shown("right", block((0, 0, 0), (20, 20, 20))),
        shown("left", block((25, 0, 0), (45, 20, 20))),
    ]
    nodule, heart = (
        shown("nodule", block((8, 8, 8), (12, 12, 12))),
        shown("heart", block((21, 15, 0), (24, 24, 9))),
    )
    assert see_through([*lungs, nodule, heart], view_axes()) == {"right", "left"}
    assert see_through([*lungs, heart], view_axes()) == frozenset() and see_through([], view_axes()) == frozenset()


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
    assert np.abs(moved).max() <= 1 and not ((moved[:, 0] < corner[0] - 1) & (moved[:, 1] > 1 - corner[1])).any()
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
