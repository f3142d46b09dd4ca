"""The report of `segment`: fields, numbers and times of what was done, and nothing that is private."""

import json
import platform
import re
from pathlib import Path

import pytest

from FoundationSegLib import __version__
from Testing.unit.commands.conftest import BOXES
from Testing.unit.fakes import SHA256

FIELDS = ("version", "command", "model", "device", "precision", "intensity", "prompts", "segments", "notes")


@pytest.fixture
def report(desk):
    path = desk.folder / "report.json"
    assert desk.segment(report=path, intensity="400,40") == 0
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_file_says_what_was_done(desk, report):
    assert list(report) == [*FIELDS, "timings_s", "counts", "software"]
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
