"""Files and DICOM folders to volumes: one image, grey or colour, in RAS."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..folders import image_name
from ..imaging.volume import Volume
from .dicom import choose_series, find_series, read_file, read_series
from .raw import RawImage, Tag
from .segmentations import is_segmentation, looks_like_label_map


def read_volume(path: Path, *, series: str | None = None, frame: int | None = None) -> Volume:
    """Read the image in a file that SimpleITK reads, or in a DICOM folder.

    Voxels keep their type; DICOM's rescaling is applied and MONOCHROME1 inverted, so that high is bright. A picture
    becomes one slice. The notes of the volume tell what was changed or assumed.

    Args:
        path: the file or folder.
        series: in a DICOM folder with several series, which one: a number of the list in the error message (from 1),
            a series UID, or an end of one.
        frame: of an image with several frames (4-D), which one, from 0.

    Raises:
        InputError: no such file, unreadable, damaged, a label map or segmentation, several series or frames and no
            choice, a choice where there is nothing to choose.
        GeometryError: no regular grid: uneven slices, a sheared NIfTI matrix.
    """
    return _volume(_read(path, series), path, frame)


def read_frames(path: Path, *, series: str | None = None) -> tuple[Volume, ...]:
    """Read all frames of an image with several (4-D), in order. Raises as :func:`read_volume`."""
    raw = _read(path, series)
    return tuple(_volume(raw, path, frame) for frame in range(raw.voxels.shape[0]))


def _volume(raw: RawImage, path: Path, frame: int | None) -> Volume:
    name = image_name(path) if path.is_file() else raw.tags.get(Tag.MODALITY) or "dicom"
    source = path.name if path.is_file() else "the series"
    if is_segmentation(raw.tags):
        raise InputError(f"{source} is a segmentation, not an image; give the image that it was drawn on")
    voxels, frame_notes = _choose_frame(raw.voxels, frame, source)
    array, colour_notes = grey_or_colour(voxels, source)
    if not raw.is_dicom and array.ndim == 3 and looks_like_label_map(array):
        raise InputError(
            f"{source} is a label map, not an image: whole numbers from 0 up, in patches of equal value; "
            "give the image that it was drawn on"
        )
    inversion = ("MONOCHROME1: the values are inverted, so that high is bright",) if is_inverted(raw.tags) else ()
    notes = (*raw.notes, *frame_notes, *colour_notes, *inversion, *_spacing_notes(raw))
    modality, window = raw.tags.get(Tag.MODALITY) or None, display_window(raw.tags)
    sides, part = _sides(raw), raw.tags.get(Tag.BODY_PART, "").strip()
    return Volume(array, raw.geometry, modality, window, name, notes, _is_in_pixels(raw), sides, part)


def _read(path: Path, series: str | None) -> RawImage:
    if path.is_dir():
        return read_series(choose_series(find_series(path), series))
    if series is not None:
        raise InputError(f"{path.name} is not a folder: a series can only be chosen in a DICOM folder")
    return read_file(path)


def _choose_frame(
    voxels: NDArray[np.generic], frame: int | None, source: str
) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Choose one frame, (K, J, I, C), of (F, K, J, I, C) voxels, and the note that says which."""
    count = voxels.shape[0]
    if count == 1 and frame is None:
        return voxels[0], ()
    if count == 1:
        raise InputError(f"{source} has a single frame (3-D): leave out --frame")
    if frame is None:
        raise InputError(f"{source} has {count} frames (4-D); choose one with --frame N, from 0 to {count - 1}")
    if not 0 <= frame < count:
        raise InputError(f"{source} has {count} frames: --frame must be from 0 to {count - 1}, not {frame}")
    return np.ascontiguousarray(voxels[frame]), (f"frame {frame} of {count} was taken, counted from 0",)


def grey_or_colour(voxels: NDArray[np.generic], source: str) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Reduce (K, J, I, C) voxels to grey values (K, J, I) or colours (K, J, I, 3); also notes.

    Transparency is dropped; colours whose channels are equal everywhere become grey.

    Raises:
        InputError: the values of a voxel are neither one grey value nor a colour.
    """
    channels = voxels.shape[3]
    if channels == 1:
        return voxels[..., 0], ()
    if channels not in (3, 4) or not _can_be_colour(voxels):
        raise InputError(
            f"{source} has {channels} values of type {voxels.dtype} for each voxel, which are no colours; "
            "save one image of them as grey"
        )
    notes = ("transparency was dropped",) if channels == 4 else ()
    if all(np.array_equal(voxels[..., 0], voxels[..., n]) for n in (1, 2)):
        return np.ascontiguousarray(voxels[..., 0]), (*notes, "the colour channels are equal: read as grey")
    return np.ascontiguousarray(voxels[..., :3]), notes


def _can_be_colour(voxels: NDArray[np.generic]) -> bool:
    """True for unsigned whole numbers and for real numbers in 0..1; displacement fields have three values, too."""
    return voxels.dtype.kind == "u" or (voxels.dtype.kind == "f" and bool(voxels.min() >= 0 and voxels.max() <= 1))


def _names_no_size(raw: RawImage) -> bool:
    """True where nothing in the file says how large a voxel is, as in ultrasound and many 2-D images."""
    has_size = re.search("[1-9]", raw.tags.get(Tag.PIXEL_SPACING, "")) if raw.is_dicom else raw.voxels.shape[1] > 1
    return not has_size and np.array_equal(raw.geometry.spacing_mm, (1, 1, 1))


def _sides(raw: RawImage) -> tuple[str, str] | None:
    """The sides of a picture, which are unknown, and of a DICOM slice without a place, as X-rays and screenshots."""
    if raw.is_picture:
        return "", ""
    if not raw.is_dicom or raw.voxels.shape[1] != 1 or Tag.ORIENTATION in raw.tags:
        return None
    along_i, _, along_j = raw.tags.get(Tag.PATIENT_ORIENTATION, "").partition("\\")
    return _side(along_i), _side(along_j)


def _side(letters: str) -> str:
    """DICOM's letters of a direction as Slicer writes them: S for the head, I for the foot; empty if it has others."""
    letters = letters.strip().upper()
    return letters.translate(str.maketrans("HF", "SI")) if not set(letters) - set("LRAPHF") else ""


def _is_in_pixels(raw: RawImage) -> bool:
    """True for a picture, whose resolution is that of a print or screen, and for a DICOM one that names no size."""
    return raw.is_picture or (_sides(raw) is not None and _names_no_size(raw))


def _spacing_notes(raw: RawImage) -> tuple[str, ...]:
    if _is_in_pixels(raw):
        return ("the file names no size in mm of what it shows: it is measured in pixels",)
    return ("the file names no voxel size: 1 mm was assumed",) if _names_no_size(raw) else ()


def is_inverted(tags: Mapping[str, str]) -> bool:
    """True for a DICOM image of which low stored values are bright; ITK has turned its values over by then."""
    return tags.get(Tag.PHOTOMETRIC) == "MONOCHROME1"


def display_window(tags: Mapping[str, str]) -> tuple[float, float] | None:
    """Return (width, centre) of the display that a DICOM header suggests for the values that ITK returns, or None.

    Of several windows, the first. ITK turns MONOCHROME1 over within the range of the stored bits, the window with it.
    """
    width, centre = _first_number(tags, Tag.WINDOW_WIDTH), _first_number(tags, Tag.WINDOW_CENTRE)
    if width is None or centre is None or width <= 0:
        return None
    if not is_inverted(tags):
        return width, centre
    bits = _first_number(tags, Tag.BITS_STORED) or 0
    lowest_and_highest = -1 if _first_number(tags, Tag.IS_SIGNED) else 2**bits - 1
    slope, intercept = _first_number(tags, Tag.RESCALE_SLOPE), _first_number(tags, Tag.RESCALE_INTERCEPT)
    return width, (1 if slope is None else slope) * lowest_and_highest + 2 * (intercept or 0) - centre


def _first_number(tags: Mapping[str, str], name: str) -> float | None:
    """Return the first value of an element; None where it has no finite one."""
    try:
        value = float(tags[name].split("\\")[0])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None
