"""The bar: in random volumes and slice views, the mouse hits the voxel that the slice node's own matrices give."""

import numpy as np
import pytest
import vtk

from FoundationSegLib.imaging.geometry import AXES, Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.slice_tool import SliceTool
from FoundationSegLib.mrml.volumes import add_volume_node, parent_to_world
from FoundationSegLib.prompts.kinds import BoxPrompt, ObliquePlane, PointPrompt
from Testing.mrml.random_geometries import _affine, _rotation, add_parent
from Testing.mrml.slice_rig import SliceRig

CASES = 200  # in the full run


def random_geometry(rng):
    """Permuted, flipped, oblique or along the patient's axes, sheared or not, anisotropic, down to one slice."""
    signs = np.diag(rng.choice([-1.0, 1.0], 3))
    rotation = _rotation(rng.uniform(-np.pi, np.pi, 3)) if rng.random() < 0.6 else np.eye(3)
    shear = np.eye(3)
    if rng.random() < 0.5:
        shear[np.triu_indices(3, 1)] = rng.uniform(-0.6, 0.6, 3)
    spacing = 10 ** rng.uniform(-1.3, 1, 3) if rng.random() < 0.7 else np.ones(3)
    linear = rotation @ shear @ np.eye(3)[rng.permutation(3)] @ signs @ np.diag(spacing)
    shape = np.where(rng.random(3) < 0.1, 1, rng.integers(2, 60, 3))
    return Geometry(_affine(linear, rng.uniform(-1000, 1000, 3)), tuple(int(n) for n in shape))


def random_parent(rng):
    if rng.random() < 0.4:
        return None
    scale = np.diag(rng.choice([0.5, 1.0, 1.7, -1.0], 3))
    return _affine(_rotation(rng.uniform(-np.pi, np.pi, 3)) @ scale, rng.uniform(-200, 200, 3))


def turn_view(rng, rig, volume_node):
    """One of Slicer's orientations, the volume's own planes, or any direction; fitted, zoomed, panned, moved."""
    node, logic = rig.slice_node, rig.logic
    node.SetOrientation(rng.choice(["Axial", "Sagittal", "Coronal"]))
    way = rng.choice(["preset", "volume", "oblique"])
    if way == "oblique":
        slicer_to_ras = node.GetSliceToRAS()
        rotation = _rotation(rng.uniform(-np.pi, np.pi, 3))
        for row in range(3):
            for column in range(3):
                slicer_to_ras.SetElement(row, column, rotation[row, column])
        node.UpdateMatrices()
    if way == "volume":
        node.RotateToVolumePlane(volume_node)
    logic.FitSliceToBackground()
    low, high = (np.array(limit) for limit in slice_limits(logic))
    logic.SetSliceOffset(float(rng.uniform(low, high)))
    if rng.random() < 0.5:
        logic.SnapSliceOffsetToIJK()
    if rng.random() < 0.5:
        zoom = rng.uniform(0.2, 1.2)
        x, y, z = node.GetFieldOfView()
        node.SetFieldOfView(x * zoom, y * zoom, z)
    return way


def slice_limits(logic):
    bounds = np.zeros(6)
    logic.GetBackgroundSliceBounds(bounds)
    return bounds[4], bounds[5]


def slicers_voxel(rig, volume_node, at):
    """The voxel under a pixel, by Slicer's matrices alone; a place within 1e-7 of a border is the higher voxel's."""
    position = np.array(rig.slice_node.GetXYToRAS().MultiplyPoint((*at, 0, 1)))
    parent = volume_node.GetParentTransformNode()
    if parent is not None:
        from_world = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformFromWorld(from_world)
        position = np.array(from_world.MultiplyPoint(position))
    to_ijk = vtk.vtkMatrix4x4()
    volume_node.GetRASToIJKMatrix(to_ijk)
    return np.floor(np.array(to_ijk.MultiplyPoint(position))[:3] + 0.5 + 1e-7).astype(int)


def pixels_inside(rng, rig, volume_node, count):
    """Pixels that show the volume, as many as there are of them among a thousand tries."""
    size = volume_node.GetImageData().GetDimensions()
    width, height, _ = rig.slice_node.GetDimensions()
    found = []
    for at in zip(rng.integers(0, width, 1000).tolist(), rng.integers(0, height, 1000).tolist(), strict=True):
        voxel = slicers_voxel(rig, volume_node, at)
        if (voxel >= 0).all() and (voxel < size).all():
            found.append(at)
        if len(found) == count:
            break
    return found


def test_the_mouse_hits_slicers_voxel(headless, opengl, full, bar):
    rng, cases = np.random.default_rng(7), CASES if full else 40
    rig = SliceRig(headless, size=(401, 333), viewport=(0.1, 0.2, 0.9, 1.0))
    hit, clicks, tried, planes = 0, 0, 0, set()
    while tried < cases:
        geometry = random_geometry(rng)
        volume_node = add_volume_node(headless.scene, Volume(np.zeros(geometry.shape_kji, np.uint8), geometry))
        parent = add_parent(headless.scene, random_parent(rng), volume_node)
        rig.show(volume_node)
        way = turn_view(rng, rig, volume_node)
        places = pixels_inside(rng, rig, volume_node, 5)
        if places:
            tried += 1
            right = [click_hits(rig, volume_node, geometry, at, planes, way) for at in places]
            clicks += len(right)
            hit += all(right) and box_hits(rig, volume_node, geometry, places)
        headless.scene.RemoveNode(volume_node)
        if parent is not None:
            headless.scene.RemoveNode(parent)
    bar("placement: volumes and views where the mouse hits Slicer's voxel", hit, f"{cases} of {cases}")
    assert hit == tried == cases and clicks > 3 * cases
    assert planes == {("volume", "slice"), ("oblique", "oblique"), ("preset", "slice"), ("preset", "oblique")}


def click_hits(rig, volume_node, geometry, at, planes, way):
    got, refused = [], []
    tool = SliceTool(got.append, refused.append)
    tool.enable(volume_node, [rig.view], "point")
    rig.drag(at)
    tool.disable()
    assert not refused
    (prompt,) = got
    assert isinstance(prompt, PointPrompt)
    planes.add((way, "oblique" if isinstance(prompt.plane, ObliquePlane) else "slice"))
    return np.array_equal(geometry.nearest_voxel(prompt.position), slicers_voxel(rig, volume_node, at))


def box_hits(rig, volume_node, geometry, places):
    """Both ends of a box; the slice of its first end counts where the view shows slices."""
    got, refused = [], []
    tool = SliceTool(got.append, refused.append)
    tool.enable(volume_node, [rig.view], "box")
    rig.drag(places[0], places[-1])
    tool.disable()
    if not got:
        return True  # a click, or a box one voxel wide
    (prompt,) = got
    assert isinstance(prompt, BoxPrompt)
    wanted = [slicers_voxel(rig, volume_node, at) for at in (places[0], places[-1])]
    if isinstance(prompt.plane, str):
        n = AXES.index(prompt.plane)
        assert wanted[0][n] == wanted[1][n]
    return np.array_equal(geometry.nearest_voxel(prompt.corners), wanted)


@pytest.mark.parametrize("n", range(6))
def test_slicer_draws_the_voxel_that_is_hit(headless, opengl, tmp_path, n):
    """One bright voxel, not interpolated: the pixels that Slicer draws bright are those that hit it."""
    rng = np.random.default_rng(n)
    linear = _rotation(rng.uniform(-3, 3, 3)) @ np.diag([2.0, 3.0, 4.0])
    geometry = Geometry(_affine(linear, (10, -20, 30)), (9, 9, 9))
    voxels = np.zeros(geometry.shape_kji, np.uint8)
    voxels[4, 4, 4] = 255
    volume_node = add_volume_node(headless.scene, Volume(voxels, geometry, window_level=(255.0, 127.5)))
    volume_node.GetDisplayNode().SetInterpolate(0)
    add_parent(headless.scene, random_parent(rng), volume_node)
    rig = SliceRig(headless, size=(120, 90), draws=True, managers=())
    rig.show(volume_node)
    if n % 2:
        rig.slice_node.RotateToVolumePlane(volume_node)
        rig.logic.FitSliceToBackground()
    centre = parent_to_world(volume_node) @ np.append(geometry.to_ras((4, 4, 4)), 1)
    rig.slice_node.JumpSliceByCentering(*centre[:3])
    bright = rig.picture(tmp_path / "picture.png")[::-1, :, 0] > 128
    view = rig.view.plane(volume_node)
    y, x = np.indices(bright.shape)
    places = np.stack([x, y, 0 * x, 0 * x + 1], axis=-1)
    away = np.abs(geometry.to_ijk(places @ view.xy_to_ras[:3].T) - 4).max(axis=-1)
    # Pixels on the border itself may go either way in Slicer's drawing.
    assert bright[away < 0.499].all() and (away < 0.499).sum() > 10 and not bright[away > 0.501].any()
