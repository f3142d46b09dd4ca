"""Images of every kind become volumes in RAS; what is no image, or not one image, is refused by name."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.imaging.volume import require_image
from FoundationSegLib.io.images import display_window, image_name, read_volume
from FoundationSegLib.io.raw import Tag

Finder = Callable[[str], Path]
IMAGES = (
    "TotalSegmentator/example_ct.nii.gz",
    "TotalSegmentator/example_ct_sm.nii.gz",
    "TotalSegmentator/example_mr_sm.nii.gz",
    "pyradiomics/*_image.nrrd",
    "MedSAM2/*_HU.nii.gz",
    "MONAI/*.nii.gz",
    "MONAI/*.png",
    "MONAI-model-zoo/*.jpg",
    "SegNetCMR/*_E?_image.nii.gz",
    "BiomedParse/*.png",
    "SAM-Med2D/images/*.png",
    "Kvasir-SEG/images/*.jpg",
    "DRIVE/*.tif",
    "lung-segmentation-2d/*.jpg",
    "torchxrayvision/*.png",
    "scikit-image/*.*",
    "stardist/img2d.tif",
    "dcmqi/ct-3slice/*.dcm",
    "dcmqi/ct-3slice",
    "pydicom-data/*.dcm",
)
LABELS = (
    "TotalSegmentator/*_seg*.nii.gz",
    "pyradiomics/*_label.nrrd",
    "MedSAM2/*_lesion.nii.gz",
    "SegNetCMR/*_E?_lv.nii.gz",
    "BiomedParse/masks/*.png",
    "SAM-Med2D/masks/*.png",
    "Kvasir-SEG/masks/*.jpg",
    "lung-segmentation-2d/*mask.png",
    "stardist/mask2d.tif",
    "dcmqi/*.nrrd",
    "dcmqi/*.dcm",
)


@pytest.mark.parametrize("pattern", IMAGES)
def test_reads_every_shared_image(shared_data, pattern):
    for path in _matching(shared_data, pattern):
        volume = read_volume(path)
        require_image(volume)
        assert volume.name


@pytest.mark.parametrize("pattern", LABELS)
def test_refuses_every_shared_label_map(shared_data, pattern):
    for path in _matching(shared_data, pattern):
        with pytest.raises(InputError, match="not an image"):
            read_volume(path)


def _matching(shared_data, pattern):
    folder, name = pattern.rsplit("/", 1)
    paths = sorted(shared_data(folder).glob(name))
    assert paths
    return paths


@pytest.mark.parametrize(
    "name",
    [
        "pyradiomics/brain1_image.nrrd",
        "MedSAM2/deeplesion_000015_HU.nii.gz",
        "MONAI/prostate_t2_tse_tra_oblique.nii.gz",
    ],
)
def test_voxels_and_places_are_those_of_itk(shared_data, name):
    path = shared_data(name)
    image, volume = sitk.ReadImage(str(path)), read_volume(path)
    assert np.array_equal(volume.array_kji, sitk.GetArrayViewFromImage(image))
    for index in ((0, 0, 0), (7, 0, 0), (0, 9, 0), (3, 5, 11)):
        expected = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        assert np.allclose(volume.geometry.to_ras(index), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_voxels_keep_their_type(tmp_path, noise, kind, ending):
    path = tmp_path / f"image.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(noise.astype(kind)), str(path))
    volume = read_volume(path)
    assert volume.array_kji.dtype == kind
    assert np.array_equal(volume.array_kji, noise)


def test_picture_becomes_one_slice(tmp_path, noise):
    image = sitk.GetImageFromArray(noise[0])
    image.SetSpacing((0.5, 0.7))
    image.SetOrigin((3, 4))
    image.SetDirection((0, 1, 1, 0))
    for name in ("slice.mha", "slice.nrrd", "slice.nii.gz"):
        sitk.WriteImage(image, str(tmp_path / name))
        volume = read_volume(tmp_path / name)
        assert volume.array_kji.shape == (1, 6, 5)
        expected = [[0, -0.7, 0, -3], [-0.5, 0, 0, -4], [0, 0, 1, 0], [0, 0, 0, 1]]
        assert np.allclose(volume.geometry.ijk_to_ras, expected)


def test_colour_keeps_its_channels(shared_data):
    volume = read_volume(shared_data("scikit-image/ihc.png"))
    assert volume.array_kji.shape == (1, 512, 512, 3)


@pytest.mark.parametrize("name", ["pydicom-data/US1_J2KR.dcm", "pydicom-data/gdcm-US-ALOKA-16.dcm"])
def test_colour_dicom_becomes_rgb(shared_data, name):
    volume = read_volume(shared_data(name))
    assert volume.is_colour
    assert volume.modality == "US"


def test_grey_saved_as_rgba_becomes_grey(shared_data):
    volume = read_volume(shared_data("BiomedParse/06_CT_abdomen.png"))
    assert volume.array_kji.shape == (1, 1024, 1024)
    assert any("read as grey" in note for note in volume.notes)
    assert "transparency was dropped" in volume.notes


def test_transparency_is_dropped(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (6, 5, 4), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "image.png"))
    assert np.array_equal(read_volume(tmp_path / "image.png").array_kji[0], pixels[..., :3])


@pytest.mark.parametrize("channels", [2, 5])
def test_other_channel_counts_are_refused(tmp_path, channels):
    path = tmp_path / "vectors.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5, channels), np.uint8), isVector=True), str(path))
    with pytest.raises(InputError, match=f"vectors.mha has {channels} values"):
        read_volume(path)


def test_displacement_field_is_no_colour(tmp_path):
    field = np.random.default_rng(1).normal(0, 3, (3, 4, 5, 3)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(field, isVector=True), str(tmp_path / "field.nrrd"))
    with pytest.raises(InputError, match="no colours"):
        read_volume(tmp_path / "field.nrrd")


@pytest.mark.parametrize(
    ("name", "count"),
    [("nibabel/example4d.nii.gz", 2), ("nibabel/functional.nii", 20), ("SegNetCMR/SC-HF-I-10_4D_image.nii.gz", 2)],
)
def test_4d_image_needs_a_frame(shared_data, name, count):
    path = shared_data(name)
    with pytest.raises(InputError, match=f"{count} frames .* --frame N, from 0 to {count - 1}"):
        read_volume(path)
    volume = read_volume(path, frame=count - 1)
    assert np.array_equal(volume.array_kji, sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[-1])
    assert f"frame {count - 1} of {count} was taken, counted from 0" in volume.notes


@pytest.mark.parametrize("frame", [-1, 2])
def test_frame_out_of_range(shared_data, frame):
    with pytest.raises(InputError, match="from 0 to 1, not"):
        read_volume(shared_data("nibabel/example4d.nii.gz"), frame=frame)


def test_frame_of_a_3d_image(shared_data):
    with pytest.raises(InputError, match="single frame"):
        read_volume(shared_data("TotalSegmentator/example_ct_sm.nii.gz"), frame=0)


def test_sheared_nrrd_keeps_its_shear(tmp_path, noise, write_nrrd):
    path = write_nrrd(tmp_path / "tilted.nrrd", noise, "(1,0,0) (0,1,0) (0.5,0,2)", "domain domain domain")
    expected = [[-1, 0, -0.5, -1], [0, -1, 0, -2], [0, 0, 2, 3], [0, 0, 0, 1]]
    assert np.allclose(read_volume(path).geometry.ijk_to_ras, expected)


def test_nrrd_list_axis_holds_frames(tmp_path, write_nrrd):
    values = np.random.default_rng(1).permutation(72).reshape(2, 4, 3, 3)
    path = write_nrrd(tmp_path / "a.nrrd", values, "none (1,0,0) (0,1,0) (0,0,2)", "list domain domain domain")
    with pytest.raises(InputError, match="3 frames"):
        read_volume(path)
    assert np.array_equal(read_volume(path, frame=1).array_kji, values[..., 1])


def test_slicer_segmentation_is_refused(tmp_path, noise, write_nrrd):
    path = write_nrrd(
        tmp_path / "a.nrrd", noise, "(1,0,0) (0,1,0) (0,0,2)", "domain domain domain", "Segment0_ID:=Segment_1"
    )
    with pytest.raises(InputError, match="segmentation, not an image"):
        read_volume(path)


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.uint8])
@pytest.mark.parametrize("scale", [{}, {"RescaleSlope": 2, "RescaleIntercept": -1000}])
def test_monochrome1_is_inverted_with_its_window(tmp_path, noise, write_dicom, kind, scale):
    stored = noise[0].astype(kind)
    slope, intercept = scale.get("RescaleSlope", 1), scale.get("RescaleIntercept", 0)
    elements = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": slope * 60 + intercept, "WindowWidth": 50}
    volume = read_volume(write_dicom(tmp_path / "xray.dcm", stored, **elements, **scale))
    array = volume.array_kji[0].astype(float)
    total = array[0, 0] + slope * int(stored[0, 0]) + intercept
    assert np.array_equal(total - array, slope * stored.astype(float) + intercept)
    assert volume.window_level == (50, total - (slope * 60 + intercept))
    assert any("MONOCHROME1" in note for note in volume.notes)


def test_modality_rescaling_and_first_window(tmp_path, noise, write_dicom):
    path = write_dicom(
        tmp_path / "Doe.dcm",
        noise[0],
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=[40, -600],
        WindowWidth=[400, 1500],
    )
    volume = read_volume(path)
    assert (volume.modality, volume.window_level) == ("CT", (400, 40))
    assert np.array_equal(volume.array_kji[0], noise[0] * 2.0 - 1000)


def test_dicom_folder_is_named_by_its_modality(tmp_path, noise, write_series):
    folder = write_series(tmp_path / "Doe_Jane", noise, [(0, 0, 3 * k) for k in range(4)])
    volume = read_volume(folder)
    assert volume.name == "CT"
    assert "Doe" not in repr((volume.name, volume.notes, volume.modality))


def test_sheared_nifti_is_refused(tmp_path, noise, write_nifti):
    path = write_nifti(tmp_path / "a.nii", noise, sform=[[1, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 2, 0]])
    with pytest.raises(GeometryError, match=r"a\.nii: the image's matrix is sheared"):
        read_volume(path)


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("example_ct_sm.nii.gz", "example_ct_sm"),
        ("a.b.SEG.NRRD", "a.b"),
        ("1.2.840.dcm", "1.2.840"),
        ("IM0001", "IM0001"),
        (".nrrd", ".nrrd"),
    ],
)
def test_image_name(file_name, name):
    assert image_name(Path("/home/Doe^Jane") / file_name) == name


@pytest.mark.parametrize(
    ("width", "centre", "window"),
    [
        ("400", "40", (400, 40)),
        ("400 \\1500", "40\\-600", (400, 40)),
        ("0", "40", None),
        ("-5", "40", None),
        ("nan", "40", None),
        ("", "40", None),
        ("wide", "40", None),
    ],
)
def test_window(width, centre, window):
    assert display_window({Tag.WINDOW_WIDTH: width, Tag.WINDOW_CENTRE: centre}) == window


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha", "tif", "vtk", "gipl", "mrc"])
def test_values_that_are_not_finite_are_refused_in_every_format(tmp_path, noise, ending, value):
    array = noise.astype(np.float32)
    array[3, 5, 4] = value
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a.{ending}"))
    with pytest.raises(InputError, match="not a number or infinite"):
        require_image(read_volume(tmp_path / f"a.{ending}"))


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha", "tif", "png", "vtk", "gipl", "mrc", "dcm"])
def test_the_upper_half_of_16_bits_stays_positive(tmp_path, noise, write_dicom, ending):
    stored = (noise[:1].astype(np.int32) + 65_400).astype(np.uint16)
    if ending == "dcm":
        write_dicom(tmp_path / "a.dcm", stored[0])
    else:
        sitk.WriteImage(
            sitk.GetImageFromArray(stored[0] if ending in ("tif", "png") else stored), tmp_path / f"a.{ending}"
        )
    assert np.array_equal(read_volume(tmp_path / f"a.{ending}").array_kji, stored)


def write_tiff(path, *pages, **fields):
    """Write a TIFF file of strips; other fields are given by ``f`` and their numbers."""
    content = b"II*\0\0\0\0\0"
    link = 4
    for pixels in pages:
        rows, columns, samples = (*pixels.shape, 1)[:3]
        kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
        values = {256: columns, 257: rows, 258: 8 * pixels.itemsize, 259: 1, 262: 1 if samples == 1 else 2}
        values |= {273: len(content), 277: samples, 278: rows, 279: pixels.nbytes, 339: kind}
        values |= {int(name[1:]): value for name, value in fields.items()}
        content += pixels.tobytes()
        content = content[:link] + struct.pack("<I", len(content)) + content[link + 4 :]
        content += struct.pack("<H", len(values))
        content += b"".join(struct.pack("<HHII", tag, 4, 1, values[tag]) for tag in sorted(values))
        link = len(content)
        content += bytes(4)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4"])
@pytest.mark.parametrize("is_white_zero", [False, True])
def test_tiff_is_read_exactly(tmp_path, noise, kind, is_white_zero):
    pixels = (noise[0] % 100).astype(kind)
    path = write_tiff(tmp_path / "a.tif", pixels, f262=int(not is_white_zero))
    if is_white_zero and kind == "f4":
        with pytest.raises(InputError, match="cannot be read exactly"):
            read_volume(path)
    else:
        volume = read_volume(path)
        assert np.array_equal(volume.array_kji[0], ~pixels if is_white_zero else pixels)
        assert any("inverted" in note for note in volume.notes) == is_white_zero


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("f2", {}),  # taken for whole numbers
        ("f8", {}),
        ("u8", {}),
        ("u2", {"f322": 16, "f323": 16}),  # tiles, rounded to 8 bits
        ("u2", {"f274": 6}),  # a turned picture
        ("u2", {"f259": 34925}),  # LZMA
        ("u1", {"f277": 2}),
        ("u2", {"f277": 3, "f284": 2}),
        ("u1", {"f262": 8}),  # CIE L*a*b*
    ],
)
def test_tiff_that_itk_reads_as_something_else_is_refused(tmp_path, noise, kind, fields):
    path = write_tiff(tmp_path / "a.tif", noise[0].astype(kind), **fields)
    with pytest.raises(InputError, match=r"a\.tif: TIFF of this kind cannot be read exactly"):
        read_volume(path)


def test_pages_of_a_tiff_are_of_one_kind(tmp_path, noise):
    pages = noise[:2].astype(np.uint8)
    assert np.array_equal(read_volume(write_tiff(tmp_path / "a.tif", *pages)).array_kji, pages)
    with pytest.raises(InputError, match="its pages differ"):
        read_volume(write_tiff(tmp_path / "a.tif", pages[0], noise[1]))


@pytest.mark.parametrize(("slope", "offset"), [("1", "0"), ("1.0", "0.0"), ("2", "0"), ("1", "-1024"), ("x", "0")])
def test_a_scale_that_itk_leaves_out_is_refused(tmp_path, noise, slope, offset):
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path))
    scale = f"ElementToIntensityFunctionSlope = {slope}\nElementToIntensityFunctionOffset = {offset}\nElementDataFile"
    path.write_bytes(path.read_bytes().replace(b"ElementDataFile", scale.encode()))
    if (slope, offset) in (("1", "0"), ("1.0", "0.0")):
        assert np.array_equal(read_volume(path).array_kji, noise)
    else:
        with pytest.raises(InputError, match=r"a\.mha"):
            read_volume(path)


@pytest.mark.parametrize(
    ("spacing", "origin", "field", "in_pixels"),
    [
        ((1, 1, 1), (0, 0, 0), "", True),  # a picture that a program has saved: nobody has placed it
        ((1, 1, 1), (0, 0, 5), "", False),
        ((1, 1, 2), (0, 0, 0), "", False),
        ((0.35, 0.35, 1), (0, 0, 0), "FoundationSeg.InPixels:=1", True),  # Slicer keeps attributes of nodes
        ((0.35, 0.35, 1), (0, 0, 0), "", False),
    ],
)
def test_a_picture_that_was_saved_as_nrrd(tmp_path, noise, write_nrrd, spacing, origin, field, in_pixels):
    i, j, k = spacing
    path = write_nrrd(tmp_path / "a.nrrd", noise[:1], f"({i},0,0) (0,{j},0) (0,0,{k})", "domain domain domain")
    text = path.read_bytes().replace(b"space origin: (1,2,3)", f"space origin: {origin}\n{field}".strip().encode())
    path.write_bytes(text)
    volume = read_volume(path)
    assert (volume.in_pixels, volume.sides) == (in_pixels, ("", "") if in_pixels else None)


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize(
    ("slope", "intercept", "factor"),
    [(np.nan, np.nan, 1), (0, 0, 1), (2, 0, 2), (1, np.nan, None), (2, np.inf, None), (0, 5, None)],
)
def test_a_nifti_header_scales_its_values(tmp_path, noise, write_nifti, ending, slope, intercept, factor):
    path = write_nifti(tmp_path / f"a.{ending}", noise, scl_slope=slope, scl_inter=intercept)
    if factor is None:
        with pytest.raises(InputError, match="scales the values by no number"):
            read_volume(path)
    else:
        assert np.array_equal(read_volume(path).array_kji, noise * factor)
