"""Files to read: the shared test images in place, and synthetic DICOM, NIfTI and NRRD files of any kind of badness."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = CT + ".1"
AXIAL = (1, 0, 0, 0, 1, 0)
SERIES = "1.2.826.0.1.3680043.8.498.1"


@pytest.fixture
def noise() -> NDArray[np.int16]:
    """(4, 6, 5) values that no two neighbours share."""
    return np.random.default_rng(7).permutation(120).reshape(4, 6, 5).astype(np.int16)


def dicom_image(pixels: NDArray[Any], **elements: Any) -> Dataset:
    """A CT image; other elements are given by their keywords."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = elements.pop("syntax", ExplicitVRLittleEndian)
    image.SOPClassUID = elements.pop("SOPClassUID", CT)
    image.SOPInstanceUID = generate_uid()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = SERIES + ".9", SERIES, "CT"
    image.PatientName, image.PatientID, image.SeriesDescription = "Doe^Jane", "secret-id", "secret series"
    image.Rows, image.Columns = pixels.shape[-2:]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = pixels.dtype.itemsize * 8
    image.HighBit = image.BitsStored - 1
    image.PixelRepresentation = int(pixels.dtype.kind == "i")
    image.PixelData = pixels.tobytes()
    image["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(image, keyword, value)
    return image


@pytest.fixture
def write_dicom() -> Callable[..., Path]:
    """Write one DICOM image; elements by keyword."""

    def write(path: Path, pixels: NDArray[Any], **elements: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        dicom_image(pixels, **elements).save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def write_series(write_dicom: Callable[..., Path]) -> Callable[..., Path]:
    """Write a folder with one image for each position; file names run against the positions."""

    def write(folder: Path, volume: NDArray[Any], positions: ArrayLike, **elements: Any) -> Path:
        common = {"ImageOrientationPatient": list(AXIAL), "PixelSpacing": [0.5, 0.7], **elements}
        for n, (pixels, position) in enumerate(zip(volume, np.asarray(positions, float).tolist(), strict=True)):
            write_dicom(folder / f"{99 - n}.dcm", pixels, ImagePositionPatient=position, **common)
        return folder

    return write


def _sequence(**elements: Any) -> list[Dataset]:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return [item]


@pytest.fixture
def write_frames(write_dicom: Callable[..., Path]) -> Callable[..., Path]:
    """Write an enhanced multi-frame CT with one frame for each position."""

    def write(
        path: Path, volume: NDArray[Any], positions: ArrayLike, slopes: tuple[float, ...] = (), **more: Any
    ) -> Path:
        shared = _sequence(
            PixelMeasuresSequence=_sequence(PixelSpacing=[0.5, 0.7], SliceThickness=3),
            PlaneOrientationSequence=_sequence(ImageOrientationPatient=list(AXIAL)),
        )
        frames = [
            _sequence(PlanePositionSequence=_sequence(ImagePositionPatient=position))[0]
            for position in np.asarray(positions, float).tolist()
        ]
        for frame, slope in zip(frames, slopes, strict=False):
            frame.PixelValueTransformationSequence = _sequence(RescaleSlope=slope, RescaleIntercept=0)
        elements = {
            "SOPClassUID": ENHANCED_CT,
            "NumberOfFrames": len(volume),
            "SharedFunctionalGroupsSequence": shared,
            "PerFrameFunctionalGroupsSequence": frames,
            **more,
        }
        return write_dicom(path, volume, **elements)

    return write


@pytest.fixture
def write_nifti() -> Callable[..., Path]:
    """Write an uncompressed NIfTI-1 file of 16-bit values from the header's own fields."""

    def write(
        path: Path,
        values: NDArray[np.int16],
        *,
        sform: ArrayLike | None = None,
        sform_code: int = 1,
        qform_code: int = 0,
        pixdim: tuple[float, ...] = (1, 1, 1, 1),
        sizes: tuple[int, ...] | None = None,
        units: int = 2,
        order: str = "<",
    ) -> Path:
        header = bytearray(352)
        dim = sizes or values.shape[::-1]
        struct.pack_into(order + "i", header, 0, 348)
        struct.pack_into(order + "8h", header, 40, len(dim), *dim, *[1] * (7 - len(dim)))
        struct.pack_into(order + "2h", header, 70, 4, 16)
        struct.pack_into(order + "8f", header, 76, *pixdim, *[1] * (8 - len(pixdim)))
        struct.pack_into(order + "2f", header, 108, 352, 1)
        header[123] = units
        struct.pack_into(order + "2h", header, 252, qform_code, 0 if sform is None else sform_code)
        if sform is not None:
            struct.pack_into(order + "12f", header, 280, *np.asarray(sform, float)[:3].ravel())
        header[344:348] = b"n+1\0"
        path.write_bytes(bytes(header) + values.astype(order + "i2").tobytes())
        return path

    return write


@pytest.fixture
def write_nrrd() -> Callable[..., Path]:
    """Write a raw NRRD file of 16-bit values; ``values`` has the slowest axis first."""

    def write(path: Path, values: NDArray[Any], directions: str, kinds: str, *fields: str) -> Path:
        lines = (
            "NRRD0005",
            "type: short",
            f"dimension: {values.ndim}",
            "space: left-posterior-superior",
            f"sizes: {' '.join(map(str, values.shape[::-1]))}",
            f"space directions: {directions}",
            f"kinds: {kinds}",
            "endian: little",
            "encoding: raw",
            "space origin: (1,2,3)",
            *fields,
        )
        path.write_bytes("\n".join(lines).encode() + b"\n\n" + values.astype("<i2").tobytes())
        return path

    return write
