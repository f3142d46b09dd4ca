"""One model's result starts another: from the file that the command line wrote."""

import json
import tomllib

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.catalog.catalogue import parse_card
from FoundationSegLib.io.segmentations import read_mask_prompt
from Testing.unit.commands.conftest import START, block_mask
from Testing.unit.fakes import CARD_TOML, fill_store

MASKS = CARD_TOML.replace('"fake"', '"takes-masks"', 1).replace('["box"]', '["box", "mask", "point"]')


@pytest.fixture
def seeded(desk, tmp_path, monkeypatch):
    """The desk with a result of the fake model, and a model that understands masks."""
    (tmp_path / "cards" / "takes-masks.toml").write_text(MASKS)

    fill_store(tmp_path / "store", parse_card(tomllib.loads(MASKS)))
    first = desk.folder / "first.seg.nrrd"
    assert desk.segment(output=first) == 0, desk.err
    desk.model.asked.clear()
    return desk, first


def test_every_segment_is_where_the_other_model_starts(seeded):
    desk, first = seeded
    report = desk.folder / "report.json"
    code = desk.segment(**{"model": "takes-masks", "prompts": False, "seed-from": first, "report": report})
    assert code == 0, desk.err
    for name in ("Left", "Right"):
        assert np.array_equal(read_mask_prompt(desk.output, name)[0], block_mask(name))
    assert all(prompt.mask is not None for prompt, _ in desk.model.asked)
    told = json.loads(report.read_text(encoding="utf-8"))["prompts"]["segments"]
    assert told[0] == {"name": "Left", "prompts": [{"type": "mask", "file": "first.seg.nrrd", "segment": "Left"}]}


def test_a_prompted_segment_starts_from_that_of_its_name(seeded):
    desk, first = seeded
    document = {"version": 1, "space": "ijk", "segments": [{"name": "Left", "prompts": []}]}
    document["segments"][0]["prompts"] = [{"type": "point", "position": [2, 3, 2]}]
    options = {"model": "takes-masks", "prompts": desk.write_prompts(document), "seed-from": first}
    assert desk.segment(**options) == 0, desk.err
    assert np.array_equal(read_mask_prompt(desk.output, "Left")[0], block_mask("Left"))
    both = [prompt for prompt, _ in desk.model.asked if prompt.points]
    assert both and all(prompt.mask is not None for prompt in both)


@pytest.mark.parametrize("axes", ["LPS", "IRA"])
def test_a_label_map_will_do_in_any_order_and_direction_of_axes(seeded, axes):
    desk, _ = seeded
    image = sitk.ReadImage(str(desk.image))
    labels = sitk.GetImageFromArray(block_mask("Left").astype(np.uint8) * 3)
    labels.CopyInformation(image)
    sitk.WriteImage(sitk.DICOMOrient(labels, axes), str(desk.folder / "labels.nrrd"))
    options = {"model": "takes-masks", "prompts": False, "seed-from": desk.folder / "labels.nrrd"}
    assert desk.segment(**options) == 0, desk.err
    assert np.array_equal(read_mask_prompt(desk.output, "3")[0], block_mask("Left"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prompts": False}, ("say what to segment", "--seed-from FILE")),
        ({"prompts": False, "seed-from": "no.seg.nrrd"}, ("no.seg.nrrd",)),
        ({"seed-from": "other.seg.nrrd"}, ("has no segment that is prompted; it has: Elsewhere; not: Left, Right",)),
        ({"seed-from": "first.seg.nrrd", "output": "first.seg.nrrd"}, ("first.seg.nrrd",)),
    ],
)
def test_what_is_no_seed_is_refused(seeded, monkeypatch, options, told):
    desk, _ = seeded
    monkeypatch.chdir(desk.folder)
    document = desk.document("Left")
    document["segments"][0]["name"] = "Elsewhere"
    desk.segment(prompts=desk.write_prompts(document, "other.json"), output=desk.folder / "other.seg.nrrd")
    desk.segment(**{"model": "takes-masks"} | options)
    desk.assert_refused(2, *told, files={*START, "first.seg.nrrd", "other.seg.nrrd", "other.json"})


def test_a_model_that_understands_no_masks_says_so(seeded):
    desk, first = seeded
    desk.segment(**{"prompts": False, "seed-from": first})
    desk.assert_refused(2, "does not understand masks", files={*START, "first.seg.nrrd"})
