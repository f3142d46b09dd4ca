"""Where the cases of a cohort come from, what they are called, and by what they are known."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.cohorts.cases import content_key, find_cases, stamp
from FoundationSegLib.errors import InputError
from Testing.unit.cohorts.conftest import write_case


def write_series(folder, uid):
    """Two slices of a series."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(2):
        image = sitk.GetImageFromArray(np.array([[[k, 1], [2, 3]]], np.int16))
        tags = {"0008|0060": "CT", "0020|000e": uid, "0020|0032": f"0\\0\\{k}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for name, value in tags.items():
            image.SetMetaData(name, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{uid}-{k}.dcm"))
        writer.Execute(image)


def names_of(*inputs, leave_out=None):
    return [case.name for case in find_cases(inputs, leave_out=leave_out or inputs[0] / "results")]


@pytest.fixture
def folder(tmp_path):
    """Images, DICOM series, results and what is none."""
    for name in ("b.nrrd", "a.nii.gz", "deep/b.nrrd", "results/old.nrrd"):
        write_case(tmp_path / name)
    shutil.copy(tmp_path / "b.nrrd", tmp_path / "seg.seg.nrrd")
    (tmp_path / "notes.txt").write_text("no image")
    write_series(tmp_path / "study" / "one", "1.2.3")
    write_series(tmp_path / "study" / "two", "1.2.4")
    write_series(tmp_path / "study" / "two", "1.2.5")
    return tmp_path


def test_a_folder_has_its_images_and_its_series(folder):
    expected = ["a", "b", "deep_b", "study_one", "study_two-1", "study_two-2"]
    assert names_of(folder) == expected
    assert names_of(folder / "*.n*", leave_out=folder) == ["a", "b"]
    assert [case.series for case in find_cases([folder / "study"], leave_out=folder / "results")] == [
        "1.2.3",
        "1.2.4",
        "1.2.5",
    ]


def test_names_are_safe_and_differ(tmp_path):
    (tmp_path / "t.csv").write_text("image,case\nx/a.nrrd,\ny/A.nrrd,\nz.nrrd,../CON\nw.nrrd,Ärzte mit Ö\n", "utf-8")
    assert names_of(tmp_path / "t.csv", leave_out=tmp_path) == ["a", "A-2", "case-CON", "rzte_mit"]


def test_a_bids_data_set_has_subjects(tmp_path):
    (tmp_path / "dataset_description.json").write_text("{}")
    for name in ("anat/sub-1_T1w.nii.gz", "anat/sub-1_T1w_mask.nii.gz", "func/sub-1_bold.nii.gz"):
        write_case(tmp_path / "sub-1" / name)
    write_case(tmp_path / "derivatives" / "sub-1" / "anat" / "sub-1_T1w.nii.gz")
    (case,) = find_cases([tmp_path], leave_out=tmp_path / "results")
    assert (case.name, case.patient) == ("sub-1_T1w", "1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("picture\na.nrrd\n", "has no column 'image'; it needs image"),
        ("image,case\n,x\n", "line 2: no image"),
        ("image,case\na.nrrd,x\nb.nrrd,x\n", "line 3: there is another case 'x'"),
        ("image\n", "no image was found"),
        ('image\n"a', "is no table"),
    ],
)
def test_a_table_that_is_wrong_says_where(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        find_cases([tmp_path / "t.csv"], leave_out=tmp_path)


def test_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no file fits it as a pattern"):
        find_cases([tmp_path / "nothing*.nrrd"])
    with pytest.raises(InputError, match="no image was found"):
        find_cases([tmp_path])


def test_content_is_what_counts_and_the_stamp_is_cheaper(folder):
    case, other, *_ = find_cases([folder / "b.nrrd", folder / "deep" / "b.nrrd"], leave_out=folder / "results")
    assert content_key(case, "s") == content_key(other, "s") != content_key(case, "t")
    assert stamp(case, "s") != stamp(other, "s")
    write_case(folder / "b.nrrd", 77)
    assert content_key(case, "s") != content_key(other, "s")
    series = find_cases([folder / "study"], leave_out=folder / "results")
    assert len({content_key(case, "s") for case in series}) == 3 == len({stamp(case, "s") for case in series})
    shutil.rmtree(folder / "study")
    with pytest.raises(InputError):
        content_key(series[0], "s")
