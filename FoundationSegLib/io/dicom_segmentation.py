"""DICOM SEG: segments on the slices of a DICOM series, written and read with `highdicom`."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError, OutputError, package_missing
from ..imaging.geometry import Geometry
from . import dicom
from .raw import read_raw, swap_lps_ras

MAKER = "FoundationSeg"
_SERIES_NUMBER = 300  # apart from those of a scanner
_LONGEST_LABEL = 64  # characters of a DICOM LO
# Frames nearer to each other than this share a slice; positions are written with at least two decimals.
_SAME_HEIGHT_MM = 1e-3
_OFF_GRID_MM = 0.05


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded concept: scheme (``"SCT"``), value, and meaning in words."""

    scheme: str
    value: str
    meaning: str


TISSUE = Coded("SCT", "85756007", "Tissue")  # what Slicer exports for a segment without a term


@dataclass(frozen=True, slots=True, eq=False)
class DicomSegment:
    """A segment to be written.

    Attributes:
        name: its label.
        mask: (K, J, I) bool, on the grid of the series.
        colour: red, green, blue from 0 to 1.
        category, type: what it is; ``modifier`` is the side of a paired structure.
        is_automatic: made without a click, as classes and texts are.
        algorithm: the model.
        version: of the model and the software.
        tracking_id: the same for the same segment written again.
    """

    name: str
    mask: NDArray[np.bool_]
    colour: tuple[float, float, float]
    category: Coded
    type: Coded
    modifier: Coded | None
    is_automatic: bool
    algorithm: str
    version: str
    tracking_id: str


def source_files(path: Path, series: str | None, geometry: Geometry) -> tuple[Path, ...]:
    """List the DICOM files of an image in the order of its slices along k.

    Args:
        path, series: as :func:`~FoundationSegLib.io.images.read_volume` has them.
        geometry: the image's.

    Raises:
        OutputError: the image is no DICOM series of one slice a file.
    """
    wrong = "a .dcm can be written of a DICOM series with one slice in each file; write a .seg.nrrd"
    if path.is_file():
        raw = read_raw(path)
        if not raw.is_dicom or geometry.shape_kji[0] != 1:
            raise OutputError(f"{path.name}: {wrong}")
        return (path,)
    chosen = dicom.choose_series(dicom.find_series(path), series).slices
    if len(chosen) != geometry.shape_kji[0]:
        raise OutputError(f"the series: {wrong}")
    if len(chosen) == 1:
        return (chosen[0].path,)
    stack = dicom.place_slices([header.position for header in chosen], chosen[0].orientation, chosen[0].spacing_ij)
    return tuple(chosen[n].path for n in stack.order)


def dicom_segmentation(sources: Sequence[Path], segments: Sequence[DicomSegment]) -> Any:
    """Return a DICOM Segmentation object (binary), which refers to every slice that it has a segment on.

    Patient, study and frame of reference are those of the source, as the standard requires. Segments may overlap.

    Args:
        sources: the files of the slices, in the order of k.
        segments: at least one, each with a voxel.

    Raises:
        PackageMissingError: `highdicom` is not installed.
        OutputError: a segment is empty.
    """
    from pydicom.uid import ExplicitVRLittleEndian

    highdicom = import_highdicom()
    empty = [segment.name for segment in segments if not segment.mask.any()]
    if empty:
        raise OutputError(f"{empty[0]!r} is empty, which a .dcm cannot hold; leave it out")
    used = used_slices(segments)
    return highdicom.seg.Segmentation(
        source_images=read_headers([sources[k] for k in used]),
        pixel_array=np.stack([segment.mask[used] for segment in segments], axis=-1),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(highdicom, n, segment) for n, segment in enumerate(segments, start=1)],
        manufacturer=MAKER,
        content_label="SEGMENTATION",
        series_description=f"{MAKER}: {', '.join(segment.name for segment in segments)}"[:_LONGEST_LABEL],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **identity(highdicom, _SERIES_NUMBER, is_image=True),
    )


def used_slices(segments: Sequence[DicomSegment]) -> NDArray[np.intp]:
    """Return the numbers of the slices that a segment has a voxel on, from 0, in order."""
    return np.flatnonzero(np.any([segment.mask.any(axis=(1, 2)) for segment in segments], axis=0))


def write_dicom(path: Path, make: Callable[[], Any]) -> None:
    """Write a DICOM object to a file.

    Args:
        path: the file.
        make: returns the object.

    Raises:
        PackageMissingError: `highdicom` is not installed.
        OutputError: the source lacks what a DICOM object of its study needs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some name the patient
            make().save_as(path)
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{path.name}: the series lacks what a DICOM object of it needs: {error}") from error


def read_headers(sources: Sequence[Path]) -> list[Any]:
    """Read the headers of DICOM files, with the character set that some leave empty."""
    import pydicom

    images = [pydicom.dcmread(path, stop_before_pixels=True) for path in sources]
    for image in images:
        image.SpecificCharacterSet = image.get("SpecificCharacterSet") or "ISO_IR 192"
    return images


def identity(highdicom: ModuleType, series_number: int, *, is_image: bool = False) -> dict[str, Any]:
    """Return the identity of a new object in a series of its own; of an image, also what made it."""
    from .. import __version__

    own: dict[str, Any] = {"series_instance_uid": highdicom.UID(), "sop_instance_uid": highdicom.UID()}
    if is_image:
        own |= {
            "manufacturer_model_name": MAKER,
            "software_versions": __version__,
            "device_serial_number": __version__,
        }
    return own | {"series_number": series_number, "instance_number": 1}


def _description(highdicom: ModuleType, number: int, segment: DicomSegment) -> Any:
    types = highdicom.seg.SegmentAlgorithmTypeValues
    family = coded(highdicom, Coded("DCM", "123109", "Artificial Intelligence"))
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:_LONGEST_LABEL],
        segmented_property_category=coded(highdicom, segment.category),
        segmented_property_type=coded(highdicom, segment.type),
        algorithm_type=types.AUTOMATIC if segment.is_automatic else types.SEMIAUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=segment.algorithm[:_LONGEST_LABEL], family=family, version=segment.version[:_LONGEST_LABEL]
        ),
        tracking_uid=highdicom.UID.from_uuid(segment.tracking_id),
        tracking_id=segment.tracking_id,
        display_color=highdicom.color.CIELabColor.from_rgb(*(round(255 * part) for part in segment.colour)),
    )
    if segment.modifier is not None:
        (kind,) = description.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(highdicom, segment.modifier)]
    return description


def coded(highdicom: ModuleType, code: Coded) -> Any:
    """Return a concept as `highdicom` takes it."""
    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)


def import_highdicom() -> Any:
    """Import `highdicom`.

    Raises:
        PackageMissingError: it is not installed.
    """
    try:
        import highdicom
    except ModuleNotFoundError as error:
        raise package_missing("a DICOM segmentation", "highdicom") from error
    return highdicom


@dataclass(frozen=True, slots=True, eq=False)
class DicomSegmentation:
    """The segments of a DICOM SEG on one grid: the mask (K, J, I) of each, by name."""

    masks: Mapping[str, NDArray[np.bool_]]
    geometry: Geometry


def read_dicom_segmentation(path: Path) -> DicomSegmentation:
    """Read the segments of a DICOM SEG on the smallest grid that holds its frames.

    Raises:
        PackageMissingError: `highdicom` is not installed.
        InputError: it is damaged, fractional, or two segments have one name.
        GeometryError: its frames lie on no regular grid.
    """
    highdicom = import_highdicom()
    try:
        document = highdicom.seg.segread(path)
        is_binary = document.SegmentationType == "BINARY"
        numbers = [int(number) for number in document.segment_numbers]
        names = [document.get_segment_description(number).segment_label for number in numbers]
    except (AttributeError, ValueError, TypeError, KeyError, OSError) as error:
        raise InputError(f"{path.name} is no DICOM segmentation that can be read: {error}") from error
    if not is_binary:
        raise InputError(f"{path.name} holds fractional segments; save it with binary ones")
    if len(set(names)) != len(names):
        raise InputError(f"{path.name} has several segments of one name; rename them")
    numbered = dict(zip(numbers, names, strict=True))
    frames = [_frame(document, n, numbered) for n in range(int(document.NumberOfFrames))]
    stack = _place_frames([position for _, position in frames], _shared(document), path)
    pixels = document.pixel_array.reshape(len(frames), document.Rows, document.Columns)
    shape = (max(stack.numbers) + 1, document.Rows, document.Columns)
    masks = {name: np.zeros(shape, np.bool_) for name in names}
    for (name, _), k, frame in zip(frames, stack.numbers, pixels, strict=True):
        masks[name][k] |= frame.astype(np.bool_)
    return DicomSegmentation(masks, Geometry(swap_lps_ras(stack.matrix_lps), shape))


@dataclass(frozen=True, slots=True, eq=False)
class _FrameStack:
    """Where frames lie: the slice number of each, and the matrix of voxels to mm in LPS."""

    numbers: tuple[int, ...]
    matrix_lps: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """The plane that all frames share: directions of i and j, voxel size along them, and the distance of slices."""

    across: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing_ij: tuple[float, float]
    step_mm: float


def _frame(document: Any, n: int, names: Mapping[int, str]) -> tuple[str, NDArray[np.float64]]:
    """Read the segment and the position of a frame; what is the same for all frames may be shared."""
    groups = [document.PerFrameFunctionalGroupsSequence[n], document.SharedFunctionalGroupsSequence[0]]
    segment = next(g.SegmentIdentificationSequence[0] for g in groups if "SegmentIdentificationSequence" in g)
    position = next(g.PlanePositionSequence[0] for g in groups if "PlanePositionSequence" in g)
    return names[segment.ReferencedSegmentNumber], np.asarray(position.ImagePositionPatient, np.float64)


def _shared(document: Any) -> _Plane:
    """Read the plane, which is shared, or that of the first frame."""
    groups = [document.SharedFunctionalGroupsSequence[0], document.PerFrameFunctionalGroupsSequence[0]]
    orientation = next(g.PlaneOrientationSequence[0] for g in groups if "PlaneOrientationSequence" in g)
    measures = next(g.PixelMeasuresSequence[0] for g in groups if "PixelMeasuresSequence" in g)
    directions = np.asarray(orientation.ImageOrientationPatient, np.float64).reshape(2, 3)
    along_j, along_i = map(float, measures.PixelSpacing)
    step = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0
    return _Plane(directions[0], directions[1], (along_i, along_j), float(step))


def _place_frames(positions: Sequence[NDArray[np.float64]], plane: _Plane, path: Path) -> _FrameStack:
    """Number the slices of frames, some of which may be missing between others.

    Raises:
        GeometryError: they lie on no regular grid.
    """
    normal = np.cross(plane.across, plane.down)
    heights = np.asarray(positions) @ normal
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    real = np.flatnonzero(gaps > _SAME_HEIGHT_MM)
    first = np.asarray(positions[order[0]])
    step = plane.step_mm * normal
    if real.size:
        smallest = int(real[np.argmin(gaps[real])])
        step = np.asarray(positions[order[smallest + 1]]) - np.asarray(positions[order[smallest]])
    numbers = np.rint((heights - heights[order[0]]) / (step @ normal)).astype(int)
    if np.abs(np.asarray(positions) - first - numbers[:, None] * step).max() > _OFF_GRID_MM:
        raise GeometryError(f"{path.name}: its frames lie on no regular grid")
    if real.size:  # the farthest frame says best how far a slice is
        step = (np.asarray(positions[order[-1]]) - first) / numbers[order[-1]]
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack((plane.across * plane.spacing_ij[0], plane.down * plane.spacing_ij[1], step))
    matrix[:3, 3] = first
    return _FrameStack(tuple(numbers.tolist()), matrix)
