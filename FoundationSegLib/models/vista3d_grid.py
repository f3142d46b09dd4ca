"""The grid that VISTA3D looks at, and the way there and back.

The steps and their numbers are those of configs/inference.json of NV-Segment-CT (github.com/NVIDIA-Medtech/
NV-Segment-CTMR): voxels of 1.5 mm along the image's own axes, cut to what is above 0 HU and 10 voxels around it, scaled
to 0..1, turned to RAS; labels come back by the nearest voxel. Resampling is MONAI's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CropForeground, ScaleIntensityRange, Spacing, SpatialResample
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..core.geometry import Geometry, Shape
from ..core.reorientation import Turn, towards_ras
from ..core.volume import Volume

SPACING_MM = 1.5
_MARGIN = 10
_LOWEST_HU, _HIGHEST_HU = -963.8247715525971, 1053.678477684517


@dataclass(frozen=True, slots=True)
class NetworkGrid:
    """An image as the network sees it.

    Attributes:
        image: (1, 1, X, Y, Z) float32 from 0 to 1 on the host; x, y, z run to the right, the front and the head.
        geometry: where the voxels of ``image`` are; its i, j, k are x, y, z.
        stored: the grid of the volume.
        resampled: the grid after resampling, before it was cut and turned.
        first_ijk: the voxel of ``resampled`` that the cut begins with.
        turn: from the cut to ``image``.
    """

    image: Tensor
    geometry: Geometry
    stored: Geometry
    resampled: Geometry
    first_ijk: Shape
    turn: Turn

    def to_grid(self, index_ijk: ArrayLike) -> NDArray[np.float64]:
        """The continuous indices (x, y, z) of voxels of the volume, inside ``image`` or not; (n, 3) both.

        In the bundle's own order of sums: windows begin at whole numbers, and the last bit decides which.
        """
        index = np.asarray(index_ijk, np.float64).reshape(-1, 3)
        to_grid = self.geometry.ras_to_ijk @ self.stored.ijk_to_ras
        return (to_grid @ np.c_[index, np.ones(len(index))].T).T[:, :3]

    def to_volume(self, labels_xyz: Tensor) -> NDArray[np.int16]:
        """What labels on the grid, (X, Y, Z), say of the voxels of the volume: (K, J, I); 0 beyond the cut."""
        cut = self.turn.turn_back(labels_xyz.cpu().numpy().transpose(2, 1, 0)).transpose(2, 1, 0)
        whole = np.zeros(self.resampled.shape_kji[::-1], np.float32)
        place = tuple(slice(first, first + size) for first, size in zip(self.first_ijk, cut.shape, strict=True))
        whole[place] = cut
        resample = SpatialResample(mode="nearest", padding_mode="border", align_corners=False, dtype=torch.float64)
        found = resample(
            _meta(whole, self.resampled),
            dst_affine=torch.tensor(self.stored.ijk_to_ras),
            spatial_size=self.stored.shape_kji[::-1],
        )
        return np.ascontiguousarray(found[0].numpy().transpose(2, 1, 0).astype(np.int16))


def network_grid(volume: Volume) -> NetworkGrid:
    """An image as the network sees it; grey, in Hounsfield units. What is nowhere above 0 HU is not cut."""
    stored = volume.geometry
    array = np.asarray(volume.array_kji.transpose(2, 1, 0), np.float32, order="C")
    spaced = Spacing((SPACING_MM,) * 3, mode="bilinear")(_meta(array, stored))
    resampled = Geometry(spaced.affine.numpy(), _reversed(spaced.shape[1:]))
    crop = CropForeground(margin=_MARGIN, allow_smaller=True)
    start, stop = crop.compute_bounding_box(spaced)
    if not (stop > start).all():
        start, stop = np.zeros(3, np.int64), np.array(spaced.shape[1:])
    cut = spaced.as_tensor()[(slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))]
    scaled = ScaleIntensityRange(_LOWEST_HU, _HIGHEST_HU, 0.0, 1.0, clip=True)(cut)[0]
    turn = towards_ras(resampled)
    turned = turn.turn(scaled.numpy().transpose(2, 1, 0)).transpose(2, 1, 0)
    matrix = resampled.ijk_to_ras.copy()
    matrix[:3, 3] = resampled.to_ras(start)
    return NetworkGrid(
        image=torch.from_numpy(np.ascontiguousarray(turned, np.float32))[None, None],
        geometry=turn.geometry(Geometry(matrix, _reversed(cut.shape[1:]))),
        stored=stored,
        resampled=resampled,
        first_ijk=(int(start[0]), int(start[1]), int(start[2])),
        turn=turn,
    )


def _meta(array_ijk: NDArray[np.float32], geometry: Geometry) -> MetaTensor:
    return MetaTensor(torch.from_numpy(array_ijk)[None], affine=torch.tensor(geometry.ijk_to_ras))


def _reversed(shape: Sequence[int]) -> Shape:
    i, j, k = (int(n) for n in shape)
    return k, j, i
