"""The command `adapt`: its table, its report, and what is kept."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE
from FoundationSegLib.commands.cli import main
from FoundationSegLib.hub.store import STORE_VARIABLE
from FoundationSegLib.worker.client import InlineClient
from Testing.toy_adaptation import toy_case, toy_engine

HEADER = "image,segmentation,segment,patient"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Writes the cases, and returns how to run the command on a table of lines."""
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    (tmp_path / "cards").mkdir()
    for number in range(9):
        volume, mask = toy_case(number, slices=8)
        sitk.WriteImage(sitk.GetImageFromArray(volume.array_kji), str(tmp_path / f"{number}.nrrd"))
        sitk.WriteImage(sitk.GetImageFromArray(mask.astype(np.uint8)), str(tmp_path / f"{number}-label.nrrd"))

    def run(lines, *options, header=HEADER):
        table = tmp_path / "cases.csv"
        table.write_text("\n".join([header, *lines]), encoding="utf-8")
        engine = toy_engine(tmp_path, [], tmp_path / "cards")
        arguments = ("adapt", "--model", "fake", "--cases", str(table), "--name", "blobs", "--least-pixels", "5")
        return main([*arguments, *options], lambda _: InlineClient(engine), lambda: engine.catalogue)

    return run


ALL = [f"{number}.nrrd,{number}-label.nrrd,,P{number}" for number in range(9)]


def test_what_is_not_better_is_reported_and_not_kept(desk, tmp_path, capsys):
    report = tmp_path / "report.json"
    assert desk(ALL, "--steps", "1", "--report", str(report), "--elsewhere", str(tmp_path / "cases.csv")) == 1
    captured = capsys.readouterr()
    assert "not better than fake beyond chance" in captured.err and "not kept" in captured.out
    document = json.loads(report.read_text(encoding="utf-8"))
    assert (document["command"], document["split"], document["units"], document["kept"]) == (
        "adapt",
        "patients",
        3,
        False,
    )
    assert {score["kind"] for score in document["kinds"]} == {"box", "point", "correction"}
    assert len(document["elsewhere"]) == 3 and document["settings"]["steps"] == 1
    lower = [label for score in document["kinds"] for label in score["labels"] if label["gain"]["mean"] < 0]
    assert captured.out.count("lower for blob") >= len(lower)
    assert not list((tmp_path / "cards").iterdir())
    assert not list((tmp_path / "store" / "adaptations").glob("fake+blobs/*"))


@pytest.mark.parametrize(
    ("lines", "header", "words"),
    [
        ([], HEADER, "no line below its header"),
        (ALL, "picture,segmentation,segment,patient", "no column 'image'"),
        (["0.nrrd,,,A"], HEADER, "line 2: names no image or no segmentation"),
        (["none.nrrd,0-label.nrrd,,A"], HEADER, "line 2: none.nrrd"),
        (["0.nrrd,0-label.nrrd,liver,A", "1.nrrd,1-label.nrrd,7,B"], HEADER, "line 3: 1-label.nrrd has no label '7'"),
        (ALL[:1], HEADER, "too few to learn from and to test on"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(desk, capsys, lines, header, words):
    assert desk(lines, header=header) == 2
    assert words in capsys.readouterr().err


def test_names_and_bases_that_cannot_be_are_refused(desk, capsys):
    assert desk(ALL, "--name", "Not A Name") == 2
    assert "no name for a model" in capsys.readouterr().err
    assert desk(ALL, "--model", "vista9") == 2
