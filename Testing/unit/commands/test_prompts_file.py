import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.commands.prompts_file import read_masks, read_prompts
from FoundationSegLib.core.errors import InputError, PromptError
from FoundationSegLib.core.geometry import Geometry
from FoundationSegLib.core.prompts import BoxPrompt, MaskPrompt, PromptSet, SegmentPrompts
from FoundationSegLib.core.prompts_document import parse_prompts

DOCUMENT = {
    "version": 1,
    "space": "ijk",
    "segments": [{"name": "Leber 肝臓", "prompts": [{"type": "box", "corners": [[0, 1, 2], [3, 4, 5]]}]}],
}


@pytest.fixture
def write(tmp_path):
    def to_file(content):
        path = tmp_path / "prompts.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def complaint(path, kind=PromptError):
    with pytest.raises(kind) as caught:
        read_prompts(path)
    message = str(caught.value)
    assert message.startswith("prompts.json: ")
    assert str(path.parent) not in message
    return message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_file_is_read_whatever_its_editor_put_first(write, encoding, ascii_only):
    path = write(json.dumps(DOCUMENT, ensure_ascii=ascii_only).encode(encoding))
    prompts = read_prompts(path)
    assert prompts == parse_prompts(DOCUMENT)
    assert prompts.segments[0].prompts[0] == BoxPrompt(((0.0, 1.0, 2.0), (3.0, 4.0, 5.0)))


def test_a_file_that_cannot_be_read(tmp_path, write):
    missing = tmp_path / "prompts.json"
    assert "No such file" in complaint(missing, InputError)
    missing.mkdir()
    assert "Is a directory" in complaint(missing, InputError)


@pytest.mark.parametrize("content", [b"\xff\xfe{\x00}\x00", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08\x00\x80\x81"])
def test_a_file_that_is_no_text(write, content):
    assert "is not a text file" in complaint(write(content), InputError)


@pytest.mark.parametrize("content", ["", " ", "{", "{'version': 1}", "[1,]", "nul", "{} {}", "// x\n{}", "[" * 100_000])
def test_a_file_that_is_no_json(write, content):
    assert "is no JSON: " in complaint(write(content))


def test_the_place_of_a_mistake_is_named(write):
    text = json.dumps(DOCUMENT).replace("[3, 4, 5]", '[3, "x", 5]')
    assert "segments[0].prompts[0].corners[1][1]: must be a number" in complaint(write(text))


def test_a_field_that_stands_twice_would_lose_a_prompt(write):
    text = json.dumps(DOCUMENT)[:-1] + ', "segments": []}'
    assert "the field 'segments' stands twice" in complaint(write(text))


@pytest.mark.parametrize("number", ["1" * 5000, "-" + "9" * 5000, "1" * 400, "1e999", "NaN", "-Infinity"])
def test_numbers_without_end_are_named_as_such(write, number):
    text = json.dumps(DOCUMENT).replace("[3, 4, 5]", f"[3, {number}, 5]")
    assert "segments[0].prompts[0].corners[1][1]: must be a finite number" in complaint(write(text))


def test_a_very_long_object_takes_no_time(write):
    text = "{" + ",".join(f'"{n}": 0' for n in range(100_000)) + "}"
    assert "unknown field" in complaint(write(text))


def seeded(folder, mask, name="Left", spacing=(1.0, 1.0, 2.0)):
    """Prompts with one mask prompt, whose file is a label map in the folder."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(folder / "seed.nrrd"))
    return PromptSet((SegmentPrompts("Liver", (MaskPrompt("seed.nrrd", name),)),))


def test_a_mask_prompt_gets_the_voxels_of_its_file(tmp_path):
    mask = np.zeros((4, 5, 6), bool)
    mask[1:3, 2:4, 1:5] = True
    geometry = Geometry(np.diag([-1.0, -1.0, 2.0, 1.0]), mask.shape)
    (segment,) = read_masks(seeded(tmp_path, mask), tmp_path, geometry).segments
    assert np.array_equal(segment.prompts[0].voxels.expand(mask.shape), mask)


@pytest.mark.parametrize("start", [(0, 0, 0), (2, 1, 3), (-1, -2, 0), (5, 5, 5)])
def test_a_mask_that_was_cropped_or_reaches_beyond_is_laid_on_its_voxels(tmp_path, start):
    image = Geometry(np.array([[-1.0, 0, 0, 4], [0, -1, 0, 5], [0, 0, 2, 6], [0, 0, 0, 1]]), (6, 6, 7))
    mask = np.random.default_rng(1).random((3, 4, 4)) < 0.5
    written = sitk.GetImageFromArray(mask.astype(np.uint8))
    k, j, i = start
    written.SetSpacing((1.0, 1.0, 2.0))
    written.SetOrigin((-4.0 + i, -5.0 + j, 6.0 + 2 * k))
    sitk.WriteImage(written, str(tmp_path / "seed.nrrd"))
    prompts = PromptSet((SegmentPrompts("Liver", (MaskPrompt("seed.nrrd", "Left"),)),))
    (segment,) = read_masks(prompts, tmp_path, image).segments
    wide = np.zeros((14, 14, 15), bool)
    wide[k + 4 : k + 7, j + 4 : j + 8, i + 4 : i + 8] = mask
    assert np.array_equal(segment.prompts[0].voxels.expand(image.shape_kji), wide[4:10, 4:10, 4:11])


@pytest.mark.parametrize(
    ("spacing", "name", "file", "told"),
    [
        ((1.0, 1.0, 2.5), "Left", "seed.nrrd", "not on the grid of the image"),
        ((1.0, 1.0, 2.0), "7", "seed.nrrd", "no label '7'"),
        ((1.0, 1.0, 2.0), "Left", "other.nrrd", "other.nrrd"),
    ],
)
def test_a_mask_that_cannot_be_had_is_refused_with_its_place(tmp_path, spacing, name, file, told):
    mask = np.ones((4, 5, 6), bool)
    prompts = seeded(tmp_path, mask, name, spacing)
    prompts = replace(prompts, segments=(SegmentPrompts("Liver", (MaskPrompt(file, name),)),))
    with pytest.raises(PromptError, match=told) as caught:
        read_masks(prompts, tmp_path, Geometry(np.diag([-1.0, -1.0, 2.0, 1.0]), mask.shape))
    assert caught.value.place == "segments[0].prompts[0].file"
