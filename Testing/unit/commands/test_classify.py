"""`classify` as a whole, in process, with a model made of rules: what is printed, what is written, what is refused."""

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.hub.store import STORE_VARIABLE
from FoundationSegLib.io.segmentations import read_mask_prompt
from FoundationSegLib.requests.classification_answer import RESEARCH_USE
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.commands.conftest import BLOCKS, SHAPE, START, ct_array


def run(booth, *more, image=None, labels=("--label", "bright", "--label", "dark")):
    arguments = [part for part in more if part is not None]
    return booth.run("classify", str(image or booth.image), "--model", "reader", *labels, *map(str, arguments))


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_printed_by_rank_with_what_they_are_for(booth):
    assert run(booth) == 0, booth.err
    first, *ranked, last = booth.out.splitlines()
    assert first == "dark (softmax, mean of 6 slices, reader)"
    assert [line.split()[0] for line in ranked] == ["dark", "bright"]
    assert last == RESEARCH_USE
    assert any("seen 3 times" in line for line in booth.err.splitlines())
    assert booth.files() == START


def test_the_report_says_everything(booth):
    report = booth.folder / "report.json"
    assert run(booth, "--slices", "1:4", "--report", report, "--aggregation", "top-2", "--scoring", "pairs") == 0, (
        booth.err
    )
    document = json.loads(report.read_text(encoding="utf-8"))
    assert (document["version"], document["command"], document["research_use"]) == (1, "classify", RESEARCH_USE)
    assert document["model"]["id"] == "reader" and document["model"]["sha256"]
    assert document["slices"] == [1, 2, 3] and document["aggregation"] == "top-2"
    assert document["scoring"]["rule"] == "pairs" and document["subject"] == {"axis": "k"}
    assert [look["name"] for look in document["looks"]] == ["ct-soft-tissue", "ct-lung", "ct-bone"]
    assert set(document["timings_s"]) == {"start", "load", "text", "encode", "evidence", "total"}
    assert document["software"]["FoundationSeg"] and str(booth.folder) not in report.read_text(encoding="utf-8")
    assert run(booth, "--json") == 0
    assert json.loads(booth.out)["labels"][0]["name"] == "dark"


def test_a_label_set_that_comes_along(booth):
    assert run(booth, labels=("--label-set", "ct-abdomen-organs")) == 0, booth.err
    assert len(booth.out.splitlines()) == 17 + 2 and "(pairs, mean of 6 slices" in booth.out


@pytest.mark.parametrize("axes", ["LPS", "IRA"])
def test_one_slice_a_region_and_a_segment(booth, axes):
    assert run(booth, "--slices", "3", "--axis", "i") == 0
    assert "one slice" in booth.out
    report = booth.folder / "report.json"
    assert run(booth, "--region", "5:11,3:8,2:4", "--report", report) == 0, booth.err
    document = json.loads(report.read_text(encoding="utf-8"))
    assert document["slices"] == [2, 3] and document["subject"]["region_ijk"] == [[5, 3, 2], [11, 8, 4]]
    assert run(booth, "--region", "5:,:8,2:4", "--report", report) == 0, booth.err
    assert json.loads(report.read_text(encoding="utf-8"))["subject"]["region_ijk"] == [[5, 0, 2], [12, 8, 4]]
    labels = np.zeros(SHAPE, np.uint8)
    labels[BLOCKS["Left"]] = 1
    path = booth.write_image("labels.nrrd", labels)
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), axes), str(path))
    segment = ("--segment", path, "--segment-name", "1")
    assert run(booth, *segment, "--segment-view", "mask", "--report", report) == 0, booth.err
    document = json.loads(report.read_text(encoding="utf-8"))
    assert document["slices"] == [1, 2, 3, 4]
    assert document["subject"] == {"axis": "k", "segment": "1", "file": "labels.nrrd", "view": "mask"}


def test_evidence_as_a_segment_and_as_values(booth):
    output = booth.folder / "evidence.seg.nrrd"
    asked = ("--intensity", "ct-soft-tissue", "--evidence-label", "bright", "--evidence-slices", "0")
    assert run(booth, *asked, "--evidence", output) == 0, booth.err
    mask, _ = read_mask_prompt(output, "Evidence: bright")
    blocks = np.zeros(SHAPE, bool)
    for block in BLOCKS.values():
        blocks[block] = True
    assert mask.any() and (mask & blocks).sum() > 0.8 * mask.sum()
    values = booth.folder / "evidence.nrrd"
    assert run(booth, *asked, "--evidence", values, "--evidence-method", "occlusion") == 0, booth.err
    image = sitk.ReadImage(str(values))
    found = sitk.GetArrayFromImage(image)
    assert found.shape == SHAPE and found.dtype == np.float32 and image.GetSpacing() == (1.0, 1.0, 2.0)
    assert blocks[np.unravel_index(found.argmax(), SHAPE)]


def test_a_table_has_a_row_for_each_label(booth):
    table = booth.folder / "scores.csv"
    assert run(booth, "--csv", table) == 0, booth.err
    rows = rows_of(table)
    assert [row["label"] for row in rows] == ["dark", "bright"]
    assert {row["image"] for row in rows} == {"ct.nrrd"} and {row["note"] for row in rows} == {RESEARCH_USE}
    assert sum(float(row["score"]) for row in rows) == pytest.approx(1, abs=1e-5)
    assert rows[0]["model"] == "reader" and rows[0]["revision"] == "1.0" and rows[0]["stands_out"] == "1"


def write_folder(booth):
    folder = booth.folder / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, level in (("a.png", 200), ("b.png", 40)):
        sitk.WriteImage(
            sitk.GetImageFromArray(rng.integers(level - 30, level + 30, (20, 30)).astype(np.uint8)), folder / name
        )
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((20, 20), np.uint8)), folder / "black.png")
    sitk.WriteImage(sitk.GetImageFromArray(ct_array()), folder / "ct, axial.nrrd")
    (folder / "damaged.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder_becomes_a_table_in_one_call(booth):
    folder, table, report = write_folder(booth), booth.folder / "scores.csv", booth.folder / "all.json"
    options = ("--each", "--csv", table, "--report", report, "--intensity", "raw")
    assert run(booth, *options, image=folder) == 0, booth.err
    rows = rows_of(table)
    best = {row["image"]: row["label"] for row in reversed(rows) if row["score"]}
    assert set(best) == {"a.png", "b.png", "ct, axial.nrrd"}
    assert (best["a.png"], best["b.png"]) == ("bright", "dark")
    failed = {row["image"]: row["error"] for row in rows if row["error"]}
    assert set(failed) == {"black.png", "damaged.png"} and "constant" in failed["black.png"]
    assert {row["note"] for row in rows} == {RESEARCH_USE}
    images = json.loads(report.read_text(encoding="utf-8"))["images"]
    assert [one["image"] for one in images] == ["a.png", "b.png", "black.png", "ct, axial.nrrd", "damaged.png"]
    assert len(booth.model.read) == 1, "the labels are read once for all images"
    assert str(folder) not in table.read_text() + report.read_text()


def test_a_folder_run_holds_one_image_at_a_time_also_after_those_that_fail(booth):
    folder, connect, held = write_folder(booth), booth.connect, set()

    class OneAtATime(InlineClient):
        def send_volume(self, volume):
            assert not held, "an image before is still there"
            held.add(volume.key)
            super().send_volume(volume)

        def remove_volume(self, volume_key):
            held.discard(volume_key)
            super().remove_volume(volume_key)

    booth.connect = lambda settings: OneAtATime(connect(settings).engine)
    assert run(booth, "--each", "--json", "--intensity", "display", image=folder) == 2
    assert "a.png: not classified: the image brings no display window" in booth.err and not held


def test_a_folder_of_nothing_but_damage_is_an_error(booth):
    folder = booth.folder / "images"
    folder.mkdir()
    assert run(booth, "--each", "--csv", booth.folder / "x.csv", image=folder) == 2
    booth.assert_refused(2, "holds no images")
    (folder / "a.png").write_bytes(b"no")
    assert run(booth, "--each", "--csv", booth.folder / "x.csv", image=folder) == 2
    assert booth.files() == {*START, "images/a.png"}
    first, last = booth.err.splitlines()
    assert first.startswith("a.png: not classified: ") and last == "foundationseg: none of 1 image was classified"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--slices", "9"), "there are 6 slices across k"),
        (("--slices", "4:4"), "the range 4:4 holds no slice"),
        (("--slices", "a"), "neither all"),
        (("--region", "1:2,3:4"), "START:STOP,START:STOP,START:STOP"),
        (("--region", "0:99,0:4,0:4"), "reaches out of the image"),
        (("--region", "3:3,0:4,0:4"), "the range 3:3 holds no voxel"),
        (("--region", "20:,:,:"), "the region to classify is empty"),
        (("--temperature", "0"), "temperature"),
        (("--margin", "2"), "margin"),
        (("--aggregation", "median"), "mean, max, or top-K"),
        (("--scoring", "sigmoid"), "not trained to score by a sigmoid"),
        (("--scoring", "concepts"), "no concepts"),
        (("--intensity", "ct-channels"), "three windows as colours"),
        (("--intensity", "nice"), "unknown intensity policy"),
        (("--segment", "x.nrrd"), "--segment-name"),
        (("--segment-view", "mask"), "--segment-view is for --segment"),
        (("--evidence-label", "dark"), "--evidence-label is for --evidence"),
        (("--evidence", "out.png"), ".seg.nrrd"),
        (("--evidence", "out.nrrd", "--evidence-label", "grey"), "no label is called 'grey'"),
        (("--each", "--csv", "out.csv"), "not a folder"),
        (("--label", "bright"), "twice"),
        (("--label", " "), "is empty"),
        (("--csv", "ct.nrrd"), "would replace"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(booth, monkeypatch, options, told):
    monkeypatch.chdir(booth.folder)
    run(booth, *options)
    booth.assert_refused(2, told)


@pytest.mark.parametrize("options", [("--slices", "9"), ("--region", "0:99,:,:")])
def test_what_lies_outside_of_the_image_needs_no_download(booth, monkeypatch, tmp_path, options):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "empty"))
    run(booth, *options)
    booth.assert_refused(2)


def test_an_image_of_another_domain_needs_no_download(booth, monkeypatch, tmp_path):
    with (booth.cards / "reader.toml").open("a", encoding="utf-8") as card:
        card.write('\n[domain]\nmodalities = ["OP"]\n')
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "empty"))
    run(booth, "--download")
    booth.assert_refused(2, "not of the domain", "Hounsfield units")


def test_an_empty_segment_is_refused(booth):
    labels = np.zeros(SHAPE, np.uint8)
    labels[BLOCKS["Left"]] = 1
    path = booth.write_image("labels.nrrd", labels)
    run(booth, "--segment", path, "--segment-name", "2")
    booth.assert_refused(2, "labels.nrrd has no label '2'; it has: 1", files={*START, "labels.nrrd"})


def test_labels_and_sets_are_one_or_the_other(booth):
    run(booth, labels=("--label-set", "none"))
    booth.assert_refused(2, "no label set is called 'none'", "modality")
    run(booth, labels=("--label-set", "modality", "--label", "x"))
    booth.assert_refused(2, "not allowed with")
    run(booth, labels=("--label-set", "modality", "--findings"))
    booth.assert_refused(2, "--findings is for labels of your own")
    run(booth, labels=())
    booth.assert_refused(2, "--label")
    assert run(booth, "--findings") == 0 and "(pairs" in booth.out


def test_models_of_another_task_are_refused(booth):
    booth.run("classify", str(booth.image), "--model", "fake", "--label", "a", "--label", "b")
    booth.assert_refused(2, "fake is a model to segment with, not to classify with")
    assert booth.segment(model="reader") == 2
    booth.assert_refused(2, "reader is a model to classify with, not to segment with")
