"""The reports of today say what those of earlier versions said (`Testing/fixtures/README.md`), field by field."""

import json
from pathlib import Path

import numpy as np
import pytest

from Testing.unit.commands.conftest import block_mask
from Testing.unit.fakes import fill_store
from Testing.unit.reader_model import READER_TOML, ReaderModel

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
COMMANDS = ("segment", "classify", "evaluate")
MEASURED = ("software", "timings_s", "seconds", "load_s", "peak_memory_mb")  # another run has others


def reports(desk, tmp_path):
    """What the three commands report of the same image, by the name of the command."""
    labels = desk.write_image("truth.nrrd", block_mask("Left").astype(np.uint8) + 2 * block_mask("Right"))
    (tmp_path / "cards" / "reader.toml").write_text(READER_TOML)
    fill_store(tmp_path / "store", desk.catalogue()["reader"])
    paths = {name: desk.folder / f"{name}.json" for name in COMMANDS}
    assert desk.segment(report=paths["segment"]) == 0, desk.err
    evaluation = ("--model", "fake", "--protocol", "box", "--report", str(paths["evaluate"]))
    assert desk.run("evaluate", str(desk.image), str(labels), *evaluation) == 0, desk.err
    desk.model = ReaderModel()
    question = ("--model", "reader", "--label", "bright", "--label", "dark", "--slices", "1:4")
    assert desk.run("classify", str(desk.image), *question, "--report", str(paths["classify"])) == 0, desk.err
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}


def says(now, then):
    """True where a document says what an earlier one said; it may say more."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(
            key in now and (key in MEASURED or says(now[key], entry)) for key, entry in then.items()
        )
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(says, now, then))
    return now == pytest.approx(then, rel=1e-5) if isinstance(then, float) else now == then


def test_reports_say_what_they_said(desk, tmp_path):
    for name, document in reports(desk, tmp_path).items():
        earlier = json.loads((FIXTURES / f"report-{name}.json").read_text(encoding="utf-8"))
        assert says(document, earlier), name
