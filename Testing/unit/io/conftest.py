"""Files to read: the shared test images in place, and synthetic DICOM, NIfTI and NRRD files of any kind of badness."""

import gzip

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = CT + ".1"
AXIAL = (1, 0, 0, 0, 1, 0)
SERIES = "1.2.826.0.1.3680043.8.498.1"


@pytest.fixture
def noise():
    """(4, 6, 5) values that no two neighbours share."""
    return np.random.default_rng(7).permutation(120).reshape(4, 6, 5).astype(np.int16)


def dicom_image(pixels, **elements):
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
def write_dicom():
    """Write one DICOM image; elements by keyword."""

    def write(path, pixels, **elements):
        path.parent.mkdir(parents=True, exist_ok=True)
        dicom_image(pixels, **elements).save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def write_series(write_dicom):
    """Write a folder with one image for each position; file names run against the positions."""

    def write(folder, volume, positions, **elements):
        common = {"ImageOrientationPatient": list(AXIAL), "PixelSpacing": [0.5, 0.7], **elements}
        for n, (pixels, position) in enumerate(zip(volume, np.asarray(positions, float).tolist(), strict=True)):
            write_dicom(folder / f"{99 - n}.dcm", pixels, ImagePositionPatient=position, **common)
        return folder

    return write


def _sequence(**elements):
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return [item]


@pytest.fixture
def write_frames(write_dicom):
    """Write an enhanced multi-frame CT with one frame for each position."""

    def write(path, volume, positions, slopes=(), measures=None, spacings=(), **more):
        shared = _sequence(
            PixelMeasuresSequence=_sequence(**({"PixelSpacing": [0.5, 0.7]} if measures is None else measures)),
            PlaneOrientationSequence=_sequence(ImageOrientationPatient=list(AXIAL)),
        )
        frames = [
            _sequence(PlanePositionSequence=_sequence(ImagePositionPatient=position))[0]
            for position in np.asarray(positions, float).tolist()
        ]
        for frame, slope in zip(frames, slopes, strict=False):
            frame.PixelValueTransformationSequence = _sequence(RescaleSlope=slope, RescaleIntercept=0)
        for frame, spacing in zip(frames, spacings, strict=False):
            frame.PixelMeasuresSequence = _sequence(PixelSpacing=spacing)
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
def write_nifti():
    """Write a NIfTI-1 file, or NIfTI-2 with ``kind``, from the header's own fields."""

    def write(path, values, sform=None, order="<", sizes=None, kind=nibabel.Nifti1Header, **fields):
        header = kind(endianness=order)
        header.set_data_dtype(values.dtype)
        header.set_data_shape(sizes or values.shape[::-1])
        header["magic"] = kind.single_magic
        header["vox_offset"] = offset = 352 if kind is nibabel.Nifti1Header else 544
        header["xyzt_units"] = 2
        if sform is not None:
            header.set_sform(np.vstack((np.asarray(sform, float)[:3], (0, 0, 0, 1))), 1)
        for name, value in fields.items():
            header[name] = np.resize((*value, *[1] * 8), 8) if name == "pixdim" else value
        content = header.binaryblock.ljust(offset, b"\0") + values.astype(values.dtype.newbyteorder(order)).tobytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write


@pytest.fixture
def write_nrrd():
    """Write a raw NRRD file of 16-bit values; ``values`` has the slowest axis first."""

    def write(path, values, directions, kinds, *fields):
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
