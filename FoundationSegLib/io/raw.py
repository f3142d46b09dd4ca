"""Content of files as ITK reads it: voxels, matrix and the few header fields that matter. No meaning yet."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..errors import FoundationSegError, GeometryError, InputError
from ..imaging.geometry import Geometry
from ..imaging.volume import IN_PIXELS
from . import nifti
from .completeness import (
    check_complete,
    check_readable,
    check_sizes,
    check_stored_voxels,
    damaged,
    quiet,
    stores_white_as_zero,
)

DICOM_READER = "GDCMImageIO"
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))


class Tag(StrEnum):
    """The only header fields that leave this file, beside Slicer's `Segment...`: nothing of a patient can (D9)."""

    MODALITY = "0008|0060"
    BODY_PART = "0018|0015"
    ECHO_TIME = "0018|0081"
    TRIGGER_TIME = "0018|1060"
    SERIES_UID = "0020|000e"
    INSTANCE_NUMBER = "0020|0013"
    POSITION = "0020|0032"
    ORIENTATION = "0020|0037"
    PATIENT_ORIENTATION = "0020|0020"
    TIME_NUMBER = "0020|0100"
    SAMPLES = "0028|0002"
    PHOTOMETRIC = "0028|0004"
    PIXEL_SPACING = "0028|0030"
    BITS_ALLOCATED = "0028|0100"
    BITS_STORED = "0028|0101"
    HIGH_BIT = "0028|0102"
    IS_SIGNED = "0028|0103"
    WINDOW_CENTRE = "0028|1050"
    WINDOW_WIDTH = "0028|1051"
    RESCALE_INTERCEPT = "0028|1052"
    RESCALE_SLOPE = "0028|1053"
    NRRD_PIXEL_KIND = "NRRD_kinds[pixel]"
    IN_PIXELS = IN_PIXELS


_KEPT = frozenset(Tag)
_SEGMENT_FIELD = re.compile(r"Segment\w+", re.ASCII)

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_ITEM = rb"(?=(?:SQ\x00\x00)?.{4}\xfe\xff\x00\xe0|SQ\x00\x00.{4}\xff\xfe\xe0\x00)"  # of a sequence that is not empty
# A pattern for each order of bytes: `re` skips to the bytes that begin one, three times as fast as one for both.
_MODALITY_TABLE = tuple(re.compile(tag + _ITEM, re.DOTALL) for tag in (rb"\x28\x00\x00\x30", rb"\x00\x28\x30\x00"))
_FRAME_PLACE = re.compile(rb"\x20\x00\x13\x91" + _ITEM, re.DOTALL)
_SLICE_DISTANCE = re.compile(rb"\x18\x00\x88\x00(?=DS.\x00|.\x00\x00\x00)", re.DOTALL)
# What no dictionary names, and ITK passes over.
_NO_PLACE, _NO_DISTANCE = b"\x20\x00\x13\x9f", b"\x18\x00\x8f\x00"
_VOXELS_LENGTH = re.compile(rb"\xe0\x7f\x10\x00(?:O[BW]\x00\x00)?(.{4})", re.DOTALL)
_VOXELS_LENGTH_BIG = re.compile(rb"\x7f\xe0\x00\x10O[BW]\x00\x00(.{4})", re.DOTALL)
_ENCAPSULATED = 0xFFFFFFFF  # the length of voxels that are compressed
_OTHER_COLOURS = ("HSV", "CMYK", "ARGB")  # of DICOM before 2001; ITK takes them for RGB


@dataclass(frozen=True, slots=True, eq=False)
class RawImage:
    """An image as stored, before its axes have a meaning.

    Attributes:
        voxels: (F, K, J, I, C): frames, the grid, values per voxel; any number type.
        ijk_to_ras: (4, 4) float64 in mm.
        reader: ITK's name of the format, for example ``"GDCMImageIO"``.
        tags: DICOM elements by ``"gggg|eeee"`` and NRRD fields by name; no patient data.
        notes: what was done in reading.
    """

    voxels: NDArray[np.generic]
    ijk_to_ras: NDArray[np.float64]
    reader: str
    tags: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def is_dicom(self) -> bool:
        """True for DICOM."""
        return self.reader == DICOM_READER

    @property
    def is_picture(self) -> bool:
        """True for a picture, by its format, header or grid: it has neither millimetres nor anatomical directions."""
        if self.reader in ("PNGImageIO", "JPEGImageIO", "BMPImageIO", "TIFFImageIO"):
            return True
        return not self.is_dicom and self.geometry.is_picture(named=Tag.IN_PIXELS in self.tags)

    @property
    def geometry(self) -> Geometry:
        """The grid of one frame."""
        k, j, i = self.voxels.shape[1:4]
        return Geometry(self.ijk_to_ras, (k, j, i))


def read_raw(path: Path) -> RawImage:
    """Read one file of any format that ITK reads, or a NIfTI-2 file.

    Raises:
        InputError: missing, empty, damaged, unknown format, not numbers.
        GeometryError: a NIfTI matrix that is sheared or contradicts itself, axes that do not span space.
    """
    check_readable(path)
    header = nifti.read_header(path)
    raw = to_raw(*_execute(path)) if header is None else _read_nifti(path, header)
    if raw.voxels.dtype.kind not in "iuf":
        raise InputError(f"{path.name}: its voxels are {raw.voxels.dtype} and not whole or real numbers")
    return raw


def _read_nifti(path: Path, header: nifti.NiftiHeader) -> RawImage:
    nifti.check_header(header, path)
    raw, is_flat = None, False
    if not header.is_version_2:
        with suppress(nifti.ShearedError):  # by less than counts, and ITK refuses it
            image, reader = _execute(path)
            raw, is_flat = to_raw(image, reader), image.GetDimension() == 2
    if raw is None:
        lps_to_ras = swap_lps_ras(np.diag((*header.spacing_mm, 1.0)))
        matrix = lps_to_ras if header.matrix is None else header.matrix
        raw = RawImage(nifti.read_voxels(path, header), matrix, "Nifti", {})
    check_stored_voxels(header.voxels_path, header.offset, raw.voxels, header.end_of_voxels, header.float_type)
    if header.matrix is None:
        return raw
    if is_flat:  # ITK keeps two axes and loses where a single slice lies
        has_normal = bool(header.matrix[:3, 2].any())
        return replace(raw, ijk_to_ras=header.matrix) if has_normal else raw
    return replace(raw, notes=nifti.check_placement(header, raw.geometry, path))


def _execute(path: Path) -> tuple[sitk.Image, str]:
    """Read a file; return the image and the name of its format."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with quiet() as complaints:
        try:
            reader.SetImageIO(sitk.ImageFileReader.GetImageIOFromFileName(str(path)))
            is_turned_over = stores_white_as_zero(path, reader.GetImageIO())
            tags = {}
            with suppress(RuntimeError):  # which comes again below
                reader.ReadImageInformation()
                check_sizes(path, reader.GetSize(), voxel_bytes(reader))
                tags = kept_tags(reader)
            if reader.GetImageIO() == DICOM_READER:
                check_dicom_values(path, prod(reader.GetSize()) if tags else 0, tags)
            image = reader.Execute()
        except RuntimeError as error:
            if "Zero-valued spacing" in str(error) and (content := _without_distances(path)):
                with TemporaryDirectory() as folder:
                    copy = Path(folder) / path.name
                    copy.write_bytes(content)
                    return _execute(copy)
            raise _explained(path, str(error)) from error
    size = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel() * image.GetSizeOfPixelComponent()
    check_complete(path, reader.GetImageIO(), size, complaints)
    if is_turned_over:
        image = sitk.BitwiseNot(image)
        image.SetMetaData(Tag.PHOTOMETRIC, "MONOCHROME1")  # DICOM's word for it
    return image, reader.GetImageIO()


def voxel_bytes(reader: sitk.ImageFileReader) -> int:
    """Return how many bytes a voxel takes in memory, by a header that has been read."""
    count = reader.GetNumberOfComponents()
    return sitk.Image([1, 1], reader.GetPixelID(), count).GetSizeOfPixelComponent() * count


def check_dicom_values(path: Path, voxels: int, tags: Mapping[str, str]) -> None:
    """Make sure that ITK, which leaves out some parts of DICOM, reads the values that a file means.

    Args:
        path: the file.
        voxels: how many there are by its header.
        tags: of :func:`kept_tags`.

    Raises:
        InputError: it would read others without a word, or what is asked of the file's bytes cannot be found in them.
    """
    content, colours = path.read_bytes(), tags.get(Tag.PHOTOMETRIC, "")
    numbers = (tags.get(tag, "") for tag in (Tag.BITS_STORED, Tag.HIGH_BIT, Tag.BITS_ALLOCATED, Tag.SAMPLES))
    stored, high, allocated, samples = (int(number) if number.isdecimal() else 0 for number in numbers)
    needed_bits = voxels * allocated * (2 if colours.endswith("_422") else samples)  # which share two of three
    lengths = [int.from_bytes(match[1], "little") for match in _VOXELS_LENGTH.finditer(content)]
    lengths += [int.from_bytes(match[1], "big") for match in _VOXELS_LENGTH_BIG.finditer(content)]
    if _ENCAPSULATED not in lengths and max(lengths, default=needed_bits) * 8 < needed_bits:
        raise damaged(path)  # ITK would fill the rest with stray memory
    problems = {
        "it is deflated": _DEFLATED in content[:1024],
        "its values stand in a table (Modality LUT Sequence)": any(form.search(content) for form in _MODALITY_TABLE),
        "its values are scaled by 0 (Rescale Slope)": (0.0,) in dicom_elements(content, Tag.RESCALE_SLOPE, 1),
        f"its values end at bit {high} and have {stored} bits (High Bit, Bits Stored)": high >= stored > 0,
        f"its colours are {colours[:16]}": colours in _OTHER_COLOURS,
        "its values are inverted, signed and of a rare size": colours == "MONOCHROME1"
        and tags.get(Tag.IS_SIGNED) == "1"
        and stored not in (8, 16, 32),
    }
    if problem := next((text for text, holds in problems.items() if holds), None):
        raise InputError(f"{path.name}: {problem}, which is not supported; export it again with plain values")


def dicom_elements(content: bytes, tag: str, count: int) -> list[tuple[float, ...]]:
    """Return the values of every element with that tag and that many decimals, in the file's order.

    The elements lie in nested sequences that ITK does not hand out. They are found by their bytes: either ``DS`` or
    ``IS`` and two bytes of length, or four bytes of length; little endian or, as DICOM once allowed, big endian.
    """
    group, element = (int(part, 16) for part in tag.split("|"))
    little, big = (re.escape(b"".join(n.to_bytes(2, order) for n in (group, element))) for order in ("little", "big"))
    forms = (little + rb"(?:[DI]S(.)\x00|(.)\x00\x00\x00)", big + rb"[DI]S\x00(.)()")
    elements = []
    for match in (match for form in forms for match in re.finditer(form, content, re.DOTALL)):
        length = (match[1] or match[2])[0]
        text = content[match.end() : match.end() + length].decode("latin-1")
        if values := decimals(text, count):  # none where these bytes were voxels
            elements.append(values)
    return elements


def decimals(text: str, count: int) -> tuple[float, ...]:
    """Return the numbers of a DICOM element; empty where there are not so many of them."""
    try:
        values = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return ()
    return values if len(values) == count else ()


def _without_distances(path: Path) -> bytes:
    """Return a DICOM file without a distance of slices and, of frames, all positions but the first; empty if unchanged.

    ITK reads no frames that share one position; they are placed afterwards by the file itself.
    """
    content = path.read_bytes()
    first = _FRAME_PLACE.search(content)
    start = first.end() if first else len(content)
    changed = content[:start] + _FRAME_PLACE.sub(_NO_PLACE, content[start:])
    changed = _SLICE_DISTANCE.sub(_NO_DISTANCE, changed)
    return b"" if changed == content else changed


def _explained(path: Path, message: str) -> FoundationSegError:
    """Say in one sentence what ITK says in many lines."""
    if "orthonormal" in message:
        return nifti.ShearedError(path)
    if "Bad direction" in message:
        return GeometryError(
            f"{path.name}: the image's axes do not span space, or it is a single slice at an angle; save it as 3-D"
        )
    if "Zero-valued spacing" in message:
        return GeometryError(f"{path.name}: its slices are no distance apart; export it again")
    if "size is zero" in message:
        return InputError(f"{path.name} holds no voxels: its header gives an axis of length 0")
    if "determine ImageIO" in message:
        formats = "NRRD, NIfTI, MHA, DICOM, PNG, JPEG and TIFF"
        return InputError(f"{path.name} is no image that can be read, or it is damaged; {formats} are understood")
    if "domain axes" in message:
        return InputError(f"{path.name} has axes that are not in space; save its time points as a NRRD list or alone")
    if "PixelType" in message:
        return InputError(f"{path.name} has voxels of a kind that is not understood; save it as grey or RGB")
    return damaged(path)


def to_raw(image: sitk.Image, reader: str) -> RawImage:
    """Convert an ITK image to arrays: axes in numpy order, space as RAS."""
    tags = kept_tags(image)
    i, j, k = (*image.GetSize(), 1)[:3]
    voxels = sitk.GetArrayFromImage(image).reshape(-1, k, j, i, image.GetNumberOfComponentsPerPixel())
    if tags.get(Tag.NRRD_PIXEL_KIND) == "list":  # what Slicer calls a sequence: frames, not colours
        voxels = np.moveaxis(voxels[0], -1, 0)[..., np.newaxis]
    return RawImage(voxels, _ijk_to_ras(image), reader, tags)


def _ijk_to_ras(image: sitk.Image) -> NDArray[np.float64]:
    axes = image.GetDimension()
    count = min(axes, 3)
    direction = np.array(image.GetDirection()).reshape(axes, axes)
    matrix = np.eye(4)
    matrix[:count, :count] = (direction * image.GetSpacing())[:count, :count]
    matrix[:count, 3] = image.GetOrigin()[:count]
    return swap_lps_ras(matrix)


def kept_tags(source: sitk.Image | sitk.ImageFileReader) -> dict[str, str]:
    """Return the header fields that matter, stripped of padding."""
    names = (name for name in source.GetMetaDataKeys() if name in _KEPT or _SEGMENT_FIELD.fullmatch(name))
    texts = {name: source.GetMetaData(name).strip().encode(errors="surrogateescape") for name in names}
    return {name: text.decode(errors="replace") for name, text in texts.items()}  # ``?`` for bytes that are no UTF-8


def swap_lps_ras(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn a (4, 4) matrix to LPS, as DICOM and ITK have it, into one to RAS, and the other way round."""
    return _LPS_TO_RAS @ matrix
