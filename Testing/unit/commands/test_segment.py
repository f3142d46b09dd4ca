"""The command as a whole, in process, with a fake model: what goes right, in which order, and what is written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.io.segmentations import read_label_map, read_mask_prompt
from Testing.unit.commands.conftest import BOXES, START, block_mask
from Testing.unit.fakes import CARD_TOML


def labels_of(path):
    return read_label_map(path)[0]


def report_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_segmentation_is_written_and_its_volumes_told(desk):
    assert desk.segment() == 0
    for name in BOXES:
        assert np.array_equal(read_mask_prompt(desk.output, name)[0], block_mask(name))
    assert desk.out == "", "stdout is for results that other programs read"
    assert desk.err.splitlines() == ["Left: 0.13 ml", "Right: 0.08 ml"]
    assert desk.files() == {*START, "result.seg.nrrd"}


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd"])
def test_a_label_map_numbers_the_segments_in_their_order(desk, ending):
    output = desk.folder / f"result.{ending}"
    assert desk.segment(output=output, prompts=desk.write_prompts(desk.document("Right", "Left"))) == 0
    labels = labels_of(output)
    assert np.array_equal(labels == 1, block_mask("Right"))
    assert np.array_equal(labels == 2, block_mask("Left"))
    assert sitk.ReadImage(str(output)).GetSpacing() == (1.0, 1.0, 2.0)


def test_relative_paths_and_names_beyond_ascii(desk, monkeypatch):
    monkeypatch.chdir(desk.folder)
    Path("Bücher 影像").mkdir()
    desk.image.rename("Bücher 影像/Körper 影像.nrrd")
    document = desk.document("Left")
    document["segments"][0]["name"] = "Leber 肝臓 | a:b"
    desk.write_prompts(document, "Bücher 影像/promptß.json")
    code = desk.segment(
        image="Bücher 影像/Körper 影像.nrrd",
        prompts="Bücher 影像/promptß.json",
        output="Bücher 影像/Ergebnis 影像.seg.nrrd",
        report="Bücher 影像/Bericht.json",
    )
    assert code == 0, desk.err
    assert np.array_equal(
        read_mask_prompt(Path("Bücher 影像/Ergebnis 影像.seg.nrrd"), "Leber 肝臓 | a:b")[0], block_mask("Left")
    )
    assert report_of(Path("Bücher 影像/Bericht.json"))["segments"][0]["name"] == "Leber 肝臓 | a:b"
    assert "Leber 肝臓 | a:b: 0.13 ml" in desk.err


def test_a_name_cannot_write_on_the_terminal(desk):
    document = desk.document("Left")
    document["segments"][0]["name"] = "a\nb\x1b[31m\tc"
    assert desk.segment(prompts=desk.write_prompts(document)) == 0
    assert desk.err == "a b [31m c: 0.13 ml\n"


@pytest.mark.parametrize("name", ["\ud800", "\0a", "a\0b"])
def test_a_name_that_no_file_can_hold_is_refused(desk, name):
    document = desk.document("Left")
    document["segments"][0]["name"] = name
    desk.segment(prompts=desk.write_prompts(document), report=desk.folder / "report.json")
    desk.assert_refused(2, "segments[0].name")


def test_the_memory_limit_reaches_the_worker(desk):
    limits, connect = [], desk.connect
    desk.connect = lambda settings: limits.append(settings.budget.limit) or connect(settings)
    assert [desk.segment(**{"memory-limit": "6GB"}), desk.segment()] == [0, 0]
    assert limits == [6 * 10**9, None]
    desk.segment(**{"memory-limit": "much"})
    desk.assert_refused(2, "--memory-limit", "no amount of memory", files={*START, "result.seg.nrrd"})


def test_prompts_in_ras_mean_the_same(desk):
    assert desk.segment(prompts=desk.write_prompts(desk.document(space="ras"))) == 0
    assert np.array_equal(read_mask_prompt(desk.output, "Left")[0], block_mask("Left"))


@pytest.mark.parametrize("axis", ["i", "j", "k"])
def test_a_box_may_be_followed_along_any_axis(desk, axis):
    document = desk.document("Right")
    document["segments"][0]["prompts"][0]["plane"] = axis
    assert desk.segment(prompts=desk.write_prompts(document)) == 0
    assert np.array_equal(read_mask_prompt(desk.output, "Right")[0], block_mask("Right"))


@pytest.mark.parametrize("propagate", [False, True])
def test_a_flat_box_is_carried_on_when_asked(desk, propagate):
    document = desk.document("Left")
    document["segments"][0]["prompts"] = [desk.box([[0, 1, 2], [5, 6, 2]])]
    assert desk.segment(prompts=desk.write_prompts(document), propagate=propagate) == 0
    slices = set(np.nonzero(read_mask_prompt(desk.output, "Left")[0])[0].tolist())
    assert slices == ({1, 2, 3, 4} if propagate else {2})


@pytest.mark.parametrize(
    ("options", "slices"),
    [
        ({"propagate-direction": "up"}, {2, 3, 4}),
        ({"propagate-range": "2:4"}, {2, 3}),
        ({"propagate-range": ":3"}, {1, 2}),
        ({"propagate-range": "3:", "hand-over": "box"}, {2, 3, 4}),
    ],
)
def test_saying_how_to_carry_on_means_that_it_is_done(desk, options, slices):
    document = desk.document("Left")
    document["segments"][0]["prompts"] = [desk.box([[0, 1, 2], [5, 6, 2]])]
    assert desk.segment(prompts=desk.write_prompts(document), **options) == 0
    assert set(np.nonzero(read_mask_prompt(desk.output, "Left")[0])[0].tolist()) == slices


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"propagate-range": "4"}, "START:STOP"),
        ({"propagate-range": "9" * 5000 + ":"}, "START:STOP"),
        ({"hand-over": "points"}, "cannot be asked with the points of a neighbouring slice, only with: box"),
        ({"propagate-direction": "sideways"}, "sideways"),
    ],
)
def test_carrying_on_in_an_impossible_way_is_bad_usage(desk, options, told):
    assert desk.segment(**options) == 2
    assert told in desk.err


@pytest.mark.parametrize(
    ("index", "options"),
    [
        (2, {"propagate-range": "4:6"}),
        (4, {"propagate-range": ":2"}),
        (5, {"propagate-direction": "up"}),
        (0, {"propagate-direction": "down"}),
        (3, {"propagate-range": "4:", "propagate-direction": "down"}),
    ],
)
def test_a_propagation_that_leads_nowhere_is_bad_usage(desk, index, options):
    document = desk.document("Left")
    document["segments"][0]["prompts"] = [desk.box([[0, 1, index], [5, 6, index]])]
    desk.segment(prompts=desk.write_prompts(document), **options)
    desk.assert_refused(2, "nothing can be carried on", "--propagate-range")
    assert desk.model.encoded == []


def test_a_propagation_that_leads_some_segments_nowhere_is_noted(desk):
    document = desk.document()
    for segment, (i, j, k) in zip(document["segments"], ((5, 6, 2), (11, 8, 5)), strict=True):
        segment["prompts"] = [desk.box([[i - 5, j - 5, k], [i, j, k]])]
    report = desk.folder / "report.json"
    code = desk.segment(prompts=desk.write_prompts(document), report=report, **{"propagate-range": "1:4"})
    assert code == 0, desk.err
    note = "segments[1]: carried on to no other slice: none in that range or direction"
    assert note in report_of(report)["notes"] and f"note: {note}" in desk.err


@pytest.mark.parametrize(
    ("corners", "options", "note"),
    [
        ([[0, 1, 1], [5, 6, 4]], {"propagate-range": "2:4"}, "a 3-D box is followed within itself"),
        ([[0, 1, 1], [5, 6, 4]], {"propagate-direction": "up"}, "a 3-D box is followed within itself"),
        ([[0, 1, 1], [5, 6, 4]], {"propagate": True}, ""),
        ([[0, 1, 2], [5, 6, 2]], {"propagate-range": "2:4"}, ""),
    ],
)
def test_limits_of_a_propagation_that_change_nothing_are_noted(desk, corners, options, note):
    document = desk.document("Left")
    document["segments"][0]["prompts"] = [desk.box(corners)]
    assert desk.segment(prompts=desk.write_prompts(document), **options) == 0
    assert desk.err.count("note: segments[0]: ") == bool(note) and note in desk.err


def test_slices_between_the_prompted_ones_are_interpolated(desk):
    document = desk.document("Left")
    ends, between = [desk.box([[0, 1, k], [5, 6, k]]) for k in (1, 4)], {"hand-over": "interpolate"}
    document["segments"][0]["prompts"] = ends
    report = desk.folder / "report.json"
    assert desk.segment(prompts=desk.write_prompts(document), report=report, **between) == 0, desk.err
    assert np.array_equal(read_mask_prompt(desk.output, "Left")[0], block_mask("Left"))
    assert report_of(report)["counts"] == {"encodes": 2, "decodes": 2}
    document["segments"][0]["prompts"] = ends[:1]
    assert desk.segment(prompts=desk.write_prompts(document), **between) == 2
    assert "nothing to interpolate" in desk.err


def test_a_map_of_uncertainty_is_written_without_encoding_again(desk):
    report = desk.folder / "report.json"
    for ending in ("nrrd", "nii.gz"):
        target = desk.folder / f"map.{ending}"
        options = {"uncertainty": target, "uncertainty-answers": 4, "report": report}
        assert desk.segment(**options) == 0, desk.err
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(target)))
        assert values.dtype == np.float32 and values.shape == block_mask("Left").shape and 0 <= values.max() <= 1
    told = report_of(report)["uncertainty"]
    assert told["answers"] == 4 and told["axis"] == "k" and set(told["slices"]) == {"1", "2", "3", "4"}
    assert len(desk.model.encoded) == 2 * 4
    assert desk.segment(uncertainty=desk.folder / "map.seg.nrrd") == 2
    assert desk.segment(uncertainty=desk.image) == 2


def test_a_picture_cannot_be_carried_on_and_says_so(desk):
    picture = desk.write_image("one.nrrd", np.random.default_rng(0).integers(0, 250, (1, 10, 12), np.uint8))
    document = desk.document("Left")
    document["segments"][0]["prompts"] = [desk.box([[0, 1, 0], [5, 6, 0]])]
    assert desk.segment(image=picture, prompts=desk.write_prompts(document), propagate=True) == 0
    assert "carried on to no other slice" in desk.err


def test_a_mask_prompt_is_read_from_beside_the_prompts_file(desk):
    """The box-only model is asked with the box around it, as its card says."""
    card = CARD_TOML.replace("dimensions", 'translations = { mask = "box" }\ndimensions')
    (desk.folder.parent / "cards" / "fake.toml").write_text(card)
    assert desk.segment(prompts=desk.write_prompts(desk.document("Left"))) == 0
    seed = desk.output.rename(desk.folder / "seed.seg.nrrd")
    document = desk.document("Left")
    document["segments"][0]["prompts"] = [{"type": "mask", "file": seed.name, "segment": "Left"}]
    report = desk.folder / "report.json"
    assert desk.segment(prompts=desk.write_prompts(document), report=report) == 0, desk.err
    assert np.array_equal(read_mask_prompt(desk.output, "Left")[0], block_mask("Left"))
    assert report_of(report)["notes"] == ["segments[0].prompts[0]: the mask became a box, which Fake Model understands"]
    assert report_of(report)["prompts"]["segments"] == document["segments"], "without the voxels"


def test_the_report_counts_encodes_and_decodes(desk):
    report = desk.folder / "report.json"
    document = desk.document()
    document["segments"].append({"name": "Again", "prompts": [desk.box(BOXES["Left"])]})  # asked once, given twice
    assert desk.segment(prompts=desk.write_prompts(document), report=report) == 0
    counts = report_of(report)["counts"]
    assert counts == {"encodes": 4, "decodes": 4 + 2}, "slices 2 and 3 are shared by all three"
    assert len(desk.model.encoded) == 4


def test_a_device_is_passed_on(desk):
    desk.model.device = "cuda"
    assert desk.segment(device="cuda", report=desk.folder / "r.json") == 0
    assert desk.devices == ["cuda"]
    assert report_of(desk.folder / "r.json")["device"] == "cuda"


def test_what_was_clipped_or_not_found_is_told(desk):
    document = desk.document("Left")
    document["segments"][0]["prompts"] = [desk.box([[-9, 0, 1], [5, 6, 4]])]
    document["segments"].append({"name": "Air", "prompts": [desk.box([[6, 0, 0], [9, 1, 1]])]})
    report = desk.folder / "report.json"
    assert desk.segment(prompts=desk.write_prompts(document), report=report) == 0
    notes = ["segments[0].prompts[0].corners: clipped to the image", "segments[1]: the model found nothing"]
    assert report_of(report)["notes"] == notes
    assert desk.err.splitlines() == [*(f"note: {note}" for note in notes), "Left: 0.13 ml", "Air: 0.00 ml"]
    assert report_of(report)["segments"][1] == {"name": "Air", "voxels": 0, "volume_ml": 0.0, "score": None}


def test_a_picture_is_measured_in_pixels(desk):
    """It has neither millimetres nor millilitres."""
    pixels = np.random.default_rng(0).integers(0, 90, (20, 24), np.uint8)
    pixels[5:15, 6:18] = 250
    picture = desk.write_image("picture.png", pixels, spacing=(1.0, 1.0))
    segments = [{"name": "Left", "prompts": [desk.box([[6, 5, 0], [17, 14, 0]])]}]
    prompts = desk.write_prompts({"version": 1, "space": "ijk", "segments": segments})
    report = desk.folder / "report.json"
    assert desk.segment(image=picture, prompts=prompts, report=report, overview=desk.folder / "o.png") == 0
    assert desk.err.splitlines()[-1] == "Left: 120 pixels"
    assert report_of(report)["segments"][0]["voxels"] == 120
    assert report_of(report)["segments"][0]["volume_ml"] is None
    assert "mm was assumed" not in desk.err and "measured in pixels" in desk.err


OVERLAPPING = [[2, 1, 1], [8, 8, 4]]


def overlapping_prompts(desk):
    document = desk.document()
    document["segments"].append({"name": "Both", "prompts": [desk.box(OVERLAPPING)]})
    return desk.write_prompts(document)


def test_segments_may_overlap_in_a_segmentation(desk):
    assert desk.segment(prompts=overlapping_prompts(desk)) == 0
    masks = {name: read_mask_prompt(desk.output, name)[0] for name in ("Left", "Right", "Both")}
    assert (masks["Both"] & masks["Left"]).any()
    assert (masks["Both"] & masks["Right"]).any()
    for name in BOXES:
        assert np.array_equal(masks[name], block_mask(name))


def test_segments_that_overlap_fit_no_label_map(desk):
    output = desk.folder / "result.nii.gz"
    report = desk.folder / "report.json"
    assert desk.segment(prompts=overlapping_prompts(desk), output=output, report=report) == 2
    assert "'Left' and 'Both' overlap" in desk.err
    assert "--overlap protect" in desk.err
    assert desk.files() == START


def test_protected_segments_stay_whole(desk):
    output = desk.folder / "result.nii.gz"
    report = desk.folder / "report.json"
    assert desk.segment(prompts=overlapping_prompts(desk), output=output, overlap="protect", report=report) == 0
    labels = labels_of(output)
    assert np.array_equal(labels == 1, block_mask("Left"))
    assert np.array_equal(labels == 2, block_mask("Right"))
    written = {one["name"]: one["voxels"] for one in report_of(report)["segments"]}
    assert written == {name: int((labels == n).sum()) for n, name in enumerate(("Left", "Right", "Both"), 1)}


def test_the_overview_is_a_picture_of_image_and_segments(desk):
    overview = desk.folder / "overview.png"
    assert desk.segment(overview=overview) == 0, desk.err
    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(overview)))
    assert picture.ndim == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    assert desk.files() == {*START, "overview.png", "result.seg.nrrd"}


def test_an_interruption_writes_nothing(desk, monkeypatch):
    def interrupt(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(desk.model), "decode", interrupt)
    assert desk.segment(report=desk.folder / "report.json") == 130
    assert desk.err == "foundationseg: interrupted; nothing was written\n"
    assert desk.files() == START


@pytest.fixture
def seeded(desk):
    """A desk whose prompt is a mask, in a folder of its own."""
    desk.segment()
    (desk.folder / "seeds").mkdir()
    seed = desk.output.rename(desk.folder / "seeds" / "seed.seg.nrrd")
    cards = desk.folder.parent / "cards" / "fake.toml"
    cards.write_text(CARD_TOML.replace("dimensions", 'translations = { mask = "box" }\ndimensions'))
    document = desk.document("Left")
    document["segments"][0]["prompts"] = [{"type": "mask", "file": "seeds/seed.seg.nrrd", "segment": "Left"}]
    desk.prompts = desk.write_prompts(document)
    return desk, seed


@pytest.mark.parametrize("option", ["output", "report"])
def test_the_file_of_a_mask_prompt_is_never_replaced(seeded, option):
    desk, seed = seeded
    before = seed.read_bytes()
    desk.segment(**{option: seed})
    desk.assert_refused(2, f"--{option} seed.seg.nrrd would replace the mask", files={*START, "seeds/seed.seg.nrrd"})
    assert seed.read_bytes() == before


def test_report_and_tags_name_the_file_of_a_mask_prompt_without_its_folder(seeded):
    desk, _ = seeded
    report = desk.folder / "report.json"
    assert desk.segment(report=report) == 0
    assert report_of(report)["prompts"]["segments"][0]["prompts"][0]["file"] == "seed.seg.nrrd"
    assert b"seeds/" not in desk.output.read_bytes() + report.read_bytes()


def test_nothing_is_announced_before_the_masks_were_read(seeded):
    desk, seed = seeded
    seed.unlink()
    shutil.rmtree(desk.folder.parent / "store")
    desk.segment(download=True)
    desk.assert_refused(2, "segments[0].prompts[0].file: seed.seg.nrrd does not exist")
