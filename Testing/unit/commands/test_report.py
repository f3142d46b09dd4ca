"""The report of `segment`: fields, numbers and times of what was done, and nothing that is private."""

import json
import platform
import re
from pathlib import Path

import numpy as np
import pytest

from FoundationSegLib import __version__
from FoundationSegLib.io.segmentations import read_mask_prompt, segment_names
from Testing.unit.commands.conftest import BOXES, START, ct_array
from Testing.unit.fakes import CARD_TOML, SHA256

FIELDS = ("version", "command", "model", "device", "precision", "intensity", "prompts", "segments", "notes")
OPTIONS = ("image", "frame", "propagation", "region", "parts", "box_rule", "overlap", "seeds", "left_out")


@pytest.fixture
def report(desk):
    path = desk.folder / "report.json"
    assert desk.segment(report=path, intensity="400,40") == 0
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_file_says_what_was_done(desk, report):
    assert set(report) == {*FIELDS, *OPTIONS, "timings_s", "counts", "software"}
    assert (report["version"], report["command"]) == (1, "segment")
    assert report["model"] == {"id": "fake", "source": "fake-wheel", "revision": "1.0", "sha256": SHA256}
    assert (report["device"], report["precision"]) == ("cpu", "float32")
    window = {"policy": "400,40", "rule": "window", "low": -160.0, "high": 240.0, "window": 400.0, "level": 40.0}
    assert report["intensity"] == window
    assert report["prompts"] == desk.document()
    assert [segment["name"] for segment in report["segments"]] == list(BOXES)
    assert report["segments"][0] == {"name": "Left", "voxels": 64, "volume_ml": 0.128, "score": 0.75}
    assert report["counts"] == {"encodes": 4, "decodes": 6}
    assert report["notes"] == []
    software = report["software"]
    assert (software["FoundationSeg"], software["python"]) == (__version__, platform.python_version())
    assert {"numpy", "torch", "slicer-core"} <= set(software)


def test_times_add_up_and_include_the_writing(report):
    times = report["timings_s"]
    assert list(times) == ["start", "load", "encode", "decode", "write", "total"]
    assert all(isinstance(seconds, float) and seconds >= 0 for seconds in times.values())
    stages = sum(
        times[stage] for stage in ("start", "encode", "decode", "write")
    )  # the model is loaded during the first
    assert stages <= times["total"] + 0.01
    assert times["write"] > 0


def test_it_names_no_path_and_no_patient(desk, report):
    text = json.dumps(report)
    assert str(desk.folder) not in text and str(Path.home()) not in text
    assert not re.search(r'"(/|[A-Za-z]:\\)', text)
    assert "patient" not in text.lower()


FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "report-segment.json"


def masks_of(path):
    return {name: read_mask_prompt(path, name)[0] for name in segment_names(path)}


def overlapping(desk, *corners):
    """Prompts with a third segment, whose box reaches over the first."""
    document = desk.document()
    document["segments"].append({"name": "Both", "prompts": [desk.box(each) for each in corners]})
    return desk.write_prompts(document)


@pytest.fixture
def original(desk):
    """A function that segments with these options, and returns the masks; the report is ``report.json``."""

    def segment(**options):
        assert desk.segment(report=desk.folder / "report.json", **options) == 0, desk.err
        return masks_of(desk.output)

    return segment


def repeat(desk, **options):
    """Segment from the report, without prompts and model unless given."""
    again = desk.folder / "again.seg.nrrd"
    values = {"model": False, "prompts": False, "output": again, "from-report": desk.folder / "report.json"}
    desk.segment(**values | options)
    return masks_of(again) if desk.code == 0 else {}


THIN = [[2, 1, 2], [8, 8, 2]]
COMBINATIONS = [
    {},
    {"overlap": "protect"},
    {"propagate": True},
    {"propagate-range": "1:4", "overlap": "protect"},
    {"propagate-direction": "up", "hand-over": "box", "intensity": "raw"},
    {"roi": "1:11,0:9,1:4"},
    {"roi": "prompts:1", "propagate": True, "intensity": "ct-lung", "overlap": "protect"},
]


@pytest.mark.parametrize("options", COMBINATIONS)
def test_a_report_repeats_its_voxels(desk, original, options):
    before = original(prompts=overlapping(desk, THIN), **options)
    (desk.folder / "prompts.json").unlink()
    again = repeat(desk, report=desk.folder / "again.json")
    assert desk.code == 0, desk.err
    assert before.keys() == again.keys() and any(mask.any() for mask in before.values())
    assert all(np.array_equal(before[name], again[name]) for name in before)
    assert "not as in" not in desk.err
    first, second = (json.loads((desk.folder / name).read_text()) for name in ("report.json", "again.json"))
    same = [name for name in (*FIELDS, *OPTIONS) if name != "notes"]
    assert {name: first[name] for name in same} == {name: second[name] for name in same}


def test_options_matter(desk, original):
    """Each of the combinations gives other voxels than none, so that repeating them proves something."""
    plain = original(prompts=overlapping(desk, THIN))
    for options in COMBINATIONS[1:]:
        other = original(prompts=overlapping(desk, THIN), **options)
        assert any(not np.array_equal(plain[name], other[name]) for name in plain), options


@pytest.mark.parametrize(
    "options",
    [
        {"model": "other"},
        {"intensity": "raw"},
        {"overlap": "allow"},
        {"propagate-range": "0:3"},
        {"propagate-direction": "down"},
        {"frame": 1},
        {"roi": "0:5,0:5,0:5"},
        {"device": "cuda"},
        {"text": "liver"},
        {"seed-from": "no.seg.nrrd"},
    ],
)
def test_an_option_that_contradicts_the_report_is_named(desk, original, options):
    original(overlap="protect", **{"propagate-direction": "up"})
    repeat(desk, **options)
    desk.assert_refused(2, f"--{next(iter(options))}", "report.json", files={*START, "report.json", "result.seg.nrrd"})


def test_options_that_say_the_same_are_no_contradiction(desk, original):
    before = original(overlap="protect", **{"propagate-direction": "up", "roi": "1:11,0:9,1:5"})
    options = {"overlap": "protect", "propagate": True, "hand-over": "auto", "device": "auto", "model": "fake"}
    again = repeat(desk, prompts=desk.prompts, roi="1:11,0:9,1:5", **options)
    assert desk.code == 0, desk.err
    assert all(np.array_equal(before[name], again[name]) for name in before)


def test_other_prompts_contradict_the_report(desk, original):
    original()
    repeat(desk, prompts=desk.write_prompts(desk.document("Left"), "left.json"))
    assert (desk.code, "--prompts" in desk.err) == (2, True)


@pytest.mark.parametrize(("key", "value"), [("revision", "2.0"), ("sha256", "ab" * 32), ("source", "elsewhere")])
def test_another_checkpoint_is_told(desk, original, key, value):
    original()
    path = desk.folder / "report.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["model"][key] = value
    path.write_text(json.dumps(document), encoding="utf-8")
    repeat(desk)
    files = {*START, "report.json", "result.seg.nrrd"}
    desk.assert_refused(3, "was made with fake of", value[:12], "models import", files=files)
    assert desk.model.encoded != []


def test_seeds_are_found_and_have_to_be_the_same(desk, original):
    card = CARD_TOML.replace("dimensions", 'translations = { mask = "box" }\ndimensions')
    (desk.folder.parent / "cards" / "fake.toml").write_text(card)
    assert desk.segment() == 0
    (desk.folder / "seeds").mkdir()
    seed = desk.output.rename(desk.folder / "seeds" / "seed.seg.nrrd")
    before = original(prompts=False, **{"seed-from": seed})
    again = repeat(desk, **{"seed-from": seed})
    assert desk.code == 0, desk.err
    assert all(np.array_equal(before[name], again[name]) for name in before)
    repeat(desk)
    assert (desk.code, "seed.seg.nrrd does not exist" in desk.err) == (2, True)
    assert desk.segment(output=seed, prompts=overlapping(desk, THIN), overlap="protect", roi="2:12,0:10,0:6") == 0
    repeat(desk, **{"seed-from": seed})
    assert (desk.code, "has other voxels than when report.json was made" in desk.err) == (2, True)


def test_another_image_is_told_and_another_precision(desk, original):
    original()
    array = ct_array()
    array[0, 0, 0] = 5
    report = json.loads((desk.folder / "report.json").read_text(encoding="utf-8"))
    (desk.folder / "report.json").write_text(json.dumps(report | {"precision": "bfloat16"}), encoding="utf-8")
    repeat(desk, image=desk.write_image("ct.nrrd", array))
    assert desk.code == 0
    assert "note: not as in report.json: the image, the precision" in desk.err


def test_a_report_of_an_earlier_version_is_repeated_as_far_as_it_says_enough(desk):
    document = json.loads(FIXTURE.read_text(encoding="utf-8"))
    (desk.folder / "report.json").write_text(json.dumps(document), encoding="utf-8")
    assert {name: int(mask.sum()) for name, mask in repeat(desk).items()} == {"Left": 64, "Right": 40}
    document["segments"][0]["voxels"] = 60
    (desk.folder / "report.json").write_text(json.dumps(document), encoding="utf-8")
    repeat(desk, output=desk.folder / "third.seg.nrrd")
    desk.assert_refused(2, "does not say", "overlap", "not 60", files={*START, "report.json", "again.seg.nrrd"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no JSON"),
        ("[]", "is no report of 'segment'"),
        ('{"version": 1, "command": "classify"}', "is no report of 'segment'"),
        ('{"version": 2, "command": "segment"}', "later version"),
        ('{"version": 1, "command": "segment"}', "does not say model.id"),
    ],
)
def test_what_is_no_report_is_refused(desk, text, reason):
    (desk.folder / "report.json").write_text(text, encoding="utf-8")
    repeat(desk)
    desk.assert_refused(2, "report.json", reason, files={*START, "report.json"})


def test_a_model_is_needed(desk):
    desk.segment(model=False)
    desk.assert_refused(2, "--model ID, or --from-report FILE")
