"""Label maps to files."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..core.errors import FoundationSegError, InputError, OutputError
from ..core.geometry import Geometry
from .atomic import replace_atomically
from .formats import output_format
from .label_maps import read_label_map
from .nifti import is_sheared
from .quiet import quiet
from .raw import swap_lps_ras


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
    kind = output_format(path)
    if kind == "seg.nrrd":
        raise OutputError(f"{path.name}: this is the ending of a segmentation; a label map is .nii.gz or .nrrd")
    _require_grid(path, geometry)
    image = _image(labels_kji, geometry)
    with replace_atomically(path) as temporary, quiet():
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            written, grid = read_label_map(temporary)
        except (RuntimeError, FoundationSegError) as error:
            raise OutputError(f"{path.name} cannot be written; is there space left?") from error
        # ITK reports no full disk for NIfTI, and turns axes that are not quite orthogonal.
        if not (np.array_equal(written, labels_kji) and grid.almost_equals(geometry)):
            raise OutputError(f"{path.name}: this format cannot hold the label map exactly; write .nrrd instead")


def write_values(path: Path, values_kji: NDArray[np.float32], geometry: Geometry) -> None:
    """Write real numbers to a .nii.gz or .nrrd file, replacing it atomically.

    Args:
        path: the file.
        values_kji: (K, J, I).
        geometry: their grid; NIfTI stores it in single precision.

    Raises:
        OutputError: the ending is another one, the grid is sheared and the format is NIfTI, or the file cannot be
            written. Nothing is written then.
    """
    if output_format(path) == "seg.nrrd":
        raise OutputError(f"{path.name}: this is the ending of a segmentation; values are written to .nii.gz or .nrrd")
    _require_grid(path, geometry)
    image = _placed(sitk.GetImageFromArray(np.ascontiguousarray(values_kji, np.float32)), geometry)
    with replace_atomically(path) as temporary, quiet():
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OutputError(f"{path.name} cannot be written; is there space left?") from error


def _require_grid(path: Path, geometry: Geometry) -> None:
    if output_format(path) == "nii.gz" and is_sheared(geometry.ijk_to_ras):
        raise OutputError(f"{path.name}: the image's grid is sheared, which NIfTI cannot hold; write .nrrd instead")


def _image(labels_kji: NDArray[np.generic], geometry: Geometry) -> sitk.Image:
    if labels_kji.dtype.kind not in "iu" or labels_kji.shape != geometry.shape_kji:
        raise InputError(
            f"labels must be whole numbers on the grid {geometry.shape_kji}, not {labels_kji.dtype} {labels_kji.shape}"
        )
    return _placed(sitk.GetImageFromArray(labels_kji.astype(_smallest_type(labels_kji))), geometry)


def _placed(image: sitk.Image, geometry: Geometry) -> sitk.Image:
    matrix = swap_lps_ras(geometry.ijk_to_ras)
    image.SetSpacing(geometry.spacing_mm)
    image.SetDirection((matrix[:3, :3] / geometry.spacing_mm).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    return image


def _smallest_type(labels: NDArray[np.generic]) -> np.dtype[np.unsignedinteger]:
    low, high = int(labels.min()), int(labels.max())
    for kind in (np.uint8, np.uint16, np.uint32):
        if low >= 0 and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    raise InputError(f"labels must be from 0 to 4294967295, not from {low} to {high}")
