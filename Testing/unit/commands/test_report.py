import json
import platform
import re
from pathlib import Path

import pytest

from FoundationSegLib import __version__
from FoundationSegLib.commands import report as report_module
from FoundationSegLib.commands.report import segment_report, software_versions
from FoundationSegLib.imaging.masks import EMPTY_MASK
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, SegmentPrediction
from Testing.unit.commands.conftest import BOXES
from Testing.unit.fakes import SHA256

FIELDS = [
    "version",
    "command",
    "model",
    "device",
    "precision",
    "intensity",
    "prompts",
    "segments",
    "notes",
    "timings_s",
    "counts",
    "software",
]


def prediction(notes=()):
    return Prediction(
        request_id=1,
        segments=(SegmentPrediction(EMPTY_MASK, 0.5),),
        intensity={"policy": "auto", "rule": "percentile", "low": 1.0, "high": 2.0},
        checkpoint=CheckpointRecord("fake", "fake-wheel", "1.0", "ab"),
        device="cpu",
        precision="float32",
        notes=notes,
        timings_s={"load": 1.0, "encode": 0.25, "decode": 0.1234},
        counts={"encodes": 3, "decodes": 1},
    )


def report(prediction, notes=()):
    timings_s = {"start": 0.5, "write": 0.25, "total": 4.0}
    return segment_report(prediction, {"version": 1}, [{"name": "Liver"}], notes, timings_s)


def test_it_has_the_fields_of_the_interface_in_their_order():
    document = report(prediction())
    assert list(document) == FIELDS
    assert document["version"] == 1
    assert document["command"] == "segment"
    assert document["model"] == {"id": "fake", "source": "fake-wheel", "revision": "1.0", "sha256": "ab"}
    assert (document["device"], document["precision"]) == ("cpu", "float32")
    assert document["intensity"]["policy"] == "auto"
    assert list(document["timings_s"]) == ["start", "load", "encode", "decode", "write", "total"]


def test_counts_and_times_are_those_of_the_answer():
    document = report(prediction())
    assert document["counts"] == {"encodes": 3, "decodes": 1}
    assert document["timings_s"] == {
        "start": 0.5,
        "load": 1.0,
        "encode": 0.25,
        "decode": 0.123,
        "write": 0.25,
        "total": 4.0,
    }


def test_notes_on_the_image_come_before_those_on_segments():
    document = report(prediction(("clipped", "empty")), notes=("transparency was dropped",))
    assert document["notes"] == ["transparency was dropped", "clipped", "empty"]


def test_the_software_is_named_as_far_as_it_is_there(monkeypatch):
    versions = software_versions()
    assert versions["FoundationSeg"] == __version__
    assert versions["python"] == platform.python_version()
    assert {"numpy", "torch", "slicer-core"} <= set(versions)
    monkeypatch.setattr(report_module, "_PACKAGES", ("numpy", "no-such-package"))
    assert set(software_versions()) == {"FoundationSeg", "python", "system", "numpy"}


@pytest.fixture
def written(desk):
    path = desk.folder / "report.json"
    assert desk.segment(report=path, intensity="400,40") == 0
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_file_says_what_was_done(desk, written):
    assert list(written) == FIELDS
    assert written["model"] == {"id": "fake", "source": "fake-wheel", "revision": "1.0", "sha256": SHA256}
    assert written["intensity"] == {
        "policy": "400,40",
        "rule": "window",
        "low": -160.0,
        "high": 240.0,
        "window": 400.0,
        "level": 40.0,
    }
    assert written["prompts"] == desk.document()
    assert [one["name"] for one in written["segments"]] == list(BOXES)
    assert written["segments"][0] == {"name": "Left", "voxels": 64, "volume_ml": 0.128, "score": 0.75}
    assert written["counts"] == {"encodes": 4, "decodes": 6}
    assert written["notes"] == []


def test_times_add_up_and_include_the_writing(written):
    times = written["timings_s"]
    assert all(isinstance(seconds, float) and seconds >= 0 for seconds in times.values())
    parts = sum(seconds for stage, seconds in times.items() if stage != "total")
    assert parts <= times["total"] + 0.01
    assert times["write"] > 0


def test_it_names_no_path_and_no_patient(desk, written):
    text = json.dumps(written)
    assert str(desk.folder) not in text
    assert str(Path.home()) not in text
    assert not re.search(r'"(/|[A-Za-z]:\\)', text)
    assert "patient" not in text.lower()
