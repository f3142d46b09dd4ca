"""NIfTI headers, read by nibabel because ITK hides what they say: it drops shear, and prefers one matrix silently."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.nifti1 import Nifti1Header, Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Header, Nifti2Image, Nifti2Pair
from numpy.typing import NDArray

from ..errors import GeometryError, InputError
from ..imaging.geometry import Geometry
from .completeness import check_plausible, damaged, first_bytes

_LARGEST_OFFSET = 1 << 31  # of the voxels, in bytes; a header that says more is broken
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # metre and micrometre; everything else is taken for mm, as ITK does

# Cosine of the angle between two axes up to which they count as orthogonal (design D5).
_LARGEST_SHEAR = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class NiftiHeader:
    """The fields that count of a NIfTI-1, NIfTI-2 or Analyze header.

    Attributes:
        sizes: number of voxels along each axis, i first.
        voxels_path: the file with the voxels.
        offset: where they begin in it, in bytes.
        end_of_voxels: how many bytes it must hold.
        float_type: the type of the voxels in the file where it is a real one, otherwise None.
        spacing_mm: ``pixdim`` of the first three axes.
        sform, qform: (4, 4) float64 to RAS in mm, or None where the header's code says that it is not set.
        is_version_2: True for NIfTI-2, which ITK does not read.
    """

    sizes: tuple[int, ...]
    voxels_path: Path
    offset: int
    end_of_voxels: int
    float_type: np.dtype[np.floating] | None
    spacing_mm: tuple[float, float, float]
    sform: NDArray[np.float64] | None
    qform: NDArray[np.float64] | None
    is_version_2: bool

    @property
    def matrix(self) -> NDArray[np.float64] | None:
        """The matrix that counts: the sform where set, otherwise the qform."""
        return self.sform if self.sform is not None else self.qform


def read_header(path: Path) -> NiftiHeader | None:
    """Read the header of a NIfTI file or of its .hdr/.img pair; None for a file of another format.

    Raises:
        InputError: the compressed stream is damaged, the values are scaled by something that is no number, or begin
            where the header is.
    """
    header_path = _partner(path, "img", "hdr")
    if not header_path.is_file():
        return None
    head = first_bytes(header_path, Nifti2Header.sizeof_hdr)
    for kind in (Nifti1Header, Nifti2Header, AnalyzeHeader):
        # Analyze is NIfTI's predecessor: the same sizes, no magic, no matrix.
        if len(head) >= kind.sizeof_hdr and kind.may_contain_header(head):
            if kind is AnalyzeHeader and ".hdr" not in header_path.suffixes:
                return None
            return _parse(kind(head[: kind.sizeof_hdr], check=False), header_path)
    return None


def _partner(path: Path, old: str, new: str) -> Path:
    return path.with_name(re.sub(rf"\.{old}(\.gz)?$", rf".{new}\1", path.name))


def _parse(header: AnalyzeHeader, header_path: Path) -> NiftiHeader:
    is_nifti = isinstance(header, Nifti1Header)
    if is_nifti:
        _check_scale(header, header_path)
    is_single = is_nifti and bytes(header["magic"]).startswith(b"n+")
    scale = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0) if is_nifti else 1.0
    sizes = tuple(int(size) for size in header["dim"][1 : 1 + max(0, int(header["dim"][0]))])
    stated_offset = float(header["vox_offset"])
    smallest_offset = header.sizeof_hdr if is_single else 0
    if not smallest_offset <= stated_offset < _LARGEST_OFFSET:  # ITK would take the header itself for voxels
        raise InputError(f"{header_path.name}: its voxels cannot begin at byte {stated_offset:g}; save it again")
    i, j, k = (abs(float(length)) * scale for length in header["pixdim"][1:4])
    real = {16: np.float32, 64: np.float64}.get(int(header["datatype"]))
    return NiftiHeader(
        sizes=sizes,
        voxels_path=header_path if is_single else _partner(header_path, "hdr", "img"),
        offset=int(stated_offset),
        end_of_voxels=int(stated_offset) + math.prod(sizes) * int(header["bitpix"]) // 8,
        float_type=np.dtype(real).newbyteorder(header.endianness) if real is not None else None,
        spacing_mm=(i, j, k),
        sform=_sform(header, scale) if is_nifti else None,
        qform=_qform(header, scale) if is_nifti else None,
        is_version_2=isinstance(header, Nifti2Header),
    )


def _check_scale(header: Nifti1Header, path: Path) -> None:
    """Make sure that the values mean the same to ITK and to the format, where an intercept alone means nothing."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if (slope and math.isfinite(slope) and not math.isfinite(intercept)) or (not slope and intercept):
        raise InputError(f"{path.name}: its header scales the values by no number; save it again")


def _sform(header: Nifti1Header, scale: float) -> NDArray[np.float64] | None:
    matrix = np.array(header.get_sform(), np.float64)
    # Some programs set the code and leave the matrix zero; like ITK, take that for not set.
    is_set = header["sform_code"] > 0 and matrix[:3, :3].any()
    return np.diag((scale, scale, scale, 1.0)) @ matrix if is_set else None


def _qform(header: Nifti1Header, scale: float) -> NDArray[np.float64] | None:
    """Return the qform, also of headers whose rotation or voxel sizes are slightly wrong, as ITK does."""
    if header["qform_code"] <= 0:
        return None
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    bcd = [float(header[f"quatern_{letter}"]) for letter in "bcd"]
    for letter, value in zip("bcd", bcd, strict=True):
        header[f"quatern_{letter}"] = value / max(1.0, math.hypot(*bcd))
    return np.diag((scale, scale, scale, 1.0)) @ np.array(header.get_qform(), np.float64)


def read_voxels(path: Path, header: NiftiHeader) -> NDArray[np.generic]:
    """Read the voxels of a NIfTI file or pair without ITK, rescaled as its header says; (F, K, J, I, C).

    Raises:
        InputError: the file is cut off or damaged, or its values are no numbers.
    """
    try:
        pair, single = (Nifti2Pair, Nifti2Image) if header.is_version_2 else (Nifti1Pair, Nifti1Image)
        image = (pair if ".img" in path.suffixes or ".hdr" in path.suffixes else single).load(path)
        voxels = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise damaged(path) from error
    i, j, k, frames, channels = (*voxels.shape, 1, 1, 1, 1)[:5]
    ordered = voxels.reshape(i, j, k, frames, channels).transpose(3, 2, 1, 0, 4)
    return np.ascontiguousarray(ordered, voxels.dtype.newbyteorder("="))


def check_header(header: NiftiHeader, path: Path) -> None:
    """Make sure that the file can be read as its header says.

    Raises:
        InputError: there is no voxel, the file that goes with a header is missing, or it is far too short.
        GeometryError: the matrix that counts is sheared, or not finite.
    """
    if min(header.sizes, default=0) < 1:
        raise InputError(f"{path.name} holds no voxels: its header says {' x '.join(map(str, header.sizes))}")
    if not header.voxels_path.is_file():
        raise InputError(f"{path.name} has no voxels with it: {header.voxels_path.name} is missing")
    if not np.isfinite(header.spacing_mm if header.matrix is None else (*header.matrix.flat, *header.spacing_mm)).all():
        raise GeometryError(f"{path.name}: the image's matrix or voxel size is not finite; its header is wrong")
    if header.matrix is not None and is_sheared(header.matrix):
        raise ShearedError(path)
    check_plausible(header.voxels_path, header.end_of_voxels)


def is_sheared(matrix: NDArray[np.float64]) -> bool:
    """True where two axes of a (4, 4) matrix are not at right angles, which NIfTI through ITK cannot hold."""
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0).clip(min=np.finfo(float).tiny)
    cosines = (axes.T @ axes)[np.triu_indices(3, 1)]
    return bool(np.abs(cosines).max() > _LARGEST_SHEAR)


class ShearedError(GeometryError):
    """The axes of a NIfTI file are not orthogonal."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path.name}: the image's matrix is sheared (its axes are not at right angles), which is not supported in "
            "NIfTI; resample it to an orthogonal grid, or save it as NRRD"
        )


def check_placement(header: NiftiHeader, geometry: Geometry, path: Path) -> tuple[str, ...]:
    """Return a note on the matrix that was used, where sform and qform place the image differently.

    Args:
        header: the file's header.
        geometry: the grid that was read.
        path: the file, for messages.

    Raises:
        GeometryError: the grid is neither the sform nor the qform.
    """
    agrees = {
        name: Geometry(matrix, geometry.shape_kji).almost_equals(geometry)
        for name, matrix in {"sform": header.sform, "qform": header.qform}.items()
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
