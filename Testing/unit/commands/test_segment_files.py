"""What is written where: refused before any work where it cannot be, all or nothing, and never over what is read."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.commands import checkpoints, results, segment, words
from FoundationSegLib.errors import OutputError
from FoundationSegLib.io import images
from FoundationSegLib.io.segmentations import read_mask_prompt
from Testing.unit.commands.conftest import START, block_mask, ct_array


def test_an_unwritable_output_is_found_before_anything_is_read_or_downloaded(desk, monkeypatch):
    """Neither the image, nor the prompts, nor the store may be touched for that."""

    def touched(*arguments, **options):
        pytest.fail("too early")

    monkeypatch.setattr(images, "read_volume", touched)
    monkeypatch.setattr(words, "read_prompts", touched)
    monkeypatch.setattr(checkpoints, "Store", touched)
    missing = desk.folder / "missing"
    for options in (
        {"output": missing / "a.seg.nrrd"},
        {"output": desk.folder / "a.png"},
        {"output": desk.folder},
        {"report": missing / "a.json"},
        {"report": desk.folder},
        {"overview": missing / "a.png"},
        {"overview": desk.folder / "a.jpg"},
    ):
        assert desk.segment(**options) == 2, options
        assert len(desk.err.splitlines()) == 1
    assert desk.files() == START


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder where not even root can write")
def test_a_folder_that_cannot_be_written_is_found_first(desk, monkeypatch):
    monkeypatch.setattr(images, "read_volume", lambda *arguments, **options: pytest.fail("too early"))
    assert desk.segment(output="/proc/result.seg.nrrd") == 2
    assert "result.seg.nrrd cannot be written there" in desk.err


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


def test_all_files_are_written_or_none(desk, monkeypatch):
    wanted = {"report": desk.folder / "report.json", "overview": desk.folder / "overview.png"}

    def fail(*arguments, **options):
        raise OutputError("no OpenGL here")

    monkeypatch.setattr(results, "render_overview", fail)
    assert desk.segment(**wanted) == 2
    assert desk.err == "foundationseg: no OpenGL here\n"
    assert desk.files() == START


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), OutputError("full")])
@pytest.mark.parametrize("where", ["render_overview", "write_segmentation", "report"])
def test_old_files_survive_a_failure(desk, monkeypatch, where, fault):
    old = {}
    for name in ("result.seg.nrrd", "report.json", "overview.png"):
        old[name] = f"old {name}".encode()
        (desk.folder / name).write_bytes(old[name])

    def fail(*arguments, **options):
        next(argument for argument in arguments if isinstance(argument, Path)).write_bytes(b"half")
        raise fault

    monkeypatch.setattr(results, "render_overview", lambda *arguments, **options: arguments[2].write_bytes(b"new"))
    if where == "report":
        monkeypatch.setattr(Path, "write_text", fail)
    else:
        monkeypatch.setattr(results, where, fail)
    options = {"report": desk.folder / "report.json", "overview": desk.folder / "overview.png"}
    assert desk.segment(**options) == 2
    assert len(desk.err.splitlines()) == 1
    for name, content in old.items():
        assert (desk.folder / name).read_bytes() == content
    assert desk.files() == {*START, *old}


def test_where_the_result_cannot_be_put_in_place_no_other_file_is(desk, monkeypatch):
    """As on Windows, while another program has the old result open."""
    wanted = {"report": desk.folder / "report.json", "overview": desk.folder / "overview.png"}
    for path in (desk.output, *wanted.values()):
        path.write_bytes(b"old")
    replace = Path.replace

    def held_open(path, target):
        if target.name == desk.output.name:
            raise PermissionError(13, "Permission denied")
        return replace(path, target)

    monkeypatch.setattr(results, "render_overview", lambda *arguments, **options: arguments[2].write_bytes(b"new"))
    monkeypatch.setattr(Path, "replace", held_open)
    assert desk.segment(**wanted) == 2
    assert desk.err == "foundationseg: result.seg.nrrd cannot be written: Permission denied\n"
    assert {path.read_bytes() for path in (desk.output, *wanted.values())} == {b"old"}
    assert desk.files() == {*START, "result.seg.nrrd", "report.json", "overview.png"}


def test_old_files_are_replaced(desk):
    desk.output.write_bytes(b"old")
    report = desk.folder / "report.json"
    report.write_bytes(b"old")
    assert desk.segment(report=report) == 0
    assert json.loads(report.read_text(encoding="utf-8"))["command"] == "segment"
    assert np.array_equal(read_mask_prompt(desk.output, "Left")[0], block_mask("Left"))
    assert desk.files() == {*START, "report.json", "result.seg.nrrd"}


def test_an_error_in_writing_names_the_file_and_not_the_one_beside_it(desk, monkeypatch):
    def fail(path, *arguments):
        raise OutputError(f"{path.name} cannot be written; is there space left?")

    monkeypatch.setattr(results, "write_label_map", fail)
    assert desk.segment(output=desk.folder / "a.nii.gz") == 2
    assert desk.err == "foundationseg: a.nii.gz cannot be written; is there space left?\n"


def test_a_sheared_image_fits_no_nifti_and_that_is_found_before_inference(desk, monkeypatch):
    image = sitk.GetImageFromArray(ct_array())
    image.SetDirection((1, 0.2, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(desk.folder / "sheared.nrrd"))
    with monkeypatch.context() as patch:
        patch.setattr(segment, "_predict", lambda *arguments: pytest.fail("too early"))
        assert desk.segment(image=desk.folder / "sheared.nrrd", output=desk.folder / "a.nii.gz") == 2
    assert desk.err.startswith("foundationseg: a.nii.gz: the image's grid is sheared")
    assert desk.segment(image=desk.folder / "sheared.nrrd", output=desk.folder / "a.nrrd") == 0
