"""Grids of oblique views: prompts land where they were drawn, and masks come back to the image without holes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from FoundationSegLib.errors import InputError, PromptError
from FoundationSegLib.imaging.geometry import AXES, Geometry, as_vector, geometry_from_spacing
from FoundationSegLib.imaging.masks import EMPTY_MASK, pack_mask
from FoundationSegLib.prompts import kinds
from FoundationSegLib.prompts.oblique import place_in_view, view_grid, views_of
from FoundationSegLib.prompts.placement import prompt_positions
from Testing.unit.strategies import finite, rotation

angles = st.tuples(*[finite(-3.1, 3.1)] * 3)


@st.composite
def images(draw, smallest=12, largest=20):
    """Turned, flipped, permuted and anisotropic grids."""
    axes = np.eye(3)[:, draw(st.permutations(range(3)))] * draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(draw(angles)) @ axes * draw(st.tuples(*[finite(0.6, 2.0)] * 3))
    matrix[:3, 3] = draw(st.tuples(*[finite(-99, 99)] * 3))
    return Geometry(matrix, draw(st.tuples(*[st.integers(smallest, largest)] * 3)))


def middle(image, aside=(0, 0, 0)):
    return image.to_ras((np.array(image.shape_kji[::-1]) - 1) / 2 + aside)


def plane_through(position, turn):
    right, up, normal = np.asarray(turn).T
    del right
    return kinds.ObliquePlane(*map(as_vector, (position, normal, up)))


def shown(grid, number, mask_kji):
    """A slice of the view of a mask on the image, without interpolation; the area around the image is empty."""
    rows, columns = np.indices(grid.geometry.shape_kji[1:])
    index_ijk = np.stack([columns, rows, np.full(rows.shape, number)], axis=-1)
    voxels = grid.image.nearest_voxel(grid.geometry.to_ras(index_ijk))[..., ::-1]
    inside = ((voxels >= 0) & (voxels < mask_kji.shape)).all(axis=-1)
    pixels = np.zeros(rows.shape, bool)
    pixels[inside] = mask_kji[tuple(voxels[inside].T)]
    return pixels


def disc(grid, number, radius_px):
    rows, columns = np.indices(grid.geometry.shape_kji[1:])
    column, row, _ = grid.geometry.to_ijk(middle(grid.image))
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius_px**2


@settings(max_examples=25)
@given(images(), angles, finite(3.0, 6.0), finite(-2.0, 2.0))
def test_a_disc_in_any_plane_comes_back_without_holes(image, turn, radius, aside):
    plane = plane_through(middle(image) + aside * rotation(turn)[:, 2], rotation(turn))
    grid = view_grid(plane, image)
    number, pixel_mm = grid.slice_number(plane), grid.geometry.spacing_mm[0]
    drawn = disc(grid, number, radius * max(image.spacing_mm) / pixel_mm)
    mask, reach = pack_mask(drawn[None], (number, 0, 0)), grid.reach(plane)
    voxels = grid.written_back(mask).expand(image.shape_kji)
    assert ndimage.label(voxels, np.ones((3, 3, 3)))[1] == 1, "connected"
    seen = shown(grid, number, voxels)
    assert (ndimage.binary_fill_holes(seen) == seen).all(), "no holes"
    further = grid.written_back(mask, reach).expand(image.shape_kji)
    seen_there = shown(grid, number + reach[number][0], further)
    assert (ndimage.binary_fill_holes(seen_there) == seen_there).all(), "no holes in the view that was drawn in"
    drawn &= grid.in_image(number)
    edge = ndimage.distance_transform_edt(~(drawn ^ ndimage.binary_erosion(drawn, border_value=1)))
    assert (edge[seen != drawn] * pixel_mm <= np.linalg.norm(image.spacing_mm)).all(), "within a voxel"


@given(images(), angles, st.tuples(*[finite(-0.4, 0.4)] * 3), st.sampled_from(["point", "box", "scribble", "lasso"]))
def test_a_prompt_lands_where_it_was_drawn(image, turn, place, kind):
    right, up, normal = rotation(turn).T
    centre = middle(image, place * np.array(image.shape_kji[::-1]))
    corners = [as_vector(centre + x * right + y * up) for x, y in ((0, 0), (8, 2), (6, 12))]
    plane = kinds.ObliquePlane(as_vector(centre), as_vector(3 * normal), as_vector(2 * up + normal))
    prompt = {
        "point": kinds.PointPrompt(corners[0], plane=plane),
        "box": kinds.BoxPrompt((corners[0], corners[2]), plane=plane),
        "scribble": kinds.ScribblePrompt(tuple(corners), plane=plane),
        "lasso": kinds.LassoPrompt(tuple(corners), plane=plane),
    }[kind]
    grid, on_grid = place_in_view(prompt, image)
    if grid is None:
        return
    moved = np.subtract(prompt_positions(on_grid), prompt_positions(prompt))
    assert np.linalg.norm(moved, axis=1).max() <= 0.5001 * grid.geometry.spacing_mm[2]
    pixel_mm, _, slice_mm = grid.geometry.spacing_mm
    assert on_grid.plane == "k" and 0.999 * pixel_mm <= slice_mm <= 1.001 * max(image.spacing_mm)
    # Left stays left: the columns lead to the right of the view, the rows down, for each voxel as for each position.
    along = grid.geometry.ijk_to_ras[:3, :3] / grid.geometry.spacing_mm
    assert np.allclose(along[:, :2].T, [right, -up], atol=1e-5) and np.allclose(abs(along[:, 2] @ normal), 1)
    assert along[np.abs(along[:, 2]).argmax(), 2] > 0
    corners = image.to_ras(np.array(np.meshgrid(*[(0, n - 1) for n in image.shape_kji[::-1]])).reshape(3, -1).T)
    inside = grid.geometry.to_ijk(corners)
    assert (inside > -0.5001).all() and (inside < np.array(grid.geometry.shape_kji[::-1]) - 0.4999).all()
    other = view_grid(kinds.ObliquePlane((1e3, 0.0, 0.0), as_vector(normal), as_vector(up)), image)
    assert other == grid and hash(other) == hash(grid), "one grid for all planes of an orientation"


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_plane_along_the_axes_is_that_of_the_image(axis, sign):
    image = geometry_from_spacing((9, 10, 11), (1.0, 2.0, 3.0))
    n = AXES.index(axis)
    normal, up = sign * np.eye(3)[n], np.eye(3)[(n + 1) % 3]
    point = kinds.PointPrompt(
        (5.0, 9.0, 12.0), plane=kinds.ObliquePlane((5.0, 9.0, 12.0), as_vector(normal), as_vector(up))
    )
    assert place_in_view(point, image) == (None, kinds.PointPrompt(point.position, plane=axis))
    turned = kinds.ObliquePlane(point.position, as_vector(normal), as_vector(up + np.eye(3)[(n + 2) % 3]))
    grid, _ = place_in_view(kinds.PointPrompt(point.position, plane=turned), image)
    slices = grid.geometry.shape_kji[0], grid.geometry.spacing_mm[2]
    assert slices == (image.shape_kji[2 - n], pytest.approx(image.spacing_mm[n])), "it has the image's own slices"
    whole = np.ones((1, *grid.geometry.shape_kji[1:]), bool)
    voxels = grid.written_back(pack_mask(whole, (grid.slice_number(turned), 0, 0)))
    assert voxels.voxels == np.prod(image.shape_kji) / image.shape_kji[2 - n], "and they are one voxel thick"


IMAGE = geometry_from_spacing((20, 20, 20))
TURNED = kinds.ObliquePlane((10.0, 10.0, 10.0), (0.0, 0.6, 0.8), (0.0, 0.8, -0.6))


def point(position, plane=TURNED):
    return kinds.PointPrompt(position, plane=kinds.ObliquePlane(position, plane.normal, plane.up))


@pytest.mark.parametrize(
    ("prompt", "image", "error", "message"),
    [
        (point((10.0, 10.0, 50.0)), IMAGE, PromptError, r"segments\[0\].prompts\[1\].position: .*wholly outside"),
        (kinds.PointPrompt((10.0, 10.0, 14.0), plane=TURNED), IMAGE, PromptError, r"plane: a position lies 3.2 mm off"),
        (point((10.0, 0.2, 0.0)), IMAGE, PromptError, r"narrow strip .* \(20.0 x \d.0 mm\)"),
        (point((9.0, 9.0, 0.0)), geometry_from_spacing((1, 20, 20)), PromptError, "narrow strip"),
        (
            kinds.BoxPrompt(
                ((10.0, 30.0, -14.0), (12.0, 6.0, 4.0)),
                plane=kinds.ObliquePlane((10.0, 6.0, 4.0), (0.0, 0.6, 0.8), (0.0, 0.8, -0.6)),
            ),
            IMAGE,
            None,
            "",
        ),
        (point((2e3, 2e3, 2.0)), geometry_from_spacing((9, 5000, 5000)), InputError, "limit the model to a region"),
    ],
)
def test_there_is_a_clear_answer_to_what_cannot_be_seen(prompt, image, error, message):
    segment = kinds.SegmentPrompts("A", (kinds.PointPrompt(image.to_ras((0, 0, 0)).tolist()), prompt))
    if error is None:
        assert len(views_of([segment], image)) == 2
        return
    with pytest.raises(error, match=message):
        views_of([segment], image)


def test_a_plane_beside_the_image_is_named():
    """The box around a rectangle may reach into the image where the rectangle does not."""
    plane = kinds.ObliquePlane((-3.0, -3.0, -3.0), (1.0, 1.0, 1.0), (1.0, -1.0, 0.0))
    grid = view_grid(plane, IMAGE)
    with pytest.raises(PromptError, match="does not cut the image"):
        grid.require_visible(grid.slice_number(plane), "here")


def test_prompts_are_told_apart_by_view_and_keep_their_numbers():
    drawn, along = point((10.0, 10.0, 10.0)), kinds.PointPrompt((5.0, 5.0, 5.0), plane="j")
    other = point((10.0, 10.0, 10.0), kinds.ObliquePlane((0.0, 0.0, 0.0), (0.6, 0.0, 0.8), (0.8, 0.0, -0.6)))
    segments = [
        kinds.SegmentPrompts("A", (along, drawn)),
        kinds.SegmentPrompts("B", (kinds.TextPrompt("x"),)),
        kinds.SegmentPrompts("C", (other, drawn, along, drawn)),
    ]
    views = views_of(segments, IMAGE)
    assert [view.numbers for view in views] == [
        ((2, (0,)),),
        ((0, (0,)), (1, (0,)), (2, (2,))),
        ((0, (1,)), (2, (1, 3))),
    ]
    assert views[1].grid is None and views[1].segments[0].prompts == (along,) and views[2].segments[1].name == "C"
    assert (
        views[2].in_request("segments[1].prompts[1] and segments[0]: x") == "segments[2].prompts[3] and segments[0]: x"
    )
    masks = views[2].masks([EMPTY_MASK, pack_mask(np.ones(views[2].grid.geometry.shape_kji, bool))], 3)
    assert [mask.voxels for mask in masks] == [0, 0, 8000]


def test_what_is_smaller_than_a_voxel_is_not_lost():
    image = geometry_from_spacing((8, 40, 40), (0.7, 0.7, 5.0))
    plane = kinds.ObliquePlane((14.0, 14.0, 17.5), (0.0, 0.7, 0.7), (0.0, 0.7, -0.7))
    grid = view_grid(plane, image)
    number, lost = grid.slice_number(plane), 0
    rows, columns = np.nonzero(grid.in_image(number))
    for row, column in list(zip(rows, columns, strict=True))[::97]:
        pixel = np.zeros((1, *grid.geometry.shape_kji[1:]), bool)
        pixel[0, row, column] = True
        lost += grid.written_back(pack_mask(pixel, (number, 0, 0))).box.is_empty
    assert lost == 0
