"""DICOM SEG: what is written on any series comes back voxel for voxel, and others' objects are read."""

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError, OutputError
from FoundationSegLib.io.dicom_segmentation import (
    TISSUE,
    Coded,
    DicomSegment,
    read_dicom_segmentation,
    source_files,
    write_dicom_segmentation,
)
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_label_map, read_mask_prompt, segment_names
from Testing.unit.io.conftest import dicom_image
from Testing.unit.io.test_dicom import rotation

pytest.importorskip("highdicom")
# What every real series has, and a synthetic one needs.
NEEDED = {
    "PatientBirthDate": "",
    "PatientSex": "",
    "StudyID": "",
    "AccessionNumber": "",
    "StudyDate": "",
    "StudyTime": "",
    "FrameOfReferenceUID": "1.2.3.4",
    "SliceThickness": "1",
    "PixelSpacing": [0.5, 0.7],
    "SpecificCharacterSet": "",
}
TRACKING = "6f1c1a8e-1111-5222-8333-444455556666"


def dicom_segment(name, mask, **changes):
    fields = {
        "colour": (0.9, 0.3, 0.1),
        "category": Coded("SCT", "123037004", "Anatomical Structure"),
        "type": Coded("SCT", "64033007", "Kidney"),
        "modifier": Coded("SCT", "7771000", "Left"),
        "is_automatic": False,
        "algorithm": "lite-medsam 0.1.1",
        "version": "1",
        "tracking_id": TRACKING,
    }
    return DicomSegment(name, mask, **{**fields, **changes})


def write_series(folder, shape, axes, step, seed):
    """Slices whose file names have nothing to do with their order."""
    rng = np.random.default_rng(seed)
    origin, orientation = rng.uniform(-200, 200, 3), [*axes[:, 0], *axes[:, 1]]
    pixels = rng.integers(-1000, 1000, shape, np.int16)
    for name, k in enumerate(rng.permutation(shape[0])):
        places = {"ImagePositionPatient": list(origin + k * step), "ImageOrientationPatient": orientation}
        rounded = {key: [float(f"{value:.9g}") for value in values] for key, values in places.items()}
        dicom_image(pixels[k], **NEEDED, **rounded).save_as(folder / f"{name}.dcm", enforce_file_format=True)


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32), tilt=st.sampled_from([0.0, 0.3]), gap=st.floats(0.5, 6), flip=st.booleans())
def test_every_voxel_comes_back_on_any_series(tmp_path_factory, seed, tilt, gap, flip):
    folder, axes, rng = tmp_path_factory.mktemp("series"), rotation(seed), np.random.default_rng(seed)
    if flip:
        axes[:, [0, 2]] *= -1
    write_series(folder, (7, 6, 5), axes, gap * (axes[:, 2] + tilt * axes[:, 1]), seed)
    volume = read_volume(folder)
    masks = {name: rng.random((7, 6, 5)) < 0.3 for name in ("Left kidney", "Über allem")}
    masks["Left kidney"][[0, 2, 3]] = False  # slices without a voxel are not written
    masks["Left kidney"][5, 0, 0] = True
    path = folder / "out.dcm"
    segments = [dicom_segment(name, mask) for name, mask in masks.items()]
    write_dicom_segmentation(path, source_files(folder, None, volume.geometry), segments)
    assert segment_names(path) == tuple(masks)
    for name, mask in masks.items():
        read, grid = read_mask_prompt(path, name)
        match = volume.geometry.match(grid)
        assert match is not None, "the grid is that of the series"
        whole = np.zeros_like(mask)
        whole[match.box.slices] = match.turned(read)
        assert np.array_equal(whole, mask)
    with pytest.raises(InputError, match="overlapping segments"):
        read_label_map(path)


def test_the_object_says_what_made_it_and_of_what(shared_data, tmp_path):
    folder = shared_data("dcmqi/ct-3slice/01.dcm").parent
    mask = np.zeros((3, 512, 512), np.bool_)
    mask[1, 100:110, 200:220] = True
    sources = source_files(folder, None, read_volume(folder).geometry)
    write_dicom_segmentation(tmp_path / "a.dcm", sources, [dicom_segment("Left kidney", mask)])
    written, source = pydicom.dcmread(tmp_path / "a.dcm"), pydicom.dcmread(sources[1])
    assert written.Modality == "SEG" and written.SegmentationType == "BINARY" and written.NumberOfFrames == 1
    assert written.StudyInstanceUID == source.StudyInstanceUID and written.PatientID == source.PatientID
    assert written.FrameOfReferenceUID == source.FrameOfReferenceUID
    (series,) = written.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == {source.SOPInstanceUID}
    (segment,) = written.SegmentSequence
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC" and segment.SegmentAlgorithmName == "lite-medsam 0.1.1"
    assert segment.TrackingID == TRACKING and segment.TrackingUID.startswith("2.25.")
    (kind,) = segment.SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("64033007", "SCT", "Kidney")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"


def test_others_objects_are_read(shared_data):
    labels, grid = read_label_map(shared_data("dcmqi/liver.dcm"))
    truth, truth_grid = read_label_map(shared_data("dcmqi/liver_spine_seg.nrrd"))
    match = truth_grid.match(grid)
    assert np.array_equal(match.turned(labels) > 0, (truth == 1)[match.box.slices])
    overlapping = read_dicom_segmentation(shared_data("dcmqi/partial_overlaps.dcm"))
    assert list(overlapping.masks)[:2] == ["GREEN", "ORANGE"] and all(m.any() for m in overlapping.masks.values())


def test_what_cannot_be_written_is_said(shared_data, tmp_path):
    folder = shared_data("dcmqi/ct-3slice/01.dcm").parent
    volume = read_volume(folder)
    sources = source_files(folder, None, volume.geometry)
    with pytest.raises(OutputError, match="'Liver' is empty"):
        empty = np.zeros((3, 512, 512), np.bool_)
        write_dicom_segmentation(tmp_path / "a.dcm", sources, [dicom_segment("Liver", empty, type=TISSUE)])
    with pytest.raises(OutputError, match="a DICOM series with one slice in each file"):
        source_files(shared_data("dcmqi/heart_seg.nrrd"), None, volume.geometry)
    (tmp_path / "cut.dcm").write_bytes(shared_data("dcmqi/liver.dcm").read_bytes()[:2000])
    with pytest.raises(InputError, match=r"cut\.dcm"):
        segment_names(tmp_path / "cut.dcm")
    with pytest.raises(InputError, match="has no segment 'Spleen'; it has: Liver"):
        read_mask_prompt(shared_data("dcmqi/liver.dcm"), "Spleen")
