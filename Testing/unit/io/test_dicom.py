"""DICOM folders: one series becomes one volume, placed by its own positions; everything else is named and refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from FoundationSegLib.core.errors import GeometryError, InputError
from FoundationSegLib.io.dicom import choose_series, find_series, read_folder
from FoundationSegLib.io.images import read_volume

Writer = Callable[..., Path]
EVEN = tuple((10.0, 20.0, 3.0 * k) for k in range(4))
FIRST, SECOND = "1.2.3.10", "1.2.3.27"


def test_shared_series(shared_data: Callable[[str], Path]) -> None:
    volume = read_volume(shared_data("dcmqi/ct-3slice"))
    assert volume.array_kji.shape == (3, 512, 512)
    assert (int(volume.array_kji.min()), volume.modality, volume.window_level) == (-3024, "CT", (400, 40))
    assert np.allclose(volume.geometry.spacing_mm, (0.810547, 0.810547, 1))
    assert np.allclose(volume.geometry.to_ras((0, 0, 0)), (235.199997, 226.800003, -128.690002))
    single = read_volume(shared_data("dcmqi/ct-3slice/03.dcm"))
    assert np.array_equal(volume.array_kji[0], single.array_kji[0])


def test_slices_are_ordered_by_position(tmp_path: Path, noise: NDArray[np.int16], write_series: Writer) -> None:
    volume = read_volume(write_series(tmp_path, noise, EVEN))
    assert np.array_equal(volume.array_kji, noise)
    expected = [[-0.7, 0, 0, -10], [0, -0.5, 0, -20], [0, 0, 3, 0], [0, 0, 0, 1]]
    assert np.allclose(volume.geometry.ijk_to_ras, expected)
    assert volume.notes == ()


def test_descending_positions_are_turned_round(tmp_path: Path, noise: NDArray[np.int16], write_series: Writer) -> None:
    volume = read_volume(write_series(tmp_path, noise, EVEN[::-1]))
    assert np.array_equal(volume.array_kji, noise[::-1])
    assert volume.geometry.ijk_to_ras[2, 2] == 3


def test_gantry_tilt_becomes_a_sheared_grid(tmp_path: Path, noise: NDArray[np.int16], write_series: Writer) -> None:
    volume = read_volume(write_series(tmp_path, noise, [(10, 20 + k, 3 * k) for k in range(4)]))
    assert np.allclose(volume.geometry.ijk_to_ras[:3, 2], (0, -1, 3))
    assert any("tilted by 18.4 degrees" in note for note in volume.notes)


def test_uneven_spacing_names_the_gap(tmp_path: Path, noise: NDArray[np.int16], write_series: Writer) -> None:
    folder = write_series(tmp_path, noise, [(0, 0, z) for z in (0, 2.5, 5, 10)])
    with pytest.raises(GeometryError, match=re.escape("5 mm between slices 3 and 4 of 4 instead of 2.5 mm")):
        read_volume(folder)


def test_duplicate_positions(tmp_path: Path, noise: NDArray[np.int16], write_series: Writer) -> None:
    folder = write_series(tmp_path, noise, [(0, 0, z) for z in (0, 3, 3, 6)])
    with pytest.raises(GeometryError, match=r"share a position .*slices 2 and 3"):
        read_volume(folder)


def test_different_orientations(tmp_path: Path, noise: NDArray[np.int16], write_series: Writer) -> None:
    folder = write_series(tmp_path, noise[:3], EVEN[:3])
    write_series(folder / "x", noise[3:], EVEN[3:], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    (folder / "x" / "99.dcm").rename(folder / "0.dcm")
    with pytest.raises(GeometryError, match="different directions"):
        read_volume(folder)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"PixelSpacing": [0.5, 0.8]}, "voxels of different sizes"),
        ({"pixels": np.zeros((3, 3), np.int16)}, "differ in size"),
    ],
)
def test_slices_that_do_not_fit_together(
    tmp_path: Path, noise: NDArray[np.int16], write_series: Writer, change: dict[str, Any], problem: str
) -> None:
    folder = write_series(tmp_path, noise[:3], EVEN[:3])
    pixels = change.pop("pixels", noise[3])
    write_series(folder / "x", pixels[np.newaxis], EVEN[3:], **change)
    (folder / "x" / "99.dcm").rename(folder / "0.dcm")
    with pytest.raises((GeometryError, InputError), match=problem):
        read_volume(folder)


def test_images_without_positions(tmp_path: Path, noise: NDArray[np.int16], write_dicom: Writer) -> None:
    for n in range(2):
        write_dicom(tmp_path / f"{n}.dcm", noise[n])
    with pytest.raises(InputError, match="do not say where they lie"):
        read_volume(tmp_path)


def test_several_multi_frame_files(tmp_path: Path, noise: NDArray[np.int16], write_frames: Writer) -> None:
    for n in range(2):
        write_frames(tmp_path / f"{n}.dcm", noise, EVEN)
    with pytest.raises(InputError, match="several multi-frame images"):
        read_volume(tmp_path)


def test_single_multi_frame_file_is_a_series(tmp_path: Path, noise: NDArray[np.int16], write_frames: Writer) -> None:
    write_frames(tmp_path / "a.dcm", noise, EVEN)
    assert np.array_equal(read_volume(tmp_path).array_kji, noise)


def test_slopes_of_their_own_keep_their_fractions(
    tmp_path: Path, noise: NDArray[np.int16], write_series: Writer, write_dicom: Writer
) -> None:
    common = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "RescaleIntercept": 0}
    for k, slope in enumerate((1, 0.25, 0.5, 1)):
        write_dicom(tmp_path / f"{k}.dcm", noise[k], ImagePositionPatient=[0, 0, 3 * k], RescaleSlope=slope, **common)
    array = read_volume(tmp_path).array_kji
    assert np.array_equal(array, noise * np.array([1, 0.25, 0.5, 1])[:, None, None])


@pytest.fixture
def two_series(tmp_path: Path, noise: NDArray[np.int16], write_series: Writer, write_dicom: Writer) -> Path:
    write_series(tmp_path, noise, EVEN, SeriesInstanceUID=SECOND, Modality="MR")
    write_dicom(tmp_path / "localizer", noise[0], SeriesInstanceUID=FIRST)
    return tmp_path


def test_several_series_are_listed(two_series: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(two_series)
    message = str(caught.value)
    assert f"1: {FIRST} (CT, 1 images), 2: {SECOND} (MR, 4 images)" in message
    assert "--series" in message
    assert not any(secret in message for secret in ("Doe", "secret", str(two_series), two_series.name))


@pytest.mark.parametrize("choice", ["2", SECOND, "27", ".27"])
def test_series_is_chosen_by_number_uid_or_end(two_series: Path, choice: str) -> None:
    assert read_volume(two_series, series=choice).modality == "MR"


@pytest.mark.parametrize(
    ("choice", "problem"), [("3", "no series fits"), ("xyz", "no series fits"), ("", "several series fit")]
)
def test_choice_that_fits_nothing_or_too_much(two_series: Path, choice: str, problem: str) -> None:
    with pytest.raises(InputError, match=f"{problem} --series .*there are: 1: {FIRST}"):
        read_volume(two_series, series=choice)


def test_whole_uid_wins_over_an_end(two_series: Path, noise: NDArray[np.int16], write_dicom: Writer) -> None:
    write_dicom(two_series / "third", noise[0], SeriesInstanceUID="9." + FIRST)
    assert choose_series(find_series(two_series), FIRST).uid == FIRST


def test_other_files_are_ignored(tmp_path: Path, noise: NDArray[np.int16], write_series: Writer) -> None:
    folder = write_series(tmp_path, noise, EVEN)
    (folder / "notes.txt").write_text("not an image")
    (folder / "empty").touch()
    report = Dataset()
    report.file_meta = Dataset()
    report.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3", "SR"
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    assert np.array_equal(read_volume(folder).array_kji, noise)


def test_subfolders_are_searched_when_the_folder_has_no_image(
    tmp_path: Path, noise: NDArray[np.int16], write_series: Writer
) -> None:
    write_series(tmp_path / "IMG" / "0001", noise, EVEN)
    assert np.array_equal(read_volume(tmp_path).array_kji, noise)


def test_damaged_slice_is_not_ignored(tmp_path: Path, noise: NDArray[np.int16], write_series: Writer) -> None:
    folder = write_series(tmp_path, noise, EVEN)
    last = folder / "96.dcm"
    last.write_bytes(last.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"96\.dcm is cut off or damaged"):
        read_volume(folder)


@pytest.mark.parametrize("content", [None, "text"])
def test_folder_without_dicom(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "a.txt").write_text(content)
    with pytest.raises(InputError, match="holds no DICOM image"):
        read_folder(tmp_path)


def test_segmentation_objects_in_a_folder(shared_data: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match=r"2 DICOM series.*SEG, 1 images"):
        read_volume(shared_data("dcmqi"))
    with pytest.raises(InputError, match="segmentation, not an image"):
        read_volume(shared_data("dcmqi"), series="1")


def test_nothing_of_the_patient_leaves(tmp_path: Path, noise: NDArray[np.int16], write_series: Writer) -> None:
    raw = read_folder(write_series(tmp_path / "Doe^Jane", noise, EVEN))
    assert not any(secret in repr((raw.tags, raw.notes)) for secret in ("Doe", "secret"))
