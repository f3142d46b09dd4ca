from copy import deepcopy

import numpy as np
import pytest
import torch

pytest.importorskip("monai", reason="the package monai is absent")

from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models.segmentation.vista3d import network_grid
from Testing.models.volume_cases import MATRICES, noise


@pytest.fixture(scope="module")
def bundle():
    pytest.importorskip("nibabel", reason="MONAI turns volumes by the package nibabel, which is absent")
    pytest.importorskip("skimage", reason="the package scikit-image is absent")
    from Testing.models import bundle_vista3d

    return bundle_vista3d


def seen_by_the_bundle(bundle, volume):
    from monai.data import MetaTensor
    from monai.transforms import reset_ops_id

    steps = bundle.preprocessing()
    array = np.float32(volume.array_kji.transpose(2, 1, 0))
    image = MetaTensor(torch.from_numpy(array)[None], affine=torch.tensor(volume.geometry.ijk_to_ras))
    return steps, reset_ops_id(steps({"image": image})["image"])


def brought_back_by_the_bundle(steps, seen, labels):
    from monai.data import MetaTensor
    from monai.transforms import Invertd

    invert = Invertd(keys="pred", transform=deepcopy(steps), orig_keys="image", nearest_interp=True)
    return invert({"image": seen, "pred": MetaTensor(labels[None].float())})["pred"][0].numpy().transpose(2, 1, 0)


def differs_from_the_bundle(bundle, volume):
    """What of the grid, of its place and of the way back is not as in the bundle."""
    steps, seen = seen_by_the_bundle(bundle, volume)
    grid = network_grid(volume)
    labels = torch.randint(0, 9, seen.shape[1:], generator=torch.Generator().manual_seed(1))
    found = set()
    if not (seen.shape[1:] == grid.image.shape[2:] and torch.equal(seen.as_tensor(), grid.image[0])):
        return {"image"}
    if np.abs(seen.affine.numpy() - grid.geometry.ijk_to_ras).max() > 1e-9:
        found.add("place")
    if not np.array_equal(brought_back_by_the_bundle(steps, seen, labels), grid.to_volume(labels)):
        found.add("labels")
    return found


@pytest.mark.parametrize("name", MATRICES)
def test_the_way_there_and_back_is_the_bundles_voxel_by_voxel(bundle, name):
    assert differs_from_the_bundle(bundle, noise(name)) == set()


def test_one_slice_goes_there_and_back_as_in_the_bundle(bundle):
    assert differs_from_the_bundle(bundle, noise("oblique", (1, 30, 34))) == set()


@pytest.mark.parametrize("name", MATRICES)
def test_a_voxel_is_found_again_where_it_is(name):
    """A bright spot is at its place on the grid, and a label put there is at its place in the volume."""
    volume = noise(name)
    spot = (18, 20, 15)
    array = np.full(volume.array_kji.shape, 40, np.int16)
    array[spot[0] - 1 : spot[0] + 2, spot[1] - 1 : spot[1] + 2, spot[2] - 1 : spot[2] + 2] = 1000
    grid = network_grid(Volume(array, volume.geometry))
    centre = grid.to_grid([spot[::-1]])[0]
    place = np.rint(centre).astype(int)
    there = grid.image[0, 0].numpy() > 0.6
    assert there[tuple(place)]
    assert np.linalg.norm(np.argwhere(there).mean(axis=0) - centre) < 0.7
    labels = torch.zeros(grid.image.shape[2:], dtype=torch.int16)
    x, y, z = place.tolist()
    labels[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2] = 7
    back = np.argwhere(grid.to_volume(labels) == 7)
    assert np.abs(volume.geometry.to_ras(back[:, ::-1]).mean(axis=0) - volume.geometry.to_ras(spot[::-1])).max() < 1.6


def test_the_grid_runs_to_the_right_the_front_and_the_head():
    for name in MATRICES:
        linear = network_grid(noise(name)).geometry.ijk_to_ras[:3, :3]
        assert np.allclose(np.linalg.norm(linear, axis=0), 1.5)
        assert np.diag(linear).min() > 1.0, name


def test_an_image_that_is_nowhere_above_0_hu_is_seen_whole():
    array = np.random.default_rng(0).integers(-1000, -600, (6, 8, 9)).astype(np.int16)
    grid = network_grid(Volume(array, Geometry(np.diag([1.5, 1.5, 1.5, 1.0]), array.shape)))
    assert grid.image.shape[2:] == (9, 8, 6)
    assert np.array_equal(grid.to_volume(torch.ones(9, 8, 6)), np.ones(array.shape))
