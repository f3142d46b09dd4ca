"""NIfTI headers, read here because ITK hides what they say: it drops shear, and prefers one matrix silently.

Layout: nifti1.h, https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h.
"""

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError, InputError
from ..core.geometry import Geometry
from .completeness import check_plausible, first_bytes

_HEADER_BYTES = 348
_NIFTI2_HEADER_BYTES = 540
_LARGEST_OFFSET = 1 << 31  # of the voxels, in bytes; a header that says more is broken
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # metre and micrometre; everything else is taken for mm, as ITK does

# Cosine of the angle between two axes up to which they count as orthogonal (design D5).
_LARGEST_SHEAR = 1e-3
# How far sform and qform may disagree before the user is told, in voxels.
_SAME_PLACE_VOXELS = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class NiftiHeader:
    """What counts of a NIfTI-1 header.

    Attributes:
        sizes: number of voxels along each axis, i first.
        voxels_path: the file with the voxels.
        offset: where they begin in it, in bytes.
        end_of_voxels: how many bytes it must hold.
        spacing_mm: ``pixdim`` of the first three axes.
        sform, qform: (4, 4) float64 to RAS in mm, or None where the header's code says that it is not set.
    """

    sizes: tuple[int, ...]
    voxels_path: Path
    offset: int
    end_of_voxels: int
    spacing_mm: tuple[float, float, float]
    sform: NDArray[np.float64] | None
    qform: NDArray[np.float64] | None

    @property
    def matrix(self) -> NDArray[np.float64] | None:
        """The matrix that counts: the sform where set, otherwise the qform."""
        return self.sform if self.sform is not None else self.qform


def read_header(path: Path) -> NiftiHeader | None:
    """The header of a NIfTI-1 file or of its .hdr/.img pair; None for a file of another format.

    Raises:
        InputError: the file is NIfTI-2, which ITK does not read, or its compressed stream is damaged.
    """
    header_path = _partner(path, "img", "hdr")
    if not header_path.is_file():
        return None
    head = first_bytes(header_path, _HEADER_BYTES)
    order = next((mark for mark in "<>" if _integer(head, mark) == _HEADER_BYTES), None)
    if any(_integer(head, mark) == _NIFTI2_HEADER_BYTES for mark in "<>") and head[4:8] in (b"n+2\0", b"ni2\0"):
        raise InputError(f"{path.name} is NIfTI-2, which is not supported; save it as NIfTI-1 (.nii.gz) or NRRD")
    magic = head[344:348]
    is_nifti = magic in (b"n+1\0", b"ni1\0")
    is_analyze = ".hdr" in header_path.suffixes  # the predecessor: the same sizes, no magic, no matrix
    if order is None or len(head) < _HEADER_BYTES or not (is_nifti or is_analyze):
        return None
    voxels_path = path if magic == b"n+1\0" else _partner(header_path, "hdr", "img")
    return _parse(head, order, voxels_path, is_nifti)


def _partner(path: Path, old: str, new: str) -> Path:
    return path.with_name(re.sub(rf"\.{old}(\.gz)?$", rf".{new}\1", path.name))


def _integer(head: bytes, order: str) -> int:
    return struct.unpack_from(order + "i", head)[0] if len(head) >= 4 else 0


def _parse(head: bytes, order: str, voxels_path: Path, is_nifti: bool) -> NiftiHeader:
    count, *sizes = struct.unpack_from(order + "8h", head, 40)
    sizes = sizes[: max(0, count)]
    bits = struct.unpack_from(order + "h", head, 72)[0]
    pixdim = struct.unpack_from(order + "8f", head, 76)
    stated_offset = struct.unpack_from(order + "f", head, 108)[0]
    offset = int(stated_offset) if 0 <= stated_offset < _LARGEST_OFFSET else 0
    scale = _MM_PER_UNIT.get(head[123] & 7, 1.0) if is_nifti else 1.0
    spacing = tuple(abs(length) * scale for length in pixdim[1:4])
    qform_code, sform_code = struct.unpack_from(order + "2h", head, 252) if is_nifti else (0, 0)
    sform = np.array(struct.unpack_from(order + "12f", head, 280)).reshape(3, 4) * scale
    placed = struct.unpack_from(order + "6f", head, 256)
    qform = _from_quaternion(placed[:3], spacing, np.array(placed[3:]) * scale, flipped=pixdim[0] < 0)
    return NiftiHeader(
        sizes=tuple(sizes),
        voxels_path=voxels_path,
        offset=offset,
        end_of_voxels=offset + math.prod(sizes) * bits // 8,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        # Some programs set the code and leave the matrix zero; like ITK, take that for not set.
        sform=_affine(sform[:, :3], sform[:, 3]) if sform_code > 0 and sform[:, :3].any() else None,
        qform=qform if qform_code > 0 else None,
    )


def _affine(linear: NDArray[np.float64], origin: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = origin
    return matrix


def _from_quaternion(
    bcd: tuple[float, ...], spacing: tuple[float, ...], origin: NDArray[np.float64], flipped: bool
) -> NDArray[np.float64]:
    """The qform as a matrix ("METHOD 2" of nifti1.h)."""
    b, c, d = bcd
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    return _affine(rotation * (spacing[0], spacing[1], -spacing[2] if flipped else spacing[2]), origin)


def check_header(header: NiftiHeader, path: Path) -> None:
    """Make sure that ITK can be trusted with the file.

    Raises:
        InputError: there is no voxel, the file that goes with a header is missing, or it is far too short.
        GeometryError: the matrix that counts is sheared, or not finite.
    """
    if min(header.sizes, default=0) < 1:
        raise InputError(f"{path.name} holds no voxels: its header says {' x '.join(map(str, header.sizes))}")
    if not header.voxels_path.is_file():
        raise InputError(f"{path.name} has no voxels with it: {header.voxels_path.name} is missing")
    if header.matrix is not None and not np.isfinite(header.matrix).all():
        raise GeometryError(f"{path.name}: the image's matrix is not finite; its header is wrong")
    if header.matrix is not None and is_sheared(header.matrix):
        raise sheared(path)
    check_plausible(header.voxels_path, header.end_of_voxels)


def is_sheared(matrix: NDArray[np.float64]) -> bool:
    """True where two axes of a (4, 4) matrix are not at right angles, which NIfTI through ITK cannot hold."""
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0).clip(min=np.finfo(float).tiny)
    cosines = (axes.T @ axes)[np.triu_indices(3, 1)]
    return bool(np.abs(cosines).max() > _LARGEST_SHEAR)


def sheared(path: Path) -> GeometryError:
    """The error for a NIfTI file whose axes are not orthogonal."""
    return GeometryError(
        f"{path.name}: the image's matrix is sheared (its axes are not at right angles), which is not supported in "
        "NIfTI; resample it to an orthogonal grid, or save it as NRRD"
    )


def check_placement(header: NiftiHeader, geometry: Geometry, path: Path) -> tuple[str, ...]:
    """Notes on which matrix ITK used, where sform and qform place the image differently.

    Args:
        header: the file's header.
        geometry: what ITK made of it.
        path: the file, for messages.

    Raises:
        GeometryError: ITK's grid is neither the sform nor the qform.
    """
    matrices = {"sform": header.sform, "qform": header.qform}
    agrees = {
        name: Geometry(matrix, geometry.shape_kji).almost_equals(geometry, _SAME_PLACE_VOXELS)
        for name, matrix in matrices.items()
        if matrix is not None
    }
    if all(agrees.values()):
        return ()
    if not any(agrees.values()):
        sizes = " x ".join(f"{length:g}" for length in header.spacing_mm)
        raise GeometryError(
            f"{path.name}: the header contradicts itself: its matrix and its voxel size of {sizes} mm do not agree; "
            "save the image again with a program that writes both"
        )
    used = next(name for name, same in agrees.items() if same)
    return (f"the file's sform and qform place the image differently; the {used} was used, as Slicer does",)
