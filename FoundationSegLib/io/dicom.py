"""DICOM folders and multi-frame files: find the series, choose one, and place its slices in space."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from ..errors import GeometryError, InputError, counted
from ..folders import require_utf8
from .completeness import damaged, quiet
from .raw import (
    DICOM_READER,
    RawImage,
    Tag,
    check_dicom_values,
    decimals,
    dicom_elements,
    kept_tags,
    read_raw,
    swap_lps_ras,
    to_raw,
    voxel_bytes,
)

_PREAMBLE_BYTES = 128
_PIXEL_ELEMENT = b"\xe0\x7f\x10\x00"
_PER_FRAME_GROUPS = b"\x00\x52\x30\x92"  # of enhanced files
_DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"
_SLICE_DISTANCE_TAGS = ("0018|0088", "0018|0050")  # Spacing Between Slices; where it is absent, Thickness
_FRAME_TIME_TAG, _FRAME_TIMES_TAG = "0018|1063", "0018|1065"
_CINE_RATE_TAGS = ("0018|0040", "0008|2144")
# Several frames of these are one after the other in time, unless they have positions.
_MOVING_MODALITIES = {"US", "IVUS", "XA", "RF", "ES", "XC"}

_PATIENT_TAGS = {
    "PatientName": "0010|0010",
    "PatientID": "0010|0020",
    "PatientBirthDate": "0010|0030",
    "PatientSex": "0010|0040",
}
# In this order they say which of the images at one position comes first.
_TIME_TAGS = (Tag.TIME_NUMBER, Tag.ECHO_TIME, Tag.TRIGGER_TIME, Tag.INSTANCE_NUMBER)
_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_SEVERAL_SETS = "several images share a position, as time points, echoes or copies do"
_ONE_SET = "copy the files of one set into a folder of their own, or export it alone"
# How far direction cosines, or voxel sizes as a part of themselves, may differ between slices of one volume.
_SAME = 1e-3
# Steps between slices count as equal up to this part of the usual step, or up to this length where it is more: two
# positions rounded to hundredths, as some scanners write them, make a step wrong by 0.01 mm.
_STEP_TOLERANCE = 0.01
_STEP_TOLERANCE_MM = 0.011
# Slices closer than this share a position; the finest micro-CT has steps ten times as large.
_SAME_POSITION_MM = 1e-4
# Sideways drift of a step, as a part of its length, from which a stack counts as tilted: 0.06 degrees.
_SMALLEST_TILT = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class SliceHeader:
    """The header of one DICOM image.

    Attributes:
        path: its file.
        sizes: number of voxels along i, j and (for several frames) k.
        spacing_ij: distance between voxel centres along i and j, in mm.
        pixel_type: ITK's number of the type of its rescaled values.
        tags: the DICOM elements that :data:`~FoundationSegLib.io.raw.RawImage.tags` keeps.
    """

    path: Path
    sizes: tuple[int, ...]
    spacing_ij: tuple[float, float]
    pixel_type: int
    tags: Mapping[str, str]

    @property
    def position(self) -> tuple[float, ...]:
        """The centre of the first voxel in LPS, in mm; empty where the file names none."""
        return decimals(self.tags.get(Tag.POSITION, ""), 3)

    @property
    def orientation(self) -> tuple[float, ...]:
        """Directions of the i axis and the j axis in LPS, six numbers; empty where the file names none."""
        return decimals(self.tags.get(Tag.ORIENTATION, ""), 6)


@dataclass(frozen=True, slots=True)
class Series:
    """The images of a folder that share a series UID, in the order of their file names; at least one."""

    uid: str
    slices: tuple[SliceHeader, ...]

    @property
    def modality(self) -> str:
        """The DICOM modality code of the first image; empty where it has none."""
        return self.slices[0].tags.get(Tag.MODALITY, "")


def find_series(folder: Path) -> tuple[Series, ...]:
    """List the image series of a folder, ordered by UID; other files are ignored.

    Raises:
        InputError: no DICOM image, a DICOM image that is damaged, or a folder that cannot be listed.
    """
    try:
        slices = _read_headers(folder.iterdir()) or _read_headers(folder.rglob("*"))
    except OSError as error:
        raise InputError(f"the folder cannot be read: {error.strerror}") from error
    if not slices:
        raise InputError("the folder holds no DICOM image; for an image of another format, give the file itself")
    by_uid: defaultdict[str, list[SliceHeader]] = defaultdict(list)
    for image in slices:
        by_uid[image.tags.get(Tag.SERIES_UID, "")].append(image)
    return tuple(Series(uid, tuple(by_uid[uid])) for uid in sorted(by_uid))


def _read_headers(paths: Iterable[Path]) -> list[SliceHeader]:
    files = sorted(path for path in paths if path.is_file())
    for path in files:
        require_utf8(path, InputError)
    with quiet():
        headers = (_read_header(path, status.st_size, status.st_mtime_ns) for path in files if (status := path.stat()))
        return [header for header in headers if header is not None]


@lru_cache(maxsize=8192)  # a series is listed when it is found, identified, read, and written upon
def _read_header(path: Path, size: int, changed_ns: int) -> SliceHeader | None:
    """Read the header of a file that has this size and time of change; None where it is no image."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(DICOM_READER)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        if _is_damaged_image(path):
            raise damaged(path) from None
        return None
    i, j = reader.GetSpacing()[:2]
    return SliceHeader(path, tuple(reader.GetSize()), (i, j), reader.GetPixelID(), kept_tags(reader))


def _header_reader(path: Path) -> sitk.ImageFileReader | None:
    """Return a reader that has read the header of an image file; None where it cannot."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with quiet(), contextlib.suppress(RuntimeError):
        reader.ReadImageInformation()
        return reader
    return None


def header_bytes(path: Path) -> int:
    """Return how many bytes the voxels of a file take in memory, by its header; 0 where it says nothing."""
    reader = _header_reader(path)
    if reader is None:
        return 0  # what is wrong is said when it is read
    return prod(reader.GetSize()) * voxel_bytes(reader)


def patient_tags(path: Path) -> dict[str, str]:
    """Read the patient's fields of a DICOM file by their keywords, for a user who asks for them; none of others."""
    reader = _header_reader(path)
    if reader is None:
        return {}
    return {key: reader.GetMetaData(tag) for key, tag in _PATIENT_TAGS.items() if reader.HasMetaDataKey(tag)}


def _is_damaged_image(path: Path) -> bool:
    """True for a DICOM file with voxels; reports, plans and directories, which GDCM does not read either, have none."""
    with path.open("rb") as file:
        head = file.read(512)
    is_dicom = head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM"
    return is_dicom and _DIRECTORY_CLASS not in head and _PIXEL_ELEMENT in path.read_bytes()


def choose_series(series: Sequence[Series], choice: str | None) -> Series:
    """Choose one of the series.

    Args:
        series: all series of the folder.
        choice: a number of the list in the message (from 1), a whole UID, or an end of one that no other has; None
            for the only one.

    Raises:
        InputError: none or several fit; the message lists number, UID, modality and count of images of each.
    """
    if choice is None:
        fitting = list(series)
        problem = f"the folder holds {len(series)} DICOM series; choose one with --series"
    elif choice.isdecimal() and 1 <= int(choice) <= len(series):
        return series[int(choice) - 1]
    else:
        fitting = [s for s in series if s.uid == choice] or [s for s in series if s.uid.endswith(choice)]
        problem = f"{'several series fit' if fitting else 'no series fits'} --series {choice}; there are"
    if len(fitting) == 1:
        return fitting[0]
    names = (
        f"{n}: {s.uid} ({s.modality or 'no modality'}, {counted(len(s.slices), 'image')})"
        for n, s in enumerate(series, 1)
    )
    raise InputError(f"{problem}: {', '.join(names)}")


def read_series(series: Series) -> RawImage:
    """Read a series of a folder: its slices sorted and placed, or its one file.

    Slices that share positions, as those of dynamic, diffusion and echo series, are frames.

    Raises:
        InputError: the slices are of different kinds, or damaged.
        GeometryError: they make no volume.
    """
    slices = series.slices
    if len(slices) == 1:
        return read_file(slices[0].path)
    _check_alike(slices)
    times = [tuple(decimals(image.tags.get(tag, ""), 1) for tag in _TIME_TAGS) for image in slices]
    frames = split_frames([image.position for image in slices], slices[0].orientation, times)
    if len(frames) > 1 and any(len({times[n][:2] for n in frame}) > 1 for frame in frames):
        raise GeometryError(f"{_SEVERAL_SETS}: not every position has the same of them; {_ONE_SET}")
    # Each slice is rescaled by itself (PET: with a slope of its own); the first one's type may not hold the rest.
    kind = sitk.sitkFloat32 if len({image.pixel_type for image in slices}) > 1 else None
    raws = [_read_voxels([slices[n] for n in frame], kind) for frame in frames]
    voxels = raws[0].voxels if len(raws) == 1 else np.concatenate([raw.voxels for raw in raws])
    if len(frames[0]) == 1:
        return replace(raws[0], voxels=voxels)
    positions = [slices[n].position for n in frames[0]]
    stack = place_slices(positions, slices[0].orientation, slices[0].spacing_ij)
    return replace(raws[0], voxels=voxels, ijk_to_ras=swap_lps_ras(stack.matrix_lps), notes=stack.notes)


def _check_alike(slices: Sequence[SliceHeader]) -> None:
    if any(image.sizes[2:] > (1,) for image in slices):
        raise InputError("the series holds several multi-frame images; give one of its files instead of the folder")
    if len({image.sizes for image in slices}) > 1:
        raise InputError("the series' images differ in size and make no volume; give one of its files, or another one")
    if not all(image.position and image.orientation for image in slices):
        raise InputError("the series' images do not say where they lie; give one of its files instead of the folder")
    if np.ptp([image.orientation for image in slices], axis=0).max() > _SAME:
        raise GeometryError("the series' slices lie in different directions (a localizer?) and make no volume")
    spacings = np.array([image.spacing_ij for image in slices])
    if (np.ptp(spacings, axis=0) > _SAME * spacings.min(axis=0)).any():
        raise GeometryError("the series' slices have voxels of different sizes and make no volume")


def _read_voxels(slices: Sequence[SliceHeader], kind: int | None) -> RawImage:
    for header in slices:
        check_dicom_values(header.path, prod(header.sizes), header.tags)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO(DICOM_READER)
    reader.SetFileNames([str(image.path) for image in slices])
    if kind is not None:
        reader.SetOutputPixelType(kind)
    with quiet():
        try:
            image = reader.Execute()
        except RuntimeError as error:
            if "Zero-valued spacing" in str(error):  # slices that name a distance of 0, read one by one
                alone = [read_raw(header.path) for header in slices]
                return replace(alone[0], voxels=np.concatenate([raw.voxels for raw in alone], axis=1))
            raise InputError("a slice of the series is damaged and cannot be read; fetch it again") from error
    return replace(to_raw(image, DICOM_READER), tags=slices[0].tags)


def read_file(path: Path) -> RawImage:
    """Read one image file of any format; the frames of a DICOM file are put in their places.

    Raises:
        InputError, GeometryError: as :func:`~FoundationSegLib.io.raw.read_raw` and :func:`place_frames`.
    """
    raw = read_raw(path)
    # The frames of a segmentation object belong to several segments and share positions; it is refused later.
    is_stack = raw.is_dicom and raw.voxels.shape[1] > 1 and raw.tags.get(Tag.MODALITY) != "SEG"
    return place_frames(path, raw) if is_stack else raw


def place_frames(path: Path, raw: RawImage) -> RawImage:
    """Order the frames of a multi-frame image along their normal, with the matrix that their positions give.

    GDCM places them by the first two frames, checks nothing, and leaves out the voxel sizes of enhanced files. Frames
    without positions, or with one for all, are frames in time if the file says so, or is an enhanced one with a place
    for all. Otherwise they are slices at the distance that it names. Frames that share positions are frames in time.

    Raises:
        GeometryError: positions are uneven, orientations or voxel sizes differ, or not every frame has one.
        InputError: the frames' stored values mean different things.
    """
    count = raw.voxels.shape[1]
    content = path.read_bytes()
    scales = [dicom_elements(content, tag, 1) for tag in (Tag.RESCALE_INTERCEPT, Tag.RESCALE_SLOPE)]
    if any(len(set(values)) > 1 or 1 < len(values) < count for values in scales):
        raise InputError(f"{path.name}: its frames are scaled differently, which is not supported; export them singly")
    positions = dicom_elements(content, Tag.POSITION, 3)
    orientations = dicom_elements(content, Tag.ORIENTATION, 6)
    spacings = dicom_elements(content, Tag.PIXEL_SPACING, 2)
    if len(spacings) == count and (np.ptp(spacings, axis=0) > _SAME * np.min(spacings, axis=0)).any():
        raise GeometryError(
            f"{path.name}: its frames have voxels of different sizes and make no volume; export it again"
        )
    if len(set(positions)) < 2 and len(positions) != count:
        if _is_cine(content, raw) or (positions and _PER_FRAME_GROUPS in content):  # all in one place
            return replace(raw, voxels=raw.voxels.swapaxes(0, 1))
        return _stack_evenly(content, raw, (positions or [(0.0, 0.0, 0.0)])[0], (orientations or [_AXIAL])[0])
    if len(positions) != count or not orientations:
        raise GeometryError(f"{path.name} has {count} frames, but positions for {len(positions)}; export it again")
    if np.ptp(orientations, axis=0).max() > _SAME:
        raise GeometryError(f"{path.name}: its frames lie in different directions; it is no volume")
    return _stacked(content, raw, positions, orientations[0])


def _stacked(
    content: bytes,
    raw: RawImage,
    positions: NDArray[np.float64] | Sequence[tuple[float, ...]],
    orientation: Sequence[float],
    notes: tuple[str, ...] = (),
) -> RawImage:
    spacings = dicom_elements(content, Tag.PIXEL_SPACING, 2)
    # DICOM gives the distance of rows, then that of columns: along j, then along i.
    along_j, along_i = spacings[0] if spacings else (1.0, 1.0)
    frames = split_frames(positions, orientation, range(len(positions)))
    places = [positions[n] for n in frames[0]]
    if len(places) == 1:  # ends of a slice as thick as the file says
        normal = np.cross(orientation[:3], orientation[3:])
        places.append(places[0] + _unit(normal) * next(iter(_slice_distances(content)), 1.0))
    stack = place_slices(places, orientation, (along_i, along_j))
    tags = {**raw.tags, Tag.PIXEL_SPACING: f"{along_j}\\{along_i}"} if spacings else raw.tags
    return replace(
        raw,
        voxels=raw.voxels[0][np.array(frames)],
        ijk_to_ras=swap_lps_ras(stack.matrix_lps),
        tags=tags,
        notes=(*raw.notes, *notes, *stack.notes),
    )


def _is_cine(content: bytes, raw: RawImage) -> bool:
    """True where the frames of a file without positions follow each other in time."""
    has_times = bool(dicom_elements(content, _FRAME_TIMES_TAG, raw.voxels.shape[1]))
    has_rate = any(dicom_elements(content, tag, 1) for tag in (_FRAME_TIME_TAG, *_CINE_RATE_TAGS))
    return has_times or has_rate or raw.tags.get(Tag.MODALITY) in _MOVING_MODALITIES


def _stack_evenly(content: bytes, raw: RawImage, origin: Sequence[float], orientation: Sequence[float]) -> RawImage:
    """Place frames without positions in their order, at the distance that the file names."""
    distances = _slice_distances(content)
    if not distances or not dicom_elements(content, Tag.PIXEL_SPACING, 2):
        return raw
    distance = distances[0]
    normal = _unit(np.cross(orientation[:3], orientation[3:]))
    positions = np.asarray(origin) + np.outer(np.arange(raw.voxels.shape[1]) * distance, normal)
    note = f"the frames have no positions: they were stacked in their order, {distance:g} mm apart"
    return _stacked(content, raw, positions, orientation, (note,))


def _slice_distances(content: bytes) -> list[float]:
    return [mm for tag in _SLICE_DISTANCE_TAGS for (mm,) in dicom_elements(content, tag, 1) if mm > 0]


def split_frames(
    positions_lps: ArrayLike, orientation: Sequence[float], times: Sequence[Any]
) -> tuple[tuple[int, ...], ...]:
    """Divide images that share positions into frames: the first image of each position, the second of each, and so on.

    Args:
        positions_lps: (N, 3), as :func:`place_slices` has them.
        orientation: likewise.
        times: something to sort the images of one position by.

    Returns:
        The images of each frame in their order along the normal; a single frame where no position is shared.

    Raises:
        GeometryError: it is not clear which images belong together; the message says what to do.
    """
    positions = np.asarray(positions_lps, np.float64)
    heights = positions @ _unit(np.cross(orientation[:3], orientation[3:]))
    order = np.argsort(heights, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(heights[order]) >= _SAME_POSITION_MM) + 1)
    counts = sorted({len(group) for group in groups})
    if len(counts) > 1:
        counts_of = f"{counts[0]} to {counts[-1]} images at each of {counted(len(groups), 'position')}"
        raise GeometryError(f"{_SEVERAL_SETS}: {counts_of}, a few may be missing or there twice; {_ONE_SET}")
    if counts != [1] and any(np.ptp(positions[group], axis=0).max() > _STEP_TOLERANCE_MM for group in groups):
        raise GeometryError(f"{_SEVERAL_SETS}: they lie side by side; {_ONE_SET}")
    if any(len({times[n] for n in group}) < len(group) for group in groups):
        raise GeometryError(f"{_SEVERAL_SETS}, and nothing says which comes first: copies of each other? {_ONE_SET}")
    return tuple(zip(*(sorted(group.tolist(), key=times.__getitem__) for group in groups), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class SliceStack:
    """A stack of slices in space.

    Attributes:
        order: the slices from the first to the last along the normal.
        matrix_lps: (4, 4) float64, voxel index (i, j, k) to LPS in mm.
        notes: a tilt, if there is one.
    """

    order: tuple[int, ...]
    matrix_lps: NDArray[np.float64]
    notes: tuple[str, ...]


def place_slices(positions_lps: ArrayLike, orientation: Sequence[float], spacing_ij: Sequence[float]) -> SliceStack:
    """Order slices along their normal and find the matrix of the volume that they make.

    A gantry tilt (every slice shifted sideways by the same amount) becomes a sheared matrix.

    Args:
        positions_lps: (N, 3), the centre of each slice's first voxel in mm, N at least 2 (DICOM 0020,0032).
        orientation: direction of the i axis, then of the j axis, in LPS (DICOM 0020,0037).
        spacing_ij: distance between voxel centres along i and j, in mm.

    Raises:
        GeometryError: slices share a position, gaps differ, or slices are shifted sideways by different amounts; the
            message counts slices from 1 along the normal.
    """
    positions = np.asarray(positions_lps, dtype=np.float64)
    across, down = (_unit(orientation[n : n + 3]) for n in (0, 3))
    normal = _unit(np.cross(across, down))
    order = np.argsort(positions @ normal, kind="stable")
    steps = np.diff(positions[order], axis=0)
    _check_steps(steps, steps @ normal)
    step, notes = _mean_step(steps.mean(axis=0), normal)
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack((across * spacing_ij[0], down * spacing_ij[1], step))
    matrix[:3, 3] = positions[order[0]]
    return SliceStack(tuple(order.tolist()), matrix, notes)


def _unit(vector: ArrayLike) -> NDArray[np.float64]:
    direction = np.asarray(vector, dtype=np.float64)
    length = np.linalg.norm(direction)
    if not length > 0:
        raise GeometryError("the slices' orientation is not a pair of directions at an angle")
    return direction / length


def _check_steps(steps: NDArray[np.float64], gaps: NDArray[np.float64]) -> None:
    count = len(steps) + 1
    twins = np.flatnonzero(gaps < _SAME_POSITION_MM)
    if twins.size:
        raise GeometryError(
            f"{twins.size + 1} or more of the {count} slices share a position (first: slices {twins[0] + 1} and "
            f"{twins[0] + 2}): duplicates, or several time points in one series; keep one set"
        )
    usual = float(np.median(gaps))
    tolerance = max(_STEP_TOLERANCE * usual, _STEP_TOLERANCE_MM)
    uneven = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    if uneven.size:
        n = int(uneven[0])
        raise GeometryError(
            f"the slices are unevenly spaced: {gaps[n]:.4g} mm between slices {n + 1} and {n + 2} of {count} instead "
            f"of {usual:.4g} mm; a slice may be missing"
        )
    crooked = np.flatnonzero(np.linalg.norm(steps - np.median(steps, axis=0), axis=1) > tolerance)
    if crooked.size:
        n = int(crooked[0])
        raise GeometryError(
            f"the slices do not lie in a row: slice {n + 2} of {count} is shifted sideways against slice {n + 1} "
            "differently from the others"
        )


def _mean_step(step: NDArray[np.float64], normal: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the step from slice to slice: along the normal unless the stack is really tilted."""
    along = float(step @ normal)
    sideways = float(np.linalg.norm(step - along * normal))
    if sideways <= _SMALLEST_TILT * along:
        return along * normal, ()
    angle = np.degrees(np.arctan2(sideways, along))
    return step, (f"the slices are tilted by {angle:.1f} degrees (gantry tilt); the volume's grid is sheared to match",)
