"""DICOM folders: find the series, choose one, stack its slices."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.errors import GeometryError, InputError
from .completeness import damaged
from .dicom_frames import place_frames
from .quiet import quiet
from .raw import MODALITY, ORIENTATION, POSITION, SERIES_UID, RawImage, kept_tags, read_raw, swap_lps_ras, to_raw
from .stack import place_slices

_READER = "GDCMImageIO"
_PREAMBLE_BYTES = 128
_PIXEL_ELEMENT = b"\xe0\x7f\x10\x00"
_DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"
# How far direction cosines, or voxel sizes as a part of themselves, may differ between slices of one volume.
_SAME = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
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
        return _decimals(self.tags.get(POSITION, ""), 3)

    @property
    def orientation(self) -> tuple[float, ...]:
        """Directions of the i axis and the j axis in LPS, six numbers; empty where the file names none."""
        return _decimals(self.tags.get(ORIENTATION, ""), 6)


def _decimals(text: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return ()
    return values if len(values) == count else ()


@dataclass(frozen=True, slots=True)
class Series:
    """The images of a folder that share a series UID, in the order of their file names; at least one."""

    uid: str
    slices: tuple[Slice, ...]

    @property
    def modality(self) -> str:
        """The DICOM modality code of the first image; empty where it has none."""
        return self.slices[0].tags.get(MODALITY, "")


def read_folder(folder: Path, series: str | None = None) -> RawImage:
    """The volume of one series in a DICOM folder.

    Args:
        folder: the folder; where it holds no DICOM image itself, its subfolders are searched too.
        series: which one, see :func:`choose_series`.

    Raises:
        InputError: no DICOM image, several series and no choice, a damaged slice, slices that make no volume.
        GeometryError: slices uneven, at the same position, in different directions or of different voxel size.
    """
    return _read_series(choose_series(find_series(folder), series))


def find_series(folder: Path) -> tuple[Series, ...]:
    """The image series of a folder, ordered by UID; other files are ignored.

    Raises:
        InputError: no DICOM image, a DICOM image that is damaged, or a folder that cannot be listed.
    """
    try:
        slices = _scan(folder.iterdir()) or _scan(folder.rglob("*"))
    except OSError as error:
        raise InputError(f"the folder cannot be read: {error.strerror}") from error
    if not slices:
        raise InputError("the folder holds no DICOM image; for an image of another format, give the file itself")
    by_uid: defaultdict[str, list[Slice]] = defaultdict(list)
    for image in slices:
        by_uid[image.tags.get(SERIES_UID, "")].append(image)
    return tuple(Series(uid, tuple(by_uid[uid])) for uid in sorted(by_uid))


def _scan(paths: Iterable[Path]) -> list[Slice]:
    files = sorted(path for path in paths if path.is_file())
    with quiet():
        found = [_read_slice(path) for path in files]
    return [image for image in found if image is not None]


def _read_slice(path: Path) -> Slice | None:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READER)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        if _is_damaged_image(path):
            raise damaged(path) from None
        return None
    return Slice(
        path=path,
        sizes=tuple(reader.GetSize()),
        spacing_ij=(reader.GetSpacing()[0], reader.GetSpacing()[1]),
        pixel_type=reader.GetPixelID(),
        tags=kept_tags(reader),
    )


def _is_damaged_image(path: Path) -> bool:
    """True for a DICOM file with voxels; reports, plans and directories, which GDCM does not read either, have none."""
    with path.open("rb") as file:
        head = file.read(512)
    is_dicom = head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM"
    return is_dicom and _DIRECTORY_CLASS not in head and _PIXEL_ELEMENT in path.read_bytes()


def choose_series(found: Sequence[Series], wanted: str | None) -> Series:
    """One of the series.

    Args:
        found: what the folder holds.
        wanted: a number of the list in the message (from 1), a whole UID, or an end of one that no other has; None
            for the only one.

    Raises:
        InputError: none or several fit; the message lists number, UID, modality and count of images of each.
    """
    if wanted is None:
        fitting = list(found)
        problem = f"the folder holds {len(found)} DICOM series; choose one with --series"
    elif wanted.isdecimal() and 1 <= int(wanted) <= len(found):
        return found[int(wanted) - 1]
    else:
        fitting = [one for one in found if one.uid == wanted] or [one for one in found if one.uid.endswith(wanted)]
        problem = f"{'several series fit' if fitting else 'no series fits'} --series {wanted}; there are"
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(
        f"{n}: {one.uid} ({one.modality or 'no modality'}, {len(one.slices)} images)" for n, one in enumerate(found, 1)
    )
    raise InputError(f"{problem}: {listed}")


def _read_series(series: Series) -> RawImage:
    first = series.slices[0]
    if len(series.slices) == 1:
        return read_file(first.path)
    _check_alike(series.slices)
    stack = place_slices([one.position for one in series.slices], first.orientation, first.spacing_ij)
    raw = _read_voxels([series.slices[n] for n in stack.order])
    return replace(raw, ijk_to_ras=swap_lps_ras(stack.matrix_lps), notes=stack.notes)


def _check_alike(slices: Sequence[Slice]) -> None:
    if any(len(one.sizes) > 2 and one.sizes[2] > 1 for one in slices):
        raise InputError("the series holds several multi-frame images; give one of its files instead of the folder")
    if len({one.sizes for one in slices}) > 1:
        raise InputError("the series' images differ in size and make no volume; give one of its files, or another one")
    if not all(one.position and one.orientation for one in slices):
        raise InputError("the series' images do not say where they lie; give one of its files instead of the folder")
    if np.ptp([one.orientation for one in slices], axis=0).max() > _SAME:
        raise GeometryError("the series' slices lie in different directions (a localizer?) and make no volume")
    sizes = np.array([one.spacing_ij for one in slices])
    if (np.ptp(sizes, axis=0) > _SAME * sizes.min(axis=0)).any():
        raise GeometryError("the series' slices have voxels of different sizes and make no volume")


def _read_voxels(slices: Sequence[Slice]) -> RawImage:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO(_READER)
    reader.SetFileNames([str(one.path) for one in slices])
    if len({one.pixel_type for one in slices}) > 1:
        # Each slice is rescaled by itself (PET: with a slope of its own); the first one's type may not hold the rest.
        reader.SetOutputPixelType(sitk.sitkFloat32)
    with quiet():
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise InputError("a slice of the series is damaged and cannot be read; fetch it again") from error
    return replace(to_raw(image, _READER), tags=slices[0].tags)


def read_file(path: Path) -> RawImage:
    """The content of one image file of any format; the frames of a DICOM file in their places.

    Raises:
        InputError, GeometryError: as :func:`~FoundationSegLib.io.raw.read_raw` and
            :func:`~FoundationSegLib.io.dicom_frames.place_frames`.
    """
    raw = read_raw(path)
    # The frames of a segmentation object belong to several segments and share positions; it is refused later.
    is_stack = raw.is_dicom and raw.voxels.shape[1] > 1 and raw.tags.get(MODALITY) != "SEG"
    return place_frames(path, raw) if is_stack else raw
