"""Label maps and values to files: NIfTI by nibabel, NRRD by SimpleITK; replaced atomically, read back and compared."""

from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..errors import FoundationSegError, GeometryError, InputError, OutputError
from ..folders import output_format, replace_atomically
from ..imaging.geometry import Geometry
from ..imaging.volume import IN_PIXELS
from .completeness import quiet
from .nifti import is_sheared
from .raw import read_raw, swap_lps_ras
from .segmentations import read_label_map


def write_label_map(path: Path, labels_kji: NDArray[np.generic], geometry: Geometry, in_pixels: bool = False) -> None:
    """Write labels to a .nii.gz or .nrrd file, replacing it atomically, in the smallest unsigned type that fits.

    Args:
        path: the file.
        labels_kji: (K, J, I) whole numbers from 0 up.
        geometry: their grid; NIfTI stores it in single precision.
        in_pixels: True for those of a picture, whose grid is in no millimetres: the file names no unit.

    Raises:
        OutputError: the ending is another one, the grid is sheared and the format is NIfTI, or the file cannot be
            written. Nothing is written then; what was written has been read back and compared.
        InputError: the labels are not whole numbers from 0 to 4294967295, or do not fit the grid.
    """
    check_grid(path, geometry)
    if labels_kji.dtype.kind not in "iu" or labels_kji.shape != geometry.shape_kji:
        raise InputError(
            f"labels must be whole numbers on the grid {geometry.shape_kji}, not {labels_kji.dtype} {labels_kji.shape}"
        )
    stored = labels_kji.astype(_smallest_type(labels_kji))
    with replace_atomically(path) as temporary:
        _write(path, temporary, stored, geometry, in_pixels)
        try:
            written, grid = read_label_map(temporary)
        except FoundationSegError as error:
            raise _unwritable(path) from error
        if not (np.array_equal(written, labels_kji) and grid.almost_equals(geometry)):
            raise OutputError(f"{path.name}: this format cannot hold the label map exactly; write .nrrd instead")


def write_values(path: Path, values_kji: NDArray[np.float32], geometry: Geometry, in_pixels: bool = False) -> None:
    """Write real numbers (K, J, I) to a .nii.gz or .nrrd file as :func:`write_label_map` does, replacing it atomically.

    Raises:
        OutputError: the ending is another one, the grid is sheared and the format is NIfTI, or the file cannot be
            written. Nothing is written then.
    """
    check_grid(path, geometry)
    with replace_atomically(path) as temporary:
        _write(path, temporary, np.ascontiguousarray(values_kji, np.float32), geometry, in_pixels)


def check_grid(path: Path, geometry: Geometry) -> None:
    """Make sure that an array on this grid can be written in the format that the file's name asks for.

    Raises:
        OutputError: it cannot; the message names a format that can.
    """
    kind = output_format(path)
    if kind in ("seg.nrrd", "dcm"):
        raise OutputError(f"{path.name}: this is the ending of a segmentation; voxels are written to .nii.gz or .nrrd")
    if kind == "nii.gz" and is_sheared(geometry.ijk_to_ras):
        raise OutputError(
            f"{path.name}: the image's grid is sheared, which NIfTI cannot hold; write .seg.nrrd or .nrrd instead"
        )
    if kind == "nii.gz" and not _fits_nifti(geometry):
        raise OutputError(
            f"{path.name}: NIfTI cannot hold the image's grid exactly enough; write .seg.nrrd or .nrrd instead"
        )


def _fits_nifti(geometry: Geometry) -> bool:
    """Try with the first voxels, since NIfTI holds the grid in single precision and ITK refuses some matrices."""
    first = np.zeros([min(size, 2) for size in geometry.shape_kji], np.uint8)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "grid.nii.gz"
        _write_nifti(path, first, geometry, "mm")
        try:
            stored = read_raw(path)
        except GeometryError:
            return False
    return Geometry(stored.ijk_to_ras, geometry.shape_kji).almost_equals(geometry)


def _write(path: Path, temporary: Path, voxels_kji: NDArray[np.generic], geometry: Geometry, in_pixels: bool) -> None:
    if output_format(path) == "nii.gz":
        _write_nifti(temporary, voxels_kji, geometry, "unknown" if in_pixels else "mm")
        return
    image = sitk.GetImageFromArray(voxels_kji)
    matrix = swap_lps_ras(geometry.ijk_to_ras)
    image.SetSpacing(geometry.spacing_mm)
    image.SetDirection((matrix[:3, :3] / geometry.spacing_mm).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    if in_pixels:
        image.SetMetaData(IN_PIXELS, "1")
    with quiet():
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise _unwritable(path) from error


def _write_nifti(path: Path, voxels_kji: NDArray[np.generic], geometry: Geometry, unit: str) -> None:
    """Write the grid as it is as the sform; ITK would turn axes that are not quite orthogonal, for the qform's sake."""
    image = nibabel.Nifti1Image(voxels_kji.T, geometry.ijk_to_ras)
    image.set_sform(geometry.ijk_to_ras, code=1)
    image.set_qform(geometry.ijk_to_ras, code=1)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)


def _unwritable(path: Path) -> OutputError:
    return OutputError(f"{path.name} cannot be written: is the folder still there, and is there room on the disk?")


def _smallest_type(labels: NDArray[np.generic]) -> np.dtype[np.unsignedinteger]:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > np.iinfo(np.uint32).max:
        raise InputError(f"labels must be from 0 to 4294967295, not from {low} to {high}")
    return np.min_scalar_type(high)
