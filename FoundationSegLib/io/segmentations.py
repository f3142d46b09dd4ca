"""Label maps and segmentations in files: told from images, their segments read as masks, label maps and values written.

NIfTI is written by nibabel and NRRD by SimpleITK; files are replaced atomically, read back and compared.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..catalog.label_sets import listed
from ..errors import FoundationSegError, GeometryError, InputError, OutputError
from ..folders import output_format, replace_atomically
from ..imaging.geometry import Geometry
from ..imaging.volume import IN_PIXELS
from .completeness import quiet
from .dicom_segmentation import DicomSegmentation, read_dicom_segmentation
from .nifti import is_sheared
from .raw import RawImage, Tag, read_raw, swap_lps_ras

_SEGMENT_ID = re.compile(r"Segment(\d+)_ID")

# Of three neighbours in a row that are not all equal, the part that has three different values. Measured: at most
# 0.035 in label maps (42 organs at 3 mm), at least 0.43 in images (8-bit chest X-rays, black and white CT slices).
_MOST_MIXED = 0.15
# Enough rows to judge by; an image is then told after its first slices.
_ENOUGH = 200_000
# JPEG smears a black and white mask by so much.
_SMEAR = 16
# More values than these are no labels of a handful of organs: repeated rows and columns, as in an enlarged picture,
# are then taken once.
_FEW_VALUES = 32


def is_segmentation(tags: Mapping[str, str]) -> bool:
    """True for a DICOM segmentation object and for a segmentation that Slicer wrote."""
    return tags.get(Tag.MODALITY) == "SEG" or any(_SEGMENT_ID.fullmatch(name) for name in tags)


def looks_like_label_map(array_kji: NDArray[np.generic]) -> bool:
    """True where voxels are whole numbers from 0 up and neighbours that differ lie between patches of equal value.

    That is: of three voxels in a row that are not all equal, hardly ever do all three differ. In an image, values
    change from voxel to voxel; in a label map there is one step from label to label.

    Args:
        array_kji: (K, J, I), any number type. A mask that JPEG has smeared counts as black and white.
    """
    if not (array_kji.min() == 0 and array_kji.max() > 0 and _is_whole(array_kji)):
        return False
    smeared = _is_smeared_mask(array_kji)
    planes = array_kji > 127 if smeared else array_kji
    if not _in_patches(planes):
        return False
    return not _has_many_values(array_kji) or smeared or _in_patches(planes, once=True)


def _is_smeared_mask(array: NDArray[np.generic]) -> bool:
    """True for 8 bits that are nearly black or nearly white everywhere, and somewhere each."""
    if array.dtype != np.uint8 or array.max() < 255 - _SMEAR:
        return False
    return not ((array > _SMEAR) & (array < 255 - _SMEAR)).any()


def _is_whole(array: NDArray[np.generic]) -> bool:
    if array.dtype.kind in "iu":
        return True
    return all(bool(np.isfinite(plane).all() and (plane == np.trunc(plane)).all()) for plane in array)


def _has_many_values(array_kji: NDArray[np.generic]) -> bool:
    values: set[float] = set()
    for plane in array_kji:
        values.update(np.unique(plane).tolist())
        if len(values) > _FEW_VALUES:
            return True
    return False


def _in_patches(array_kji: NDArray[np.generic], once: bool = False) -> bool:
    """True where three different values in a row are rare; ``once`` takes repeated rows and columns once."""
    changing = mixed = 0
    for plane in array_kji:
        rows = _without_repeats(_without_repeats(plane).T) if once else plane
        for lines in (rows, rows.T):
            first, second, third = lines[:, :-2], lines[:, 1:-1], lines[:, 2:]
            left, right = first != second, second != third
            changing += int(np.count_nonzero(left | right))
            mixed += int(np.count_nonzero(left & right & (first != third)))
        if changing > _ENOUGH:
            break
    return changing > 0 and mixed <= _MOST_MIXED * changing


def _without_repeats(plane: NDArray[np.generic]) -> NDArray[np.generic]:
    new = np.ones(len(plane), np.bool_)
    new[1:] = (plane[1:] != plane[:-1]).any(axis=1)
    return plane[new]


def read_label_map(path: Path) -> tuple[NDArray[np.generic], Geometry]:
    """Read the labels in a file of any format that SimpleITK reads, and their grid.

    Returns:
        Labels (K, J, I) of an integer type, 0 for background, and the geometry. Whole numbers that the file stores
        as real ones are converted; a picture becomes one slice.

    Raises:
        InputError: unreadable, not whole numbers, several frames, several values for each voxel, a DICOM
            segmentation object whose segments overlap.
        GeometryError: no regular grid.
    """
    raw = read_raw(path)
    if is_dicom_segmentation(raw):
        return _dicom_labels(path)
    return labels_of(raw, path), raw.geometry


def labels_of(raw: RawImage, path: Path) -> NDArray[np.generic]:
    """Return the (K, J, I) voxels of an image with one value for each voxel.

    Colour pictures whose channels are equal count as such.

    Raises:
        InputError: it has frames, layers or colours.
    """
    frames, channels = raw.voxels.shape[0], raw.voxels.shape[4]
    if frames > 1 and is_segmentation(raw.tags):
        raise InputError(f"{path.name} has overlapping segments in {frames} layers: it is no label map; name a segment")
    if frames > 1:
        raise InputError(f"{path.name} has {frames} frames (4-D); a label map must have one")
    colours = raw.voxels[0, ..., : min(channels, 3)]
    if channels not in (1, 3, 4) or not (colours == colours[..., :1]).all():
        raise InputError(f"{path.name} has {channels} values for each voxel; a label map must have one")
    voxels = np.ascontiguousarray(colours[..., 0])
    if voxels.dtype.kind in "iu":
        return voxels
    if not _is_whole(voxels):
        raise InputError(f"{path.name} is no label map: its values are not whole numbers; set a threshold first")
    return voxels.astype(np.int32 if np.abs(voxels).max() < 2**31 else np.int64)


def is_dicom_segmentation(raw: RawImage) -> bool:
    """True for a DICOM segmentation object, whose frames ITK piles up regardless of segment."""
    return raw.tags.get(Tag.MODALITY) == "SEG"


def _dicom_labels(path: Path) -> tuple[NDArray[np.generic], Geometry]:
    """Number the segments of a DICOM segmentation object from 1, in its order."""
    segmentation = read_dicom_segmentation(path)
    labels = np.zeros(segmentation.geometry.shape_kji, np.uint16)
    for number, mask in enumerate(segmentation.masks.values(), start=1):
        if labels[mask].any():
            raise InputError(f"{path.name} has overlapping segments: it is no label map; name a segment")
        labels[mask] = number
    return labels, segmentation.geometry


def _dicom_segment(segmentation: DicomSegmentation, path: Path, name: str) -> NDArray[np.bool_]:
    if name not in segmentation.masks:
        raise InputError(f"{path.name} has no segment {name!r}; it has: {listed(list(segmentation.masks))}")
    return segmentation.masks[name]


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment of a .seg.nrrd: its name, its layer, and its label value in that layer."""

    name: str
    layer: int
    label: int


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A file with segments, which has been read.

    Attributes:
        geometry: its grid, which need not be that of the image.
        names: lists its segments, of a label map the numbers; raises an InputError where there are none, or it is an
            image.
        mask: makes the mask (K, J, I) of a segment by its name or, in a label map, its number. A label map with a
            single label gives that one under any name that is no number. Raises an InputError where there is no such
            segment; the message names those that there are.
    """

    geometry: Geometry
    names: Callable[[], tuple[str, ...]]
    mask: Callable[[str], NDArray[np.bool_]]


def open_segments(path: Path) -> SegmentFile:
    """Read a segmentation that Slicer wrote, with shared labels or in overlapping layers; a DICOM one; or a label map.

    Raises:
        InputError: unreadable.
        GeometryError: no regular grid.
    """
    raw = read_raw(path)
    if is_dicom_segmentation(raw):
        segmentation = read_dicom_segmentation(path)
        names = partial(_present, list(segmentation.masks), path)
        return SegmentFile(segmentation.geometry, names, partial(_dicom_segment, segmentation, path))
    if is_segmentation(raw.tags):
        stored = [segment.name for segment in stored_segments(raw.tags)]
        return SegmentFile(raw.geometry, partial(_present, stored, path), partial(_segment, raw, path))
    labels = labels_of(raw, path)
    values = np.unique(labels).tolist()
    return SegmentFile(
        raw.geometry, partial(_label_numbers, labels, values, path), partial(_label, labels, values, path)
    )


def read_mask_prompt(path: Path, segment_name: str) -> tuple[NDArray[np.bool_], Geometry]:
    """Read the voxels of one segment of a file, and the file's grid. Raises as :class:`SegmentFile` says."""
    file = open_segments(path)
    return file.mask(segment_name), file.geometry


def segment_names(path: Path) -> tuple[str, ...]:
    """List the names of the segments of a file. Raises as :class:`SegmentFile` says."""
    return open_segments(path).names()


def _present(names: Sequence[str], path: Path) -> tuple[str, ...]:
    if not names:
        raise InputError(f"{path.name} has no segment")
    return tuple(names)


def _label_numbers(labels_kji: NDArray[np.generic], values: Sequence[int], path: Path) -> tuple[str, ...]:
    """Return the labels of a label map; an array without negative and with only a few values is taken for one."""
    if values[0] < 0 or (len(values) > _FEW_VALUES and not looks_like_label_map(labels_kji)):
        raise InputError(f"{path.name} is an image, not a label map; its values are no segments")
    return _present([str(value) for value in values if value], path)


def _segment(raw: RawImage, path: Path, name: str) -> NDArray[np.bool_]:
    if "ractional" in raw.tags.get("Segmentation_MasterRepresentation", ""):
        raise InputError(f"{path.name} holds fractional segments; save it with binary label maps")
    stored = stored_segments(raw.tags)
    fitting = [segment for segment in stored if segment.name == name]
    if not fitting:
        names = listed([segment.name for segment in stored])
        raise InputError(f"{path.name} has no segment {name!r}; it has: {names}")
    if len(fitting) > 1:
        raise InputError(f"{path.name} has {len(fitting)} segments called {name!r}; rename them")
    layers = np.moveaxis(raw.voxels, -1, 1).reshape(-1, *raw.voxels.shape[1:4])
    if fitting[0].layer >= len(layers):
        raise InputError(f"{path.name} is damaged: the segment {name!r} lies in a layer that is missing")
    return layers[fitting[0].layer] == fitting[0].label


def stored_segments(tags: Mapping[str, str]) -> tuple[StoredSegment, ...]:
    """List the segments that the header of a .seg.nrrd names, in its order.

    Files from before Slicer 4.11 name neither layer nor label: each segment has a layer of its own, with label 1.
    """
    numbers = sorted(int(match[1]) for match in map(_SEGMENT_ID.fullmatch, tags) if match)
    return tuple(
        StoredSegment(
            name=tags.get(f"Segment{n}_Name", tags[f"Segment{n}_ID"]),
            layer=_number(tags.get(f"Segment{n}_Layer", ""), n),
            label=_number(tags.get(f"Segment{n}_LabelValue", ""), 1),
        )
        for n in numbers
    )


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() else otherwise


def _label(labels_kji: NDArray[np.generic], values: Sequence[int], path: Path, name: str) -> NDArray[np.bool_]:
    present = [label for label in values if label]
    if name.isdecimal() and int(name) in present:
        return labels_kji == int(name)
    if len(present) == 1 and not name.isdecimal():
        return labels_kji == present[0]
    names = listed(present) or "none"
    raise InputError(f"{path.name} has no label {name!r}; it has: {names}")


# Files written


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
