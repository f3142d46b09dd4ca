"""`--frame all`: prompts follow the image through time and back, prompted frames stay, and little blinks."""

import json
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from FoundationSegLib.evaluation.simulated_prompts import dice
from FoundationSegLib.imaging.geometry import Box, Geometry
from FoundationSegLib.imaging.masks import EMPTY_MASK, pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_label_map, read_mask_prompt
from FoundationSegLib.mrml import segment_tags
from FoundationSegLib.mrml.files import read_segmentation
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.prompts.kinds import BoxPrompt, PromptSet, SegmentPrompts
from FoundationSegLib.prompts.placement import prompts_in_ras
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, SegmentPrediction
from FoundationSegLib.session import frames_in_time
from Testing.unit.fakes import on_image
from Testing.unit.io.conftest import dicom_image

SHAPE, SIZE = (8, 24, 28), (4, 8, 8)


RECORD = CheckpointRecord("fake", "rules", "1", "0" * 64)


def block_at(start):
    array = np.random.default_rng(1).integers(-1010, -990, SHAPE).astype(np.int16)
    array[tuple(slice(a, a + n) for a, n in zip(start, SIZE, strict=True))] = 200
    return array


STARTS = [(2, 6 + n, 5 + 2 * n) for n in range(5)]  # it moves by more than half its width in all


@pytest.fixture
def moving(desk):
    """An image of five frames in which a block moves, and its box in the third one."""
    image = sitk.JoinSeries([sitk.GetImageFromArray(block_at(start)) for start in STARTS])
    sitk.WriteImage(image, str(desk.folder / "ct.nii.gz"))
    desk.image = desk.folder / "ct.nii.gz"
    k, j, i = STARTS[2]
    box = {"type": "box", "corners": [[i - 1, j - 1, k], [i + SIZE[2], j + SIZE[1], k + SIZE[0] - 1]]}
    desk.write_prompts({"version": 1, "space": "ijk", "segments": [{"name": "Block", "prompts": [box]}]})
    return desk


def test_a_moving_object_is_followed_from_one_frame_to_all(moving):
    desk = moving
    options = {"frame": "all", "prompt-frame": 2, "report": desk.folder / "r.json", "overview": desk.folder / "o.png"}
    assert desk.segment(**options) == 0, desk.err
    volume = read_volume(desk.image, frame=2)
    for n, start in enumerate(STARTS):
        mask = on_image(volume, *read_mask_prompt(desk.folder / f"result-{n:03}.seg.nrrd", "Block"))
        assert np.array_equal(mask, block_at(start) == 200), n
    report = json.loads((desk.folder / "r.json").read_text())
    assert [row["prompted"] for row in report["frames"]] == [False, False, True, False, False]
    assert report["frames"][4]["moved_kji_mm"]["Block"] == pytest.approx([0, 2, 4], abs=0.3)
    assert report["consistency"]["Block"]["flicker"] < 0.5 and len(report["consistency"]["Block"]["volumes_ml"]) == 5
    assert (desk.folder / "o.png").read_bytes().startswith(b"\x89PNG")
    assert desk.segment(**{"from-report": desk.folder / "r.json", "model": False, "prompts": False}) == 2
    assert "is a report of all frames" in desk.err


def test_slices_of_a_series_that_share_positions_are_frames(moving):
    """As of dynamic series, numbered set by set; of one of them, a DICOM segmentation cannot be written."""
    desk, folder = moving, moving.folder / "series"
    folder.mkdir()
    where = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    for n, (frame, k) in enumerate(np.ndindex(3, SHAPE[0])):
        image = dicom_image(block_at(STARTS[frame])[k], ImagePositionPatient=[0, 0, k], InstanceNumber=n, **where)
        image.save_as(folder / f"{99 - n}.dcm", enforce_file_format=True)
    assert desk.segment(image=folder) == 2 and "3 frames (4-D); choose one with --frame N" in desk.err
    assert desk.segment(image=folder, frame=2, output=desk.folder / "x.dcm") == 2 and ".seg.nrrd" in desk.err
    options = {"image": folder, "frame": "all", "prompt-frame": 2, "output": desk.folder / "x.nrrd"}
    assert desk.segment(**options) == 0, desk.err
    labels = [read_label_map(desk.folder / f"x-{n:03}.nrrd")[0] for n in range(3)]
    assert [int(array.sum()) for array in labels] == [np.prod(SIZE)] * 3
    assert np.array_equal(np.argwhere(labels[2]).min(axis=0), STARTS[2])


def test_a_corrected_frame_stays_and_its_neighbours_follow_it(moving):
    desk = moving
    small = {"type": "box", "corners": [[13, 10, 3], [15, 12, 4]]}
    other = desk.write_prompts(
        {"version": 1, "space": "ijk", "segments": [{"name": "Block", "prompts": [small]}]}, "four.json"
    )
    options = {"frame": "all", "prompt-frame": 0, "frame-prompts": f"4={other}", "output": desk.folder / "x.nrrd"}
    corner = {"type": "box", "corners": [[4, 5, 2], [13, 14, 5]]}
    desk.write_prompts({"version": 1, "space": "ijk", "segments": [{"name": "Block", "prompts": [corner]}]})
    assert desk.segment(**options) == 0, desk.err
    sizes = [int((read_label_map(desk.folder / f"x-{n:03}.nrrd")[0] > 0).sum()) for n in range(5)]
    assert sizes[4] == 3 * 3 * 2 and sizes[0] == sizes[1] == np.prod(SIZE)


def options_of(path):
    """What a file's segment says of how it was made."""
    segment = read_segmentation(boot_scene().scene, path).GetSegmentation().GetNthSegment(0)
    return json.loads(segment_tags.provenance(segment)["Options"])


def test_every_frame_says_what_the_model_saw_of_it(desk):
    """The first two frames are equal and have prompts of their own; the third follows the second."""
    frames = [sitk.GetImageFromArray(block_at(STARTS[n])) for n in (0, 0, 1)]
    sitk.WriteImage(sitk.JoinSeries(frames), str(desk.folder / "ct.nii.gz"))
    for name, corners in (("small.json", [[4, 5, 2], [13, 14, 5]]), ("large.json", [[2, 4, 1], [15, 15, 6]])):
        desk.write_prompts(
            {"version": 1, "space": "ijk", "segments": [{"name": "Block", "prompts": [desk.box(corners)]}]}, name
        )
    options = {"image": desk.folder / "ct.nii.gz", "prompts": desk.folder / "small.json", "roi": "prompts:1"}
    own = f"1={desk.folder / 'large.json'}"
    assert desk.segment(frame="all", report=desk.folder / "r.json", **options, **{"frame-prompts": own}) == 0, desk.err
    seen = [options_of(desk.folder / f"result-{n:03}.seg.nrrd") for n in range(3)]
    regions = [[each["region"][side] for side in ("start_kji", "stop_kji")] for each in seen]
    assert regions[:2] == [[[1, 4, 3], [7, 16, 15]], [[0, 3, 1], [8, 17, 17]]]
    assert regions[2] not in regions[:2], "it moves along"
    assert [each["parts"] for each in seen] == [[each["region"]] for each in seen]
    report = json.loads((desk.folder / "r.json").read_text())
    assert (report["frame"], report["region"], report["parts"]) == (0, seen[0]["region"], seen[0]["parts"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"prompt-frame": 5}, "there is no frame 5"),
        ({"frame-prompts": "x"}, "N=FILE"),
        ({"output": "x.dcm"}, "--frame all writes"),
        ({"frame": 1, "prompt-frame": 2}, "are for --frame all"),
        ({"frame": "some"}, "neither the number of a frame nor all"),
    ],
)
def test_what_does_not_go_with_all_frames_is_refused(moving, options, text):
    assert moving.segment(**{"frame": "all"} | options) == 2
    assert text in moving.err


def test_one_frame_is_no_time(desk):
    assert desk.segment(frame="all") == 2 and "leave out --frame" in desk.err
    assert desk.run("classify", str(desk.image), "--model", "fake", "--label", "a", "--frame", "all") == 2


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, -3, 4), (-2, 5, 0)])
def test_a_part_is_found_again_to_a_fraction_of_a_voxel(shift):
    smooth = ndimage.gaussian_filter(np.random.default_rng(4).normal(size=(24, 40, 44)), 2).astype(np.float32)
    moved = ndimage.shift(smooth, np.add(shift, (0, 0.3, -0.4)), mode="nearest")
    geometry = Geometry(np.eye(4), smooth.shape)
    found = frames_in_time.find_shift(smooth, moved, Box((8, 12, 12), (16, 28, 30)), (0.0, 0.0, 0.0), geometry)
    assert found == pytest.approx(np.add(shift, (0, 0.3, -0.4)), abs=0.2)
    flat = np.zeros_like(smooth)
    assert all(map(np.isfinite, frames_in_time.find_shift(flat, flat, Box((0, 0, 0), (5, 5, 5)), (0, 0, 0), geometry)))


def answer(mask, shift=(0.0, 0.0, 0.0)):
    segment = SegmentPrediction(pack_mask(mask), None)
    prediction = Prediction(0, (segment,), {"low": 0, "high": 1}, RECORD, "cpu", "float32")
    return frames_in_time.FrameAnswer(prediction, (shift,), False)


@pytest.mark.parametrize("by", [2, -2, 4, -4])
@pytest.mark.parametrize("rows", [slice(0, 4), slice(20, 24), slice(0, 24)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (0, 2, 1)])
def test_what_moves_out_of_the_image_is_cut_off(by, rows, axes):
    """The frames beside it have the segment elsewhere, and outvote the one between them."""
    mask = np.zeros((8, 24, 28), bool)
    mask[2:6, rows, 5:9] = True
    moved = ndimage.shift(mask.astype(np.uint8), (0, by, 0), order=0) > 0
    mask, moved = mask.transpose(axes), moved.transpose(axes)
    shift = tuple(np.array((0.0, by, 0.0))[list(axes)])
    near, image = answer(mask), Box((0, 0, 0), mask.shape)
    steady = frames_in_time.steady([near, answer(mask, shift), near], image)[1].masks[0]
    assert np.array_equal(steady.expand(mask.shape), moved)
    nothing = frames_in_time.steady([near, answer(mask & False, shift), answer(mask & False)], image)[1].masks[0]
    assert nothing == EMPTY_MASK


def test_flicker_is_what_differs_from_both_neighbours():
    on, off = pack_mask(np.ones((2, 2, 2), bool)), EMPTY_MASK
    assert frames_in_time.flicker([on, off, on]) == 8 and frames_in_time.flicker([on, on, on]) == 0
    assert frames_in_time.flicker([off, on, on]) == frames_in_time.flicker([off, off, off]) == 0
    assert frames_in_time.flicker([off, on, off, on]) == 2


# The bar: a real CT under ten known smooth deformations, with a scanner's noise of its own in each frame.


def deformed(array, n, order, spacing_kji):
    """The image at a moment of a breath: its middle moves by up to 9 mm, and less towards its borders."""
    phase = np.sin(2 * np.pi * n / 10)
    axes = [np.sin(np.pi * (np.arange(size) + 0.5) / size) for size in array.shape]
    bump = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    moved = np.indices(array.shape, float)
    for axis, mm in enumerate((9.0, 6.0, -3.0)):
        moved[axis] -= phase * mm / spacing_kji[axis] * bump
    return ndimage.map_coordinates(array.astype(np.float32), moved, order=order, mode="nearest")


def of_rules(volume, prompts, low, high):
    """Segment what is of the organ's brightness in the box, slightly smoothed, as a model of rules."""
    segments = []
    for segment in prompts.segments:
        (prompt,) = segment.prompts
        corners = np.sort(np.floor(volume.geometry.to_ijk(prompt.corners)[:, ::-1] + 0.5), axis=0).astype(int)
        start, stop = np.clip(corners[0], 0, None), np.minimum(corners[1] + 1, volume.geometry.shape_kji)
        mask = np.zeros(volume.geometry.shape_kji, bool)
        inside = tuple(map(slice, start, stop))
        smooth = ndimage.gaussian_filter(volume.array_kji[inside], 0.6)
        mask[inside] = (smooth >= low) & (smooth <= high)
        segments.append(SegmentPrediction(pack_mask(mask), None))
    return Prediction(0, tuple(segments), {"low": 0, "high": 1}, RECORD, "cpu", "float32")


def real_case(shared_data, label=5):
    volume = read_volume(shared_data("TotalSegmentator/example_ct_sm.nii.gz"))
    labels, _ = read_label_map(shared_data("TotalSegmentator/example_ct_sm_seg.nii.gz"))
    truth = labels == label
    spacing, noise = volume.geometry.spacing_mm[::-1], np.random.default_rng(23)
    frames, truths = [], []
    for n in range(11):  # the undeformed one, then ten deformations
        array = deformed(volume.array_kji, n, 1, spacing) + noise.normal(0, 25, truth.shape)
        frames.append(Volume(array.astype(np.float32), volume.geometry, "CT"))
        truths.append(deformed(truth, n, 1, spacing) > 0.5)
    index = np.argwhere(truth)
    first, last = index.min(axis=0) - 1, index.max(axis=0) + 1
    corners = tuple(tuple(map(float, np.clip(n, 0, np.array(truth.shape) - 1)[::-1])) for n in (first, last))
    prompts = PromptSet((SegmentPrompts("Organ", (BoxPrompt(corners),)),), "ijk")
    values = volume.array_kji[truth]
    return frames, truths, prompts_in_ras(prompts, volume.geometry), np.percentile(values, (10, 90))


def test_a_breathing_ct_is_followed_no_worse_than_each_frame_alone_with_half_the_flicker(shared_data, bar):
    frames, truths, prompts, (low, high) = real_case(shared_data)
    predict = partial(of_rules, low=low, high=high)

    def of_frame(number, moved):
        return predict(frames[number], moved)

    alone = [predict(frame, prompts).segments[0].mask for frame in frames]
    followed = [answer.masks[0] for answer in frames_in_time.follow(frames, {0: prompts}, of_frame)]
    shape = truths[0].shape
    scores = {
        name: [dice(truth, mask.expand(shape)) for mask, truth in zip(masks, truths, strict=True)]
        for name, masks in (("alone", alone), ("followed", followed))
    }
    gains = np.subtract(scores["followed"], scores["alone"])
    ratio = frames_in_time.flicker(followed) / frames_in_time.flicker(alone)
    bar("time: least gain in Dice of a frame over that frame alone", gains.min(), ">= 0")
    bar("time: mean Dice followed", np.mean(scores["followed"]), f"alone {np.mean(scores['alone']):.4f}")
    bar("time: flicker, of each frame alone", ratio, "<= 0.5")
    assert gains.min() >= 0 and ratio <= 0.5
