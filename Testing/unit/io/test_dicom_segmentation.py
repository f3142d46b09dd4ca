"""DICOM SEG: what is written on any series comes back voxel for voxel, and others' objects are read."""

import functools
import json
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
import slicer

from FoundationSegLib.errors import InputError, OutputError
from FoundationSegLib.io.dicom_measurements import (
    Measured,
    evidence_quantity,
    measurement_report,
    parametric_map,
    uncertainty_quantity,
)
from FoundationSegLib.io.dicom_segmentation import (
    TISSUE,
    Coded,
    DicomSegment,
    dicom_segmentation,
    read_dicom_segmentation,
    source_files,
    write_dicom,
)
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_label_map, read_mask_prompt, segment_names
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.segments import read_segment
from Testing.unit.fakes import on_image
from Testing.unit.io.conftest import dicom_image
from Testing.unit.io.test_dicom import rotation

highdicom = pytest.importorskip("highdicom")
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


def random_series(folder, seed):
    """Write a series of any orientation: turned, some flipped, tilted or with gaps; its (K, J, I) shape."""
    axes, rng = rotation(seed), np.random.default_rng(seed)
    if seed % 2:
        axes[:, [0, 2]] *= -1
    tilt = 0.3 if seed % 3 == 0 else 0.0
    shape = tuple(rng.integers(3, 9, 3).tolist())
    folder.mkdir()
    write_series(folder, shape, axes, rng.uniform(0.5, 6) * (axes[:, 2] + tilt * axes[:, 1]), seed)
    return shape


def random_masks(shape, seed):
    """Two segments that overlap, one of them not on every slice."""
    rng = np.random.default_rng(seed)
    masks = {name: rng.random(shape) < 0.4 for name in ("Left kidney", "Über allem")}
    masks["Left kidney"][1] = False
    masks["Left kidney"][-1, 0, 0] = masks["Über allem"][0, 0, 0] = True
    return masks


def write_masks(path, folder, masks):
    """The masks as a DICOM segmentation of the series in a folder; the series as an image."""
    volume = read_volume(folder)
    sources, segments = source_files(folder, None, volume.geometry), [dicom_segment(*pair) for pair in masks.items()]
    write_dicom(path, lambda: dicom_segmentation(sources, segments))
    return volume


def test_every_voxel_comes_back_on_any_series(tmp_path, full):
    for seed in range(30 if full else 4):
        folder, path = tmp_path / f"{seed}", tmp_path / f"{seed}.dcm"
        masks = random_masks(random_series(folder, seed), seed)
        volume = write_masks(path, folder, masks)
        assert segment_names(path) == tuple(masks)
        for name, mask in masks.items():
            assert np.array_equal(on_image(volume, *read_mask_prompt(path, name)), mask), (seed, name)
        with pytest.raises(InputError, match="overlapping segments"):
            read_label_map(path)


def test_dcmqi_and_slicer_read_every_voxel(tmp_path, full):
    """Slicer reads DICOM segmentations by dcmqi (QuantitativeReporting), and its label maps into a segmentation."""
    reader = shutil.which("segimage2itkimage")
    if reader is None:
        pytest.skip("dcmqi is not on the path: python -m pip install dcmqi")
    for seed in [seed for seed in range(45) if seed % 3][: 30 if full else 2]:  # a tilt is nothing that it can say
        folder, path, out = tmp_path / f"{seed}", tmp_path / f"{seed}.dcm", tmp_path / f"{seed}-out"
        masks = random_masks(random_series(folder, seed), seed)
        volume = write_masks(path, folder, masks)
        out.mkdir()
        line = (reader, "--inputDICOM", str(path), "--outputDirectory", str(out), "-t", "nrrd")
        subprocess.run(line, check=True, capture_output=True)
        meta = json.loads((out / "meta.json").read_text(encoding="utf-8"))
        labels = {
            entry["SegmentLabel"]: (file, entry["labelID"])
            for file, group in enumerate(meta["segmentAttributes"], start=1)
            for entry in group
        }
        assert set(labels) == set(masks)
        for name, mask in masks.items():
            file, label = labels[name]
            values, grid = read_label_map(out / f"{file}.nrrd")
            assert np.array_equal(on_image(volume, values == label, grid), mask), (seed, name)
            assert np.array_equal(in_slicer(volume, out / f"{file}.nrrd", label), mask), (seed, name)


def in_slicer(volume, path, label):
    """A label of a file in Slicer's segmentation on the image."""
    headless = boot_scene()
    storage, node = slicer.vtkMRMLVolumeArchetypeStorageNode(), slicer.vtkMRMLLabelMapVolumeNode()
    headless.scene.AddNode(node)
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    segmentation = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(node, segmentation)
    segments = segmentation.GetSegmentation()
    every = [segments.GetNthSegment(n) for n in range(segments.GetNumberOfSegments())]
    (segment,) = [segment for segment in every if segment.GetLabelValue() == label]
    return read_segment(segment, volume.geometry)


@pytest.fixture
def written(shared_data, tmp_path):
    """A segmentation, its measurements and maps on a real series: what was measured, the values, and the files."""
    folder = shared_data("dcmqi/ct-3slice/01.dcm").parent
    volume = read_volume(folder)
    sources = source_files(folder, None, volume.geometry)
    mask = np.zeros((3, 512, 512), np.bool_)
    mask[1, 100:110, 200:220] = True
    segments = [dicom_segment("Left kidney", mask)]
    measured = Measured(200 * volume.geometry.voxel_volume_mm3, 18.0, float(volume.array_kji[mask].mean()))
    values = np.linspace(-1, 2, 2 * 512 * 512, dtype=np.float32).reshape(2, 512, 512)
    segmentation = functools.cache(lambda: dicom_segmentation(sources, segments))
    used = [tmp_path / "unread.dcm", sources[1], tmp_path / "unread.dcm"]  # without a segment no slice is read
    objects = {
        "segmentation": segmentation,
        "measurements": lambda: measurement_report(segmentation(), used, segments, [measured]),
        "evidence": lambda: parametric_map(sources[1:], values, evidence_quantity("Liver", "similarity")),
        "uncertainty": lambda: parametric_map(sources[1:], abs(values) / 2, uncertainty_quantity("Left kidney")),
    }
    for name, make in objects.items():
        write_dicom(tmp_path / f"{name}.dcm", make)
    return measured, values, {name: tmp_path / f"{name}.dcm" for name in objects}


def test_measurements_are_read_back(written):
    measured, _, paths = written
    report = highdicom.sr.srread(paths["measurements"])
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    assert group.referenced_segment.referenced_sop_instance_uid == pydicom.dcmread(paths["segmentation"]).SOPInstanceUID
    assert group.finding_type.meaning == "Kidney" and group.finding_sites[0].laterality.meaning == "Left"
    values = [(m.name.meaning, m.value, m.unit.value) for m in group.get_measurements()]
    assert [(name, unit) for name, _, unit in values] == [
        ("Volume", "mm3"),
        ("Long Axis", "mm"),
        ("Attenuation Coefficient", "[hnsf'U]"),
    ]
    expected = (measured.volume_mm3, measured.diameter_mm, measured.mean)
    assert [value for _, value, _ in values] == pytest.approx(expected, rel=1e-6)


def test_maps_are_read_back(written):
    _, values, paths = written
    for name, expected in (("evidence", values), ("uncertainty", abs(values) / 2)):
        document = pydicom.dcmread(paths[name])
        stored = np.frombuffer(document.FloatPixelData, np.float32).reshape(expected.shape)
        places = [frame.PlanePositionSequence[0] for frame in document.PerFrameFunctionalGroupsSequence]
        upwards = np.argsort([place.ImagePositionPatient[2] for place in places])  # in an order of their own
        assert np.array_equal(stored[upwards], expected)
        mapping = document.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert name in mapping.LUTLabel and mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"


def test_dicoms_own_judge_finds_no_error(written):
    judge = shutil.which("dciodvfy")
    if judge is None:
        pytest.skip("dciodvfy is not here: apt-get install dicom3tools")
    for name, path in written[2].items():
        answer = subprocess.run((judge, str(path)), capture_output=True, text=True, check=False)
        errors = [line for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("Error")]
        assert not errors, (name, errors)


def test_the_object_says_what_made_it_and_of_what(written, shared_data):
    document, source = (
        pydicom.dcmread(written[2]["segmentation"]),
        pydicom.dcmread(shared_data("dcmqi/ct-3slice/02.dcm")),
    )
    assert document.Modality == "SEG" and document.SegmentationType == "BINARY" and document.NumberOfFrames == 1
    assert document.StudyInstanceUID == source.StudyInstanceUID and document.PatientID == source.PatientID
    assert document.FrameOfReferenceUID == source.FrameOfReferenceUID
    (series,) = document.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == {source.SOPInstanceUID}
    (segment,) = document.SegmentSequence
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
        dicom_segmentation(sources, [dicom_segment("Liver", empty, type=TISSUE)])
    with pytest.raises(OutputError, match="a DICOM series with one slice in each file"):
        source_files(shared_data("dcmqi/heart_seg.nrrd"), None, volume.geometry)
    (tmp_path / "cut.dcm").write_bytes(shared_data("dcmqi/liver.dcm").read_bytes()[:2000])
    with pytest.raises(InputError, match=r"cut\.dcm"):
        segment_names(tmp_path / "cut.dcm")
    with pytest.raises(InputError, match="has no segment 'Spleen'; it has: Liver"):
        read_mask_prompt(shared_data("dcmqi/liver.dcm"), "Spleen")
