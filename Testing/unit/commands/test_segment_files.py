"""What is written where: refused before any work where it cannot be, all or nothing, and never over what is read."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.commands.outputs import require_targets
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_label_map, read_mask_prompt
from Testing.unit.commands.conftest import START, block_mask, ct_array


def test_no_file_is_read_and_replaced_or_written_twice(desk):
    image = desk.write_image("ct.nii.gz", ct_array())
    before = image.read_bytes()
    (desk.folder / "link.nii.gz").symlink_to(image)
    same = desk.folder / "same.nrrd"
    for options, told in (
        ({"image": image, "output": image}, "--output ct.nii.gz would replace the image"),
        ({"image": image, "output": desk.folder / "link.nii.gz"}, "--output link.nii.gz would replace the image"),
        ({"image": desk.folder / "link.nii.gz", "output": image}, "--output ct.nii.gz would replace the image"),
        ({"image": image, "output": desk.folder / "." / "ct.nii.gz"}, "would replace the image"),
        ({"report": desk.prompts}, "--report prompts.json would replace the prompts file"),
        ({"output": same, "report": same}, "--report same.nrrd would replace --output"),
        ({"report": desk.folder / "a.png", "overview": desk.folder / "a.png"}, "would replace --report"),
    ):
        assert desk.segment(**options) == 2, options
        assert told in desk.err
    assert image.read_bytes() == before
    assert desk.files() == {"ct.nrrd", "ct.nii.gz", "link.nii.gz", "prompts.json"}


def test_old_files_are_replaced(desk):
    desk.output.write_bytes(b"old")
    report = desk.folder / "report.json"
    report.write_bytes(b"old")
    assert desk.segment(report=report) == 0
    assert json.loads(report.read_text(encoding="utf-8"))["command"] == "segment"
    assert np.array_equal(read_mask_prompt(desk.output, "Left")[0], block_mask("Left"))
    assert desk.files() == {*START, "report.json", "result.seg.nrrd"}


def test_an_unwritable_output_is_found_before_anything_is_read(desk):
    """Neither the image, nor the prompts, nor the store is looked at for that."""
    shutil.rmtree(desk.folder.parent / "store")
    absent = {"image": desk.folder / "none.nrrd", "prompts": desk.folder / "none.json"}
    missing = desk.folder / "missing"
    for options in (
        {"output": missing / "a.seg.nrrd"},
        {"output": desk.folder / "a.png"},
        {"output": desk.folder},
        {"report": missing / "a.json"},
        {"report": desk.folder},
        {"overview": missing / "a.png"},
        {"overview": desk.folder / "a.jpg"},
        {"output": "/proc/result.seg.nrrd"} if sys.platform == "linux" else {"output": desk.folder},
    ):
        desk.segment(**absent | options)
        desk.assert_refused(2, *(path.name for path in map(Path, options.values())))


@pytest.mark.parametrize("culprit", ["report", "label map"])
def test_old_files_survive_a_failure(desk, monkeypatch, culprit):
    """The file that cannot be written is named, and not the one beside it that was to take its place."""
    paths = {name: desk.folder / file for name, file in (("output", "result.nrrd"), ("report", "report.json"))}
    for path in paths.values():
        path.write_bytes(b"old")

    def fail(*arguments, **options):
        next(argument for argument in arguments if isinstance(argument, Path)).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    if culprit == "report":
        monkeypatch.setattr(Path, "write_text", fail)
    else:
        monkeypatch.setattr(sitk, "WriteImage", lambda image, path, **options: fail(Path(path)))
    assert desk.segment(**paths) == 2
    name = "report.json" if culprit == "report" else "result.nrrd"
    assert desk.err == f"foundationseg: {name} cannot be written: No space left on device; make room on the disk\n"
    assert {path.read_bytes() for path in paths.values()} == {b"old"}
    assert desk.files() == {*START, *(path.name for path in paths.values())}


def test_where_the_result_cannot_be_put_in_place_no_other_file_is(desk, monkeypatch):
    """As on Windows, while another program has the old result open."""
    report = desk.folder / "report.json"
    for path in (desk.output, report):
        path.write_bytes(b"old")
    replace = Path.replace

    def held_open(path, target):
        if target.name == desk.output.name:
            raise PermissionError(13, "Permission denied")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", held_open)
    assert desk.segment(report=report) == 2
    assert desk.err.startswith("foundationseg: result.seg.nrrd cannot be written: Permission denied; allow it, close")
    assert {path.read_bytes() for path in (desk.output, report)} == {b"old"}
    assert desk.files() == {*START, "result.seg.nrrd", "report.json"}


def test_a_sheared_image_fits_no_nifti_and_that_is_found_before_inference(desk):
    image = sitk.GetImageFromArray(ct_array())
    image.SetDirection((1, 0.2, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(desk.folder / "sheared.nrrd"))
    desk.segment(image=desk.folder / "sheared.nrrd", output=desk.folder / "a.nii.gz")
    desk.assert_refused(2, "a.nii.gz: the image's grid is sheared", files={*START, "sheared.nrrd"})
    assert desk.model.encoded == []
    assert desk.segment(image=desk.folder / "sheared.nrrd", output=desk.folder / "a.nrrd") == 0


def test_an_image_with_cosines_of_four_decimals_is_written_as_nifti(desk):
    image = sitk.GetImageFromArray(ct_array())
    cosines = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    image.SetDirection(np.round(cosines, 4).ravel().tolist())
    sitk.WriteImage(image, str(desk.folder / "oblique.nrrd"))
    assert desk.segment(image=desk.folder / "oblique.nrrd", output=desk.folder / "a.nii.gz") == 0, desk.err
    grids = [read_volume(desk.folder / "oblique.nrrd").geometry, read_label_map(desk.folder / "a.nii.gz")[1]]
    assert np.allclose(*(grid.ijk_to_ras for grid in grids), atol=1e-6)


def test_a_grid_that_nifti_cannot_hold_is_refused_before_the_model_is_asked(desk):
    image = sitk.GetImageFromArray(ct_array())
    image.SetSpacing((3e-5, 3e-5, 3e-5))
    image.SetOrigin((500.3, -400.1, 1200.7))
    sitk.WriteImage(image, str(desk.folder / "fine.nrrd"))
    desk.segment(image=desk.folder / "fine.nrrd", output=desk.folder / "a.nii.gz")
    desk.assert_refused(2, "a.nii.gz: NIfTI cannot hold the image's grid exactly enough", files={*START, "fine.nrrd"})
    assert desk.model.encoded == []


def test_a_map_in_dicom_of_an_image_without_it_is_refused_before_the_model_is_asked(desk):
    pytest.importorskip("highdicom")
    desk.segment(uncertainty=desk.folder / "map.dcm")
    desk.assert_refused(2, "a .dcm can be written of a DICOM series", files=START)
    assert desk.model.encoded == []


def test_a_drive_that_is_not_there_is_looked_at_once(tmp_path):
    class MissingDrive(type(tmp_path)):
        """A path on a drive that Windows does not find, such as ``Q:``: not even its root is there."""

        def stat(self, **_):
            raise FileNotFoundError(2, "The system cannot find the path specified")

    require_targets({"csv": tmp_path / "new.csv"}, {"the image": MissingDrive("/q/a.png")})


def test_a_dicom_series_gets_a_dicom_segmentation_that_is_a_seed_again(desk, shared_data):
    pytest.importorskip("highdicom")
    series = shared_data("dcmqi/ct-3slice/01.dcm").parent
    boxes = {"Liver": [[100, 150, 1], [300, 350, 1]], "Left kidney": [[330, 250, 0], [400, 330, 2]]}
    segments = [{"name": name, "prompts": [desk.box(corners)]} for name, corners in boxes.items()]
    prompts = desk.write_prompts({"version": 1, "space": "ijk", "segments": segments}, "organs.json")
    written = desk.folder / "organs.dcm"
    files = {"output": written, "report": desk.folder / "r.json", "uncertainty": desk.folder / "map.dcm"}
    assert desk.segment(image=series, prompts=prompts, **files) == 0, desk.err
    parametric = pytest.importorskip("pydicom").dcmread(files["uncertainty"])
    (mapping,) = parametric.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.LUTLabel == "uncertainty" and "Liver, Left kidney" in parametric.ContentDescription
    counts = {
        row["name"]: row["voxels"]
        for row in json.loads((desk.folder / "r.json").read_text(encoding="utf-8"))["segments"]
    }
    assert {name: read_mask_prompt(written, name)[0].sum() for name in boxes} == counts
    assert desk.segment(image=desk.image, output=desk.folder / "ct.dcm") == 2
    assert "a DICOM series with one slice in each file" in desk.err
