"""Geometry of voxels: one 4x4 matrix, the conversions between RAS and IJK, and half-open voxel boxes.

Axis law: arrays are KJI (numpy order), points are RAS in mm or IJK in voxels, and conversion between the two
happens here and nowhere else. Voxel centres lie at whole IJK numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..codec import frozen
from ..errors import GeometryError

Axis = Literal["i", "j", "k"]
Vector = tuple[float, float, float]
Shape = tuple[int, int, int]
_Voxel = TypeVar("_Voxel", bound=np.generic)

AXES: tuple[Axis, ...] = ("i", "j", "k")

# The smallest ratio of cell volume to the product of spacings that still counts as a grid. A gantry tilt of 30
# degrees gives 0.87; at 1e-3 the axes lie in one plane to within 0.06 degrees and no inverse can be trusted.
_SMALLEST_CELL = 1e-3
_FARTHEST = 2.0**62
# The part of a voxel by which a voxel may lie beside its twin on another grid and still be the same. Files round: four
# decimals of a direction, usual in DICOM, move the far end of 512 voxels by 0.03 of one.
SAME_GRID_VOXELS = 0.05


def as_vector(values: ArrayLike) -> Vector:
    """Three numbers, of whatever kind, as plain ones."""
    x, y, z = np.asarray(values, np.float64).tolist()
    return x, y, z


def array_axis(axis: Axis) -> int:
    """The position of a volume axis in a KJI array: ``"k"`` is 0, ``"j"`` 1, ``"i"`` 2."""
    return 2 - AXES.index(axis)


@frozen
class Box:
    """A half-open box of voxels: ``start_kji`` is inside, ``stop_kji`` is the first voxel outside on each axis."""

    start_kji: Shape
    stop_kji: Shape

    @staticmethod
    def around(index_ijk: ArrayLike) -> "Box":
        """The smallest box around the voxels nearest to continuous indices, (..., 3) in (i, j, k); one at least.

        Raises:
            GeometryError: an index is not a number.
        """
        index_kji = round_index(index_ijk).reshape(-1, 3)[:, ::-1]
        (k0, j0, i0), (k1, j1, i1) = index_kji.min(axis=0).tolist(), (index_kji.max(axis=0) + 1).tolist()
        return Box((k0, j0, i0), (k1, j1, i1))

    @property
    def shape_kji(self) -> Shape:
        """The number of voxels along each axis; never negative."""
        (k0, j0, i0), (k1, j1, i1) = self.start_kji, self.stop_kji
        return max(0, k1 - k0), max(0, j1 - j0), max(0, i1 - i0)

    @property
    def is_empty(self) -> bool:
        """True where the box holds no voxel."""
        (k0, j0, i0), (k1, j1, i1) = self.start_kji, self.stop_kji
        return k1 <= k0 or j1 <= j0 or i1 <= i0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The index that cuts this box out of a KJI array; what of the box lies outside is left out."""
        # Never below 0: there numpy counts from the other end.
        (k0, j0, i0), (k1, j1, i1) = self.start_kji, self.stop_kji
        k0, j0, i0 = max(k0, 0), max(j0, 0), max(i0, 0)
        return slice(k0, max(k0, k1)), slice(j0, max(j0, j1)), slice(i0, max(i0, i1))

    def intersection(self, other: "Box") -> "Box":
        """The voxels in both boxes; empty where they do not meet."""
        (k0, j0, i0), (k1, j1, i1) = self.start_kji, self.stop_kji
        (k2, j2, i2), (k3, j3, i3) = other.start_kji, other.stop_kji
        return Box((max(k0, k2), max(j0, j2), max(i0, i2)), (min(k1, k3), min(j1, j3), min(i1, i3)))

    def union(self, other: "Box") -> "Box":
        """The smallest box that holds both; an empty box adds nothing."""
        if self.is_empty:
            return other
        if other.is_empty:
            return self
        (k0, j0, i0), (k1, j1, i1) = self.start_kji, self.stop_kji
        (k2, j2, i2), (k3, j3, i3) = other.start_kji, other.stop_kji
        return Box((min(k0, k2), min(j0, j2), min(i0, i2)), (max(k1, k3), max(j1, j3), max(i1, i3)))

    def shifted(self, by_kji: Shape) -> "Box":
        """The box moved by whole voxels along k, j, i."""
        k, j, i = by_kji
        (k0, j0, i0), (k1, j1, i1) = self.start_kji, self.stop_kji
        return Box((k0 + k, j0 + j, i0 + i), (k1 + k, j1 + j, i1 + i))

    def grown(self, by_kji: Shape) -> "Box":
        """The box wider by so many voxels on both sides along k, j, i."""
        k, j, i = by_kji
        (k0, j0, i0), (k1, j1, i1) = self.start_kji, self.stop_kji
        return Box((k0 - k, j0 - j, i0 - i), (k1 + k, j1 + j, i1 + i))

    def relative_to(self, region: "Box") -> "Box":
        """The box as counted from the first voxel of a region."""
        k, j, i = region.start_kji
        return self.shifted((-k, -j, -i))

    def contains(self, other: "Box") -> bool:
        """True where every voxel of ``other`` is in this box."""
        return self.intersection(other) == other or other.is_empty


def as_shape(values: Iterable[int]) -> Shape:
    """Three whole numbers along k, j and i, of whatever kind, as plain ones."""
    k, j, i = map(int, values)
    return k, j, i


EMPTY_BOX = Box((0, 0, 0), (0, 0, 0))


def bounding_box(mask_kji: NDArray[np.generic]) -> Box:
    """The smallest box around the non-zero voxels of a (K, J, I) array; :data:`EMPTY_BOX` if there are none."""
    mask = mask_kji if mask_kji.dtype == np.bool_ else mask_kji != 0
    # Whole slices laid over each other, byte by byte, are many times faster than looking along each axis.
    plane = np.bitwise_or.reduce(mask.view(np.uint8), axis=0)
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if not rows.size:
        return EMPTY_BOX
    j0, j1, i0, i1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    occupied = np.flatnonzero(mask[:, j0:j1, i0:i1].any(axis=(1, 2)))
    return Box((int(occupied[0]), j0, i0), (int(occupied[-1]) + 1, j1, i1))


def round_index(index_ijk: ArrayLike) -> NDArray[np.int64]:
    """The nearest voxel of each continuous index, halves upwards: ``floor(x + 0.5)``, shape unchanged.

    The rule is that of the prompts file, and the same on either side of zero. What is too far away for a whole
    number of 64 bits, infinity included, comes back as plus or minus 2**62.

    Raises:
        GeometryError: an index is not a number.
    """
    index = np.asarray(index_ijk, dtype=np.float64)
    if np.isnan(index).any():
        raise GeometryError("a position is not a number")
    return np.clip(np.floor(index + 0.5), -_FARTHEST, _FARTHEST).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Geometry:
    """An image grid in space.

    Attributes:
        ijk_to_ras: (4, 4) float64, read-only; takes a voxel index (i, j, k, 1) to mm in the image's own RAS.
            Oblique, permuted, flipped, sheared and anisotropic matrices are all ordinary.
        shape_kji: number of voxels along k, j, i; each at least 1.

    Raises:
        GeometryError: the matrix is not finite, not affine or not invertible, or the shape is not three
            positive whole numbers.
    """

    ijk_to_ras: NDArray[np.float64]
    shape_kji: Shape

    def __post_init__(self) -> None:
        matrix = np.array(self.ijk_to_ras, dtype=np.float64) + 0.0  # -0.0 becomes 0.0: equal grids, equal hashes
        _check_matrix(matrix)
        matrix.setflags(write=False)
        shape = tuple(self.shape_kji)
        if len(shape) != 3 or any(not n >= 1 or n % 1 for n in shape):
            raise GeometryError(f"an image needs three axes with at least one voxel each, not {shape}")
        shape = tuple(int(n) for n in shape)
        object.__setattr__(self, "ijk_to_ras", matrix)
        object.__setattr__(self, "shape_kji", shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return self.shape_kji == other.shape_kji and bool(np.array_equal(self.ijk_to_ras, other.ijk_to_ras))

    def __hash__(self) -> int:
        return hash((self.shape_kji, self.ijk_to_ras.tobytes()))

    @cached_property
    def ras_to_ijk(self) -> NDArray[np.float64]:
        """The inverse of ``ijk_to_ras``, (4, 4) float64, read-only."""
        inverse = np.linalg.inv(self.ijk_to_ras)
        inverse.setflags(write=False)
        return inverse

    @property
    def spacing_mm(self) -> Vector:
        """The distance between voxel centres along i, j and k, in mm."""
        i, j, k = (float(n) for n in np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0))
        return i, j, k

    @property
    def voxel_volume_mm3(self) -> float:
        """The volume of one voxel in mm^3; for a sheared grid less than the product of the spacings."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3])))

    def is_picture(self, named: bool) -> bool:
        """True for a grid in pixels: of what is ``named`` a picture, unless it is a stack that was given a spacing.

        Otherwise a single slice with voxels of 1 mm at the origin, as programs write what has neither size nor place.
        """
        if named:
            return self.shape_kji[0] == 1 or self.spacing_mm == (1, 1, 1)
        return self.shape_kji[0] == 1 and np.array_equal(np.abs(self.ijk_to_ras), np.eye(4))

    @cached_property
    def box(self) -> Box:
        """The box of every voxel."""
        return Box((0, 0, 0), self.shape_kji)

    def to_ras(self, index_ijk: ArrayLike) -> NDArray[np.float64]:
        """RAS positions in mm of voxel indices; (..., 3) in (i, j, k), (..., 3) out."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(index_ijk, np.float64) @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]

    def to_ijk(self, position_ras: ArrayLike) -> NDArray[np.float64]:
        """Continuous voxel indices (i, j, k) of RAS positions in mm; (..., 3) in, (..., 3) out."""
        # Whatever overflows is infinite or not a number, which callers tell from a place in the image.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(position_ras, np.float64) @ self.ras_to_ijk[:3, :3].T + self.ras_to_ijk[:3, 3]

    def nearest_voxel(self, position_ras: ArrayLike) -> NDArray[np.int64]:
        """The nearest voxel (i, j, k) of RAS positions in mm, inside the image or not; (..., 3)."""
        return round_index(self.to_ijk(position_ras))

    def match(self, other: "Geometry") -> "GridMatch | None":
        """Find the voxels of another grid among those of this one, continued beyond its borders.

        Order and direction of the other grid's axes do not matter, nor does its extent: a crop matches, too.

        Returns:
            None where a voxel of the other grid lies more than :data:`SAME_GRID_VOXELS` beside every voxel here.
        """
        steps = self.ras_to_ijk[:3, :3] @ other.ijk_to_ras[:3, :3]  # one voxel along each axis there, in voxels here
        is_single = np.array(other.shape_kji[::-1]) == 1
        steps[:, is_single] /= np.abs(steps[:, is_single]).max(axis=0)  # nobody sees how thick a single slice is
        axes = np.rint(steps)
        if not np.array_equal(np.abs(axes @ axes.T), np.eye(3)):
            return None
        corners_ijk = _corners(other.shape_kji)
        here = self.to_ijk(other.to_ras(corners_ijk))
        turned = corners_ijk @ axes.T
        first = round_index(here[0])
        if np.abs(here - first - turned).max() > SAME_GRID_VOXELS:
            return None
        source = np.abs(axes).argmax(axis=1)[::-1]
        start_kji = (first + turned.min(axis=0)).astype(np.int64)[::-1]
        shape = [other.shape_kji[2 - n] for n in source]
        return GridMatch(
            Box(as_shape(start_kji), as_shape(start_kji + shape)),
            as_shape(2 - source),
            tuple(n for n in range(3) if axes[2 - n].sum() < 0),
        )

    def almost_equals(self, other: "Geometry") -> bool:
        """True where each voxel of ``other`` lies within :data:`SAME_GRID_VOXELS` of that here with the same index."""
        match = self.match(other) if self.shape_kji == other.shape_kji else None
        return match is not None and match.is_same_order and match.box == self.box


@frozen
class GridMatch:
    """The place of one grid on another whose voxels it shares.

    Attributes:
        box: the voxels it covers, in the other's index; parts of it may lie outside of the other.
        order: the array axes of the one that run along k, j and i of the other.
        backwards: the array axes of the other along which the one runs the other way.
    """

    box: Box
    order: Shape
    backwards: tuple[int, ...]

    @property
    def is_same_order(self) -> bool:
        """True where both grids count their voxels along the same axes in the same directions."""
        return self.order == (0, 1, 2) and not self.backwards

    def turned(self, array_kji: NDArray[_Voxel]) -> NDArray[_Voxel]:
        """The voxels of the one, counted in the directions of the other, where they fill :attr:`box`; a view."""
        return np.flip(array_kji.transpose(self.order), self.backwards)


def _corners(shape_kji: Shape) -> NDArray[np.int64]:
    """The eight outermost voxels of a grid, (8, 3) in (i, j, k)."""
    k, j, i = (n - 1 for n in shape_kji)
    return np.array([(a, b, c) for a in (0, i) for b in (0, j) for c in (0, k)])


def _check_matrix(matrix: NDArray[np.float64]) -> None:
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise GeometryError("an image's matrix must be 4x4 and finite")
    if not np.array_equal(matrix[3], (0, 0, 0, 1)):
        raise GeometryError("an image's matrix must be affine: its last row is not 0 0 0 1")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if min(lengths) == 0 or abs(np.linalg.det(matrix[:3, :3] / lengths)) < _SMALLEST_CELL:
        raise GeometryError("an image's axes must span space: its matrix cannot be inverted")


def geometry_from_spacing(shape_kji: Sequence[int], spacing_mm: Vector = (1.0, 1.0, 1.0)) -> Geometry:
    """A grid along the RAS axes with its first voxel at the origin; spacing in mm along i, j, k."""
    k, j, i = shape_kji
    return Geometry(np.diag((*spacing_mm, 1.0)), (k, j, i))
