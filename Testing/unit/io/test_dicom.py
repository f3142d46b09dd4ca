"""DICOM series and frames become one volume, placed by their own positions; all else is named and refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.io.dicom import choose_series, find_series, place_slices, read_series
from FoundationSegLib.io.images import read_frames, read_volume

Writer = Callable[..., Path]
EVEN = tuple((10.0, 20.0, 3.0 * k) for k in range(4))
FIRST, SECOND = "1.2.3.10", "1.2.3.27"

DIGITAL_XRAY = "1.2.840.10008.5.1.4.1.1.1.1"


def test_shared_series(shared_data):
    volume = read_volume(shared_data("dcmqi/ct-3slice"))
    assert volume.array_kji.shape == (3, 512, 512)
    assert (int(volume.array_kji.min()), volume.modality, volume.window_level) == (-3024, "CT", (400, 40))
    assert np.allclose(volume.geometry.spacing_mm, (0.810547, 0.810547, 1))
    assert np.allclose(volume.geometry.to_ras((0, 0, 0)), (235.199997, 226.800003, -128.690002))
    single = read_volume(shared_data("dcmqi/ct-3slice/03.dcm"))
    assert np.array_equal(volume.array_kji[0], single.array_kji[0])


def test_slices_are_ordered_by_position(tmp_path, noise, write_series):
    volume = read_volume(write_series(tmp_path, noise, EVEN))
    assert np.array_equal(volume.array_kji, noise)
    expected = [[-0.7, 0, 0, -10], [0, -0.5, 0, -20], [0, 0, 3, 0], [0, 0, 0, 1]]
    assert np.allclose(volume.geometry.ijk_to_ras, expected)
    assert volume.notes == ()


def test_different_orientations(tmp_path, noise, write_series):
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
def test_slices_that_do_not_fit_together(tmp_path, noise, write_series, change, problem):
    folder = write_series(tmp_path, noise[:3], EVEN[:3])
    pixels = change.pop("pixels", noise[3])
    write_series(folder / "x", pixels[np.newaxis], EVEN[3:], **change)
    (folder / "x" / "99.dcm").rename(folder / "0.dcm")
    with pytest.raises((GeometryError, InputError), match=problem):
        read_volume(folder)


def test_images_without_positions(tmp_path, noise, write_dicom):
    for n in range(2):
        write_dicom(tmp_path / f"{n}.dcm", noise[n])
    with pytest.raises(InputError, match="do not say where they lie"):
        read_volume(tmp_path)


def test_several_multi_frame_files(tmp_path, noise, write_frames):
    for n in range(2):
        write_frames(tmp_path / f"{n}.dcm", noise, EVEN)
    with pytest.raises(InputError, match="several multi-frame images"):
        read_volume(tmp_path)


def test_single_multi_frame_file_is_a_series(tmp_path, noise, write_frames):
    write_frames(tmp_path / "a.dcm", noise, EVEN)
    assert np.array_equal(read_volume(tmp_path).array_kji, noise)


def test_slopes_of_their_own_keep_their_fractions(tmp_path, noise, write_series, write_dicom):
    common = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "RescaleIntercept": 0}
    for k, slope in enumerate((1, 0.25, 0.5, 1)):
        write_dicom(tmp_path / f"{k}.dcm", noise[k], ImagePositionPatient=[0, 0, 3 * k], RescaleSlope=slope, **common)
    array = read_volume(tmp_path).array_kji
    assert np.array_equal(array, noise * np.array([1, 0.25, 0.5, 1])[:, None, None])


@pytest.fixture
def two_series(tmp_path, noise, write_series, write_dicom):
    write_series(tmp_path, noise, EVEN, SeriesInstanceUID=SECOND, Modality="MR")
    write_dicom(tmp_path / "localizer", noise[0], SeriesInstanceUID=FIRST)
    return tmp_path


def test_several_series_are_listed(two_series):
    with pytest.raises(InputError) as caught:
        read_volume(two_series)
    message = str(caught.value)
    assert f"1: {FIRST} (CT, 1 image), 2: {SECOND} (MR, 4 images)" in message
    assert "--series" in message
    assert not any(secret in message for secret in ("Doe", "secret", str(two_series), two_series.name))


@pytest.mark.parametrize("choice", ["2", SECOND, "27", ".27"])
def test_series_is_chosen_by_number_uid_or_end(two_series, choice):
    assert read_volume(two_series, series=choice).modality == "MR"


@pytest.mark.parametrize(
    ("choice", "problem"), [("3", "no series fits"), ("xyz", "no series fits"), ("", "several series fit")]
)
def test_choice_that_fits_nothing_or_too_much(two_series, choice, problem):
    with pytest.raises(InputError, match=f"{problem} --series .*there are: 1: {FIRST}"):
        read_volume(two_series, series=choice)


def test_whole_uid_wins_over_an_end(two_series, noise, write_dicom):
    write_dicom(two_series / "third", noise[0], SeriesInstanceUID="9." + FIRST)
    assert choose_series(find_series(two_series), FIRST).uid == FIRST


def test_other_files_are_ignored(tmp_path, noise, write_series):
    folder = write_series(tmp_path, noise, EVEN)
    (folder / "notes.txt").write_text("not an image")
    (folder / "empty").touch()
    report = Dataset()
    report.file_meta = Dataset()
    report.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3", "SR"
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    assert np.array_equal(read_volume(folder).array_kji, noise)


def test_subfolders_are_searched_when_the_folder_has_no_image(tmp_path, noise, write_series):
    write_series(tmp_path / "IMG" / "0001", noise, EVEN)
    assert np.array_equal(read_volume(tmp_path).array_kji, noise)


def test_damaged_slice_is_not_ignored(tmp_path, noise, write_series):
    folder = write_series(tmp_path, noise, EVEN)
    last = folder / "96.dcm"
    last.write_bytes(last.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"96\.dcm is cut off or damaged"):
        read_volume(folder)


@pytest.mark.parametrize("content", [None, "text"])
def test_folder_without_dicom(tmp_path, content):
    if content:
        (tmp_path / "a.txt").write_text(content)
    with pytest.raises(InputError, match="holds no DICOM image"):
        find_series(tmp_path)


def test_segmentation_objects_in_a_folder(shared_data):
    with pytest.raises(InputError, match=r"2 DICOM series.*SEG, 1 image"):
        read_volume(shared_data("dcmqi"))
    with pytest.raises(InputError, match="segmentation, not an image"):
        read_volume(shared_data("dcmqi"), series="1")


def test_nothing_of_the_patient_leaves(tmp_path, noise, write_series):
    raw = read_series(*find_series(write_series(tmp_path / "Doe^Jane", noise, EVEN)))
    assert not any(secret in repr((raw.tags, raw.notes)) for secret in ("Doe", "secret"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"syntax": ImplicitVRLittleEndian},
        {"syntax": ExplicitVRBigEndian},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1"},
    ],
)
def test_frames_in_their_places(tmp_path, noise, write_frames, options):
    order = [2, 0, 3, 1]
    pixels = noise[order].astype(">i2" if options.get("syntax") == ExplicitVRBigEndian else "<i2")
    volume = read_volume(write_frames(tmp_path / "a.dcm", pixels, [EVEN[n] for n in order], **options))
    assert np.array_equal(volume.array_kji, noise)
    expected = [[-0.7, 0, 0, -10], [0, -0.5, 0, -20], [0, 0, 3, 0], [0, 0, 0, 1]]
    assert np.allclose(volume.geometry.ijk_to_ras, expected)
    assert volume.notes == ()


@pytest.mark.parametrize(
    ("heights", "problem"),
    [
        ((0, 3, 6, 12), "6 mm between slices 3 and 4"),
        ((0, 0, 0, 3), "1 to 3 images at each of 2 .* one set into a fol"),
    ],
)
def test_uneven_and_shared_positions(tmp_path, noise, write_frames, heights, problem):
    path = write_frames(tmp_path / "a.dcm", noise, [(0, 0, z) for z in heights])
    with pytest.raises(GeometryError, match=problem):
        read_volume(path)


def test_missing_positions(tmp_path, noise, write_frames):
    with pytest.raises(GeometryError, match="4 frames, but positions for 3"):
        read_volume(write_frames(tmp_path / "a.dcm", noise, EVEN[:3]))


@pytest.mark.parametrize(
    ("slopes", "problem"),
    [((1, 2, 1, 1), "differently"), ((2, 2, 2), "differently"), ((0, 0, 0, 0), "by 0"), ((2, 2, 2, 2), None)],
)
def test_frames_that_are_scaled(tmp_path, noise, write_frames, slopes, problem):
    path = write_frames(tmp_path / "a.dcm", noise, EVEN, slopes=slopes)
    if problem is None:
        assert np.array_equal(read_volume(path).array_kji, 2 * noise)
    else:
        with pytest.raises(InputError, match=f"scaled {problem}"):
            read_volume(path)


@pytest.mark.parametrize("last", [0.5, 0.4])
def test_frames_have_voxels_of_one_size(tmp_path, noise, write_frames, last):
    spacings = [[0.5, 0.7]] * 3 + [[last, 0.7]]
    path = write_frames(tmp_path / "a.dcm", noise, EVEN, measures={}, spacings=spacings)
    if last == 0.5:
        assert np.allclose(read_volume(path).geometry.spacing_mm, (0.7, 0.5, 3))
    else:
        with pytest.raises(GeometryError, match=r"a\.dcm: its frames have voxels of different sizes"):
            read_volume(path)


def test_enhanced_frames_with_one_place_for_all_are_time(tmp_path, noise, write_frames):
    path = write_frames(tmp_path / "a.dcm", noise, (), ImagePositionPatient=[1, 2, 3], SpacingBetweenSlices=8)
    with pytest.raises(InputError, match="4 frames"):
        read_volume(path)
    assert np.array_equal(read_volume(path, frame=2).array_kji[0], noise[2])


def test_frames_without_positions_say_so(shared_data):
    volume = read_volume(shared_data("pydicom-data/emri_small.dcm"))
    assert volume.array_kji.shape == (10, 64, 64)
    assert volume.modality == "MR"
    assert any("1 mm was assumed" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("sizes", "spacing", "note"),
    [
        ({"PixelSpacing": [0.5, 0.7], "SpacingBetweenSlices": 3, "SliceThickness": 5}, (0.7, 0.5, 3), "3 mm apart"),
        ({"PixelSpacing": [0.5, 0.7], "SliceThickness": 5}, (0.7, 0.5, 5), "5 mm apart"),
        ({"PixelSpacing": [1, 1], "SpacingBetweenSlices": 1}, (1, 1, 1), "1 mm apart"),
        ({}, (1, 1, 1), "1 mm was assumed"),
    ],
)
def test_sizes_of_enhanced_files_without_positions(tmp_path, noise, write_frames, sizes, spacing, note):
    volume = read_volume(write_frames(tmp_path / "a.dcm", noise, (), measures=sizes))
    assert np.array_equal(volume.array_kji, noise)
    assert np.allclose(volume.geometry.spacing_mm, spacing)
    assert [note in text for text in volume.notes] == [True]


@pytest.mark.parametrize(
    "elements",
    [
        {"FrameTime": 33},
        {"FrameTimeVector": [0, 33, 33, 40]},
        {"CineRate": 25},
        {"RecommendedDisplayFrameRate": 25},
        {"Modality": "US"},
        {"Modality": "XA", "ImagerPixelSpacing": [0.4, 0.4]},
        {"FrameTime": 33, "syntax": ImplicitVRLittleEndian},
    ],
)
def test_frames_that_are_time_are_frames(tmp_path, noise, write_dicom, elements):
    path = write_dicom(tmp_path / "a.dcm", noise, NumberOfFrames=4, **elements)
    with pytest.raises(InputError, match=r"4 frames .* --frame N, from 0 to 3"):
        read_volume(path)
    assert np.array_equal(read_volume(path, frame=2).array_kji, noise[2:3])


@pytest.mark.parametrize(
    ("heights", "frames"),
    [
        ((3, 3, 3, 3), ([0], [1], [2], [3])),
        ((3, 3, 6, 6), ([0, 2], [1, 3])),
        ((3, 6, 3, 6), ([0, 1], [2, 3])),
        ((6, 3, 6, 3), ([1, 0], [3, 2])),
    ],
)
def test_frames_that_share_positions_are_time(tmp_path, noise, write_frames, write_dicom, heights, frames):
    """In one file by their order, as slices of a series by what tells them apart."""
    positions = [[10, 20, z] for z in heights]
    enhanced = write_frames(tmp_path / "a.dcm", noise, positions, measures={"PixelSpacing": [0.5, 0.7]})
    common = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.7], "SpacingBetweenSlices": 0}
    time = {n: frame for frame, slices in enumerate(frames) for n in slices}
    for n, position in enumerate(positions):
        by_number = {"InstanceNumber": n + 1, "EchoTime": 5}
        by_echo = {"InstanceNumber": 9 - n, "EchoTime": 5 + time[n]}
        for name, told in (("number", by_number), ("echo", by_echo)):
            write_dicom(tmp_path / name / f"{9 - n}", noise[n], ImagePositionPatient=position, **told, **common)
    for path in (enhanced, tmp_path / "number", tmp_path / "echo"):
        volumes = read_frames(path)
        assert [volume.array_kji.tolist() for volume in volumes] == [noise[slices].tolist() for slices in frames]
        depth = 3 if len(frames[0]) > 1 else 1
        assert all(np.allclose(np.diag(v.geometry.ijk_to_ras), (-0.7, -0.5, depth, 1)) for v in volumes)
        assert np.allclose(volumes[-1].geometry.ijk_to_ras[:3, 3], (-10, -20, 3))
        assert np.array_equal(read_volume(path, frame=1).array_kji, volumes[1].array_kji)


@pytest.mark.parametrize(
    ("positions", "numbers", "echoes", "problem"),
    [
        ((3, 3, 6, 6), (1, 1, 1, 1), (5, 5, 5, 5), "copies of each other"),
        ((3, 3, 6, 6), (1, 2, 3, 4), (5, 7, 5, 5), "not every position has the same"),
        ((3, 3, 6, 9), (1, 2, 3, 4), (5, 5, 5, 5), "1 to 2 images at each of 3 positions"),
    ],
)
def test_slices_of_which_it_is_unclear_to_which_frame_they_belong(
    tmp_path, noise, write_dicom, positions, numbers, echoes, problem
):
    common = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    for n, (z, number, echo) in enumerate(zip(positions, numbers, echoes, strict=True)):
        told = {"ImagePositionPatient": [0, 0, z], "InstanceNumber": number, "EchoTime": echo}
        write_dicom(tmp_path / str(n), noise[n], **told, **common)
    with pytest.raises(GeometryError, match=f"share a position.*{problem}.*folder of their own"):
        read_volume(tmp_path)


def _table():
    table = Dataset()
    table.add_new(0x00283002, "US", [256, 0, 16])
    table.ModalityLUTType = "US"
    table.add_new(0x00283006, "OW", (7 * np.arange(256)).astype("<u2").tobytes())
    return [table]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(
    ("elements", "problem"),
    [
        ({}, None),
        ({"ModalityLUTSequence": []}, None),
        ({"ModalityLUTSequence": _table()}, "Modality LUT"),
        ({"VOILUTSequence": _table()}, None),  # of the display
        ({"RescaleSlope": 0}, "scaled by 0"),
        ({"RescaleSlope": "0.0", "RescaleIntercept": 5}, "scaled by 0"),
        ({"BitsStored": 12, "HighBit": 15}, "end at bit 15 and have 12 bits"),
        ({"BitsStored": 12, "HighBit": 11}, None),
        ({"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"}, "inverted, signed"),
        ({"Rows": 7}, "cut off"),
        ({"NumberOfFrames": 2}, "cut off"),
        ({"NumberOfFrames": 10**7}, "cut off"),
        ({"PixelSpacing": [0, 0]}, None),
    ],
)
def test_values_that_itk_would_change_without_a_word(tmp_path, noise, write_dicom, syntax, elements, problem):
    common = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], **elements, "syntax": syntax}
    pixels = noise.astype(">i2" if syntax == ExplicitVRBigEndian else "<i2")
    for n in range(2):
        write_dicom(tmp_path / "s" / f"{n}.dcm", pixels[n], ImagePositionPatient=[0, 0, n], **common)
    for path, count in ((tmp_path / "s" / "0.dcm", 1), (tmp_path / "s", 2)):
        if problem is None:
            volume = read_volume(path)
            assert np.array_equal(volume.array_kji, noise[:count])
            assert any("1 mm was assumed" in note for note in volume.notes) is (0 in elements.get("PixelSpacing", ()))
        elif path.is_file() or "NumberOfFrames" not in elements:
            with pytest.raises(InputError, match=rf"0\.dcm.*{problem}"):
                read_volume(path)


def test_deflated_files_hide_what_has_to_be_looked_up(tmp_path, noise, write_dicom):
    with pytest.raises(InputError, match="is deflated"):
        read_volume(write_dicom(tmp_path / "a.dcm", noise[0], syntax=DeflatedExplicitVRLittleEndian))


def rotation(seed):
    """A random rotation; its columns are the i axis, the j axis and the normal."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    return axes


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 40),
    gap=st.floats(0.1, 10),
    tilt=st.one_of(st.just(0.0), st.floats(0.05, 0.7)),
)
def test_any_even_stack_is_placed_exactly(seed, count, gap, tilt):
    axes, rng = rotation(seed), np.random.default_rng(seed)
    step = gap * (axes[:, 2] + tilt * axes[:, 1])
    origin = rng.uniform(-300, 300, 3)
    shuffled = rng.permutation(count)
    stack = place_slices(origin + np.outer(shuffled, step), (*axes[:, 0], *axes[:, 1]), (0.6, 0.9))
    assert np.array_equal(shuffled[list(stack.order)], np.arange(count))
    assert np.allclose(stack.matrix_lps[:3, 0], 0.6 * axes[:, 0])
    assert np.allclose(stack.matrix_lps[:3, 1], 0.9 * axes[:, 1])
    assert np.allclose(stack.matrix_lps[:3, 2], step)
    assert np.allclose(stack.matrix_lps[:3, 3], origin)
    assert bool(stack.notes) == (tilt > 0)


@pytest.mark.parametrize("digits", [2, 3])
def test_rounded_decimals_are_even_and_not_tilted(digits):
    positions = np.round([(0.001 * (k % 2), 0, 0.625 * k) for k in range(60)], digits)
    stack = place_slices(positions, (1, 0, 0, 0, 1, 0), (1, 1))
    assert stack.notes == ()
    assert np.allclose(stack.matrix_lps[:3, 2], (0, 0, 0.625), atol=1e-3)


@pytest.mark.parametrize(
    ("heights", "problem"),
    [
        ((0, 1, 2, 4, 5), "2 mm between slices 3 and 4 of 5 instead of 1 mm"),
        ((0, 1, 2.02, 3.02), "1.02 mm between slices 2 and 3 of 4 instead of 1 mm"),
        ((0, 2, 2, 4), "share a position .*slices 2 and 3"),
        ((5, 5), "share a position"),
    ],
)
def test_what_makes_no_grid(heights, problem):
    with pytest.raises(GeometryError, match=problem):
        place_slices([(0, 0, z) for z in heights], (1, 0, 0, 0, 1, 0), (1, 1))


def test_slices_shifted_sideways_by_different_amounts():
    with pytest.raises(GeometryError, match="slice 3 of 4 is shifted sideways"):
        place_slices([(0, 0, 0), (0, 0, 1), (2, 0, 2), (2, 0, 3)], (1, 0, 0, 0, 1, 0), (1, 1))


XRAY = {"ImagerPixelSpacing": [0.2, 0.2], "Modality": "DX", "SOPClassUID": DIGITAL_XRAY}


@pytest.mark.parametrize(
    ("elements", "in_pixels", "sides"),
    [
        ({}, True, ("", "")),  # a screenshot
        ({"PatientOrientation": ["L", "F"]}, True, ("L", "I")),
        (XRAY, False, ("", "")),
        (XRAY | {"PatientOrientation": ["PR", "H"]}, False, ("PR", "S")),
        (XRAY | {"PatientOrientation": ["LE", "CR"]}, False, ("", "")),  # of a quadruped
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "PatientOrientation": ["L", "F"]}, False, None),
        ({"PixelSpacing": [0.5, 0.7]}, False, ("", "")),
    ],
)
def test_a_single_image_has_millimetres_or_directions_if_it_says_so(
    tmp_path, noise, write_dicom, elements, in_pixels, sides
):
    volume = read_volume(write_dicom(tmp_path / "a.dcm", noise[0], **elements))
    assert (volume.in_pixels, volume.sides) == (in_pixels, sides)
    assert any("measured in pixels" in note for note in volume.notes) is in_pixels
