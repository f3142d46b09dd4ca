"""Label maps and values to files, by SimpleITK: replaced atomically, read back and compared."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..errors import FoundationSegError, InputError, OutputError
from ..imaging.geometry import Geometry
from .completeness import quiet
from .nifti import is_sheared
from .output_files import output_format, replace_atomically
from .raw import swap_lps_ras
from .segmentations import read_label_map


def write_label_map(path: Path, labels_kji: NDArray[np.generic], geometry: Geometry) -> None:
    """Write labels to a .nii.gz or .nrrd file, replacing it atomically, in the smallest unsigned type that fits.

    Args:
        path: the file.
        labels_kji: (K, J, I) whole numbers from 0 up.
        geometry: their grid; NIfTI stores it in single precision.

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
        _write(path, temporary, stored, geometry)
        try:
            written, grid = read_label_map(temporary)
        except FoundationSegError as error:
            raise _unwritable(path) from error
        # ITK reports no full disk for NIfTI, and turns axes that are not quite orthogonal.
        if not (np.array_equal(written, labels_kji) and grid.almost_equals(geometry)):
            raise OutputError(f"{path.name}: this format cannot hold the label map exactly; write .nrrd instead")


def write_values(path: Path, values_kji: NDArray[np.float32], geometry: Geometry) -> None:
    """Write real numbers (K, J, I) to a .nii.gz or .nrrd file, replacing it atomically.

    Raises:
        OutputError: the ending is another one, the grid is sheared and the format is NIfTI, or the file cannot be
            written. Nothing is written then.
    """
    check_grid(path, geometry)
    with replace_atomically(path) as temporary:
        _write(path, temporary, np.ascontiguousarray(values_kji, np.float32), geometry)


def check_grid(path: Path, geometry: Geometry) -> None:
    """Make sure that an array on this grid can be written in the format that the file's name asks for.

    Raises:
        OutputError: it cannot; the message names a format that can.
    """
    kind = output_format(path)
    if kind == "seg.nrrd":
        raise OutputError(f"{path.name}: this is the ending of a segmentation; voxels are written to .nii.gz or .nrrd")
    if kind == "nii.gz" and is_sheared(geometry.ijk_to_ras):
        raise OutputError(
            f"{path.name}: the image's grid is sheared, which NIfTI cannot hold; write .seg.nrrd or .nrrd instead"
        )


def _write(path: Path, temporary: Path, voxels_kji: NDArray[np.generic], geometry: Geometry) -> None:
    image = sitk.GetImageFromArray(voxels_kji)
    matrix = swap_lps_ras(geometry.ijk_to_ras)
    image.SetSpacing(geometry.spacing_mm)
    image.SetDirection((matrix[:3, :3] / geometry.spacing_mm).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    with quiet():
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise _unwritable(path) from error


def _unwritable(path: Path) -> OutputError:
    return OutputError(f"{path.name} cannot be written; is there space left?")


def _smallest_type(labels: NDArray[np.generic]) -> np.dtype[np.unsignedinteger]:
    low, high = int(labels.min()), int(labels.max())
    for kind in (np.uint8, np.uint16, np.uint32):
        if low >= 0 and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    raise InputError(f"labels must be from 0 to 4294967295, not from {low} to {high}")
