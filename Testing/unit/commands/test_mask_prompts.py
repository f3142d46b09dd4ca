from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.commands.arguments import read_mask, read_masks
from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.prompts.kinds import MaskPrompt, PromptSet, SegmentPrompts


def seeded(folder, mask, name="Left", spacing=(1.0, 1.0, 2.0)):
    """Prompts with one mask prompt, whose file is a label map in the folder."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(folder / "seed.nrrd"))
    return PromptSet((SegmentPrompts("Liver", (MaskPrompt("seed.nrrd", name),)),))


@pytest.mark.parametrize("start", [(0, 0, 0), (2, 1, 3), (-1, -2, 0), (5, 5, 5)])
@pytest.mark.parametrize("is_left_handed", [False, True])
def test_a_mask_that_was_cropped_turned_or_reaches_beyond_is_laid_on_its_voxels(tmp_path, start, is_left_handed):
    matrix = np.array([[-1.0, 0, 0, 4], [0, -1, 0, 5], [0, 0, 2, 6], [0, 0, 0, 1]])
    if is_left_handed:  # Slicer turns such images round, and saves their segmentations so
        matrix[0] = 1, 0, 0, 4 - 6
    image = Geometry(matrix, (6, 6, 7))
    mask = np.random.default_rng(1).random((3, 4, 4)) < 0.5
    k, j, i = start
    written = sitk.GetImageFromArray(mask.astype(np.uint8))
    written.SetSpacing((1.0, 1.0, 2.0))
    written.SetOrigin((-4.0 + i, -5.0 + j, 6.0 + 2 * k))
    sitk.WriteImage(written, str(tmp_path / "seed.nrrd"))
    prompts = PromptSet((SegmentPrompts("Liver", (MaskPrompt("seed.nrrd", "Left"),)),))
    (segment,) = read_masks(prompts, tmp_path, image).segments
    wide = np.zeros((14, 14, 15), bool)
    wide[k + 4 : k + 7, j + 4 : j + 8, i + 4 : i + 8] = mask
    expected = wide[4:10, 4:10, 4:11]
    read = segment.prompts[0].voxels.expand(image.shape_kji)
    assert np.array_equal(read, expected[:, :, ::-1] if is_left_handed else expected)


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
    assert caught.value.location == "segments[0].prompts[0].file"


def test_a_label_of_another_tool_on_a_grid_of_four_decimals_is_taken(tmp_path):
    """ITK turns such axes to be orthogonal when it writes NIfTI, which moves the last voxels a little."""
    cosines = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    matrix, mask = np.eye(4), np.zeros((6, 256, 256), np.uint8)
    matrix[:3, :3] = np.round(cosines, 4) @ np.diag((0.9, 0.9, 2.5))
    mask[2:4, 100:140, 100:140] = 1
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing((0.9, 0.9, 2.5))
    image.SetDirection((np.diag((-1, -1, 1)) @ np.round(cosines, 4)).ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "tool.nii.gz"))
    assert np.array_equal(
        read_mask(tmp_path / "tool.nii.gz", "1", Geometry(matrix, mask.shape)).expand(mask.shape), mask
    )
