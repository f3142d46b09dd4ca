"""`classify-evaluate`: a table with the truth in it or beside it; what is printed, written and refused."""

import json
import sys

import numpy as np
import pytest

from FoundationSegLib.commands.classify import csv_text
from FoundationSegLib.commands.cli import main
from FoundationSegLib.requests.classification_answer import RESEARCH_USE


def table(path, scoring="softmax", with_truth=False, images=12):
    """Three labels; two thirds of the images are told rightly."""
    rng = np.random.default_rng(0)
    names, rows = ("Liver", "Spleen", "Kidney"), []
    for n in range(images):
        right = n % 3
        scores = rng.random(3) * 0.3 + 0.05
        scores[right if n % 3 or n % 2 else (right + 1) % 3] = 0.8
        scores = scores / scores.sum() if scoring == "softmax" else scores
        for label, score in zip(names, scores, strict=True):
            row = {"image": f"{n}.png", "label": label, "score": f"{score:.6f}", "scoring": scoring, "model": "reader"}
            rows.append(row | {"truth": int(label == names[right])})
    text = csv_text([{key: value for key, value in row.items() if key != "truth"} for row in rows])
    if with_truth:
        header, *lines = text.strip().split("\r\n")
        text = "\r\n".join(
            [f"{header},truth", *(f"{line},{row['truth']}" for line, row in zip(lines, rows, strict=True))]
        )
    path.write_text(text, encoding="utf-8", newline="")
    truth = ["image,label", *(f"{row['image']},{row['label']}" for row in rows if row["truth"])]
    path.with_name("truth.csv").write_text("\n".join(truth))
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the command line sets its own
    return tmp_path


def test_what_is_printed(place, capsys):
    table(place / "scores.csv")
    assert main(["classify-evaluate", "scores.csv", "--truth", "truth.csv", "--bootstrap", "50"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("12 images, 3 labels, reader\n") and out.endswith(f"{RESEARCH_USE}\n")
    assert "accuracy of the highest score     0.833 (" in out and "calibration error" in out
    assert "confusion: truth in rows" in out and "Spleen" in out


@pytest.mark.parametrize("scoring", ["softmax", "pairs"])
def test_truth_inside_and_beside_the_table_are_the_same(place, capsys, scoring):
    table(place / "scores.csv", scoring, with_truth=True)
    assert main(["classify-evaluate", "scores.csv", "--json", "--bootstrap", "20"]) == 0
    inside = json.loads(capsys.readouterr().out)
    assert main(["classify-evaluate", "scores.csv", "--json", "--truth", "truth.csv", "--bootstrap", "20"]) == 0
    assert json.loads(capsys.readouterr().out) == inside
    assert inside["exclusive"] == (scoring == "softmax") and inside["research_use"] == RESEARCH_USE
    assert inside["images"] == 12 and len(inside["labels"]) == 3
    assert np.array(inside["confusion"]).sum() == (12 if scoring == "softmax" else 36)


@pytest.mark.parametrize("scoring", ["softmax", "pairs"])
def test_pictures_and_report_are_written(place, capsys, scoring):
    table(place / "scores.csv", scoring)
    (place / "plots").mkdir()
    options = ["--truth", "truth.csv", "--bootstrap", "5", "--plots", "plots", "--report", "quality.json"]
    assert main(["classify-evaluate", "scores.csv", *options]) == 0, capsys.readouterr().err
    for name in ("roc", "calibration", "confusion"):
        data = (place / "plots" / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) > 5000
    assert json.loads((place / "quality.json").read_text())["command"] == "classify-evaluate"


def test_what_is_left_out_is_told(place, capsys):
    path = table(place / "scores.csv")
    text = path.read_text().splitlines()
    path.write_text("\n".join([*text, "broken.png,,,,,,,,,,,,,,it is damaged,"]))
    truth = (place / "truth.csv").read_text().splitlines()
    (place / "truth.csv").write_text("\n".join([*truth[:-2], "elsewhere.png,Liver"]))
    assert main(["classify-evaluate", "scores.csv", "--truth", "truth.csv", "--bootstrap", "0"]) == 0
    told = capsys.readouterr()
    for text in ("1 image not classified", "2 images of which nothing says", "1 image of the truth"):
        assert text in told.err
    assert told.out.startswith("10 images")


@pytest.mark.parametrize(
    ("change", "truth", "told"),
    [
        (("score", "points"), "image,label\n0.png,Liver", "no column 'score'"),
        (("0.", "zero."), "image,label\n0.png,Liver", "a score is a number"),
        (("", ""), "image,name\n0.png,Liver", "no column 'label'"),
        (("", ""), "image,label\n0.png,Aorta", "none of the labels that were scored"),
        (("", ""), "image,label\nx.png,Liver", "no image with both"),
        (("", ""), None, "nothing says what is true"),
        (("Spleen", "Liver"), "image,label\n0.png,Liver", "twice"),
        (("", ""), "image,label\n0.png,Liver\n0.png,Spleen", "exactly one"),
    ],
    ids=str,
)
def test_tables_that_do_not_fit_are_refused(place, capsys, change, truth, told):
    path = table(place / "scores.csv")
    path.write_text(path.read_text().replace(*change) if change[0] else path.read_text())
    options = []
    if truth is not None:
        (place / "truth.csv").write_text(truth)
        options = ["--truth", "truth.csv"]
    assert main(["classify-evaluate", "scores.csv", *options]) == 2
    assert told in capsys.readouterr().err


def test_files_and_folders_that_are_not_there(place, capsys):
    table(place / "scores.csv")
    assert main(["classify-evaluate", "none.csv"]) == 2
    assert "none.csv cannot be read" in capsys.readouterr().err
    assert main(["classify-evaluate", "scores.csv", "--truth", "truth.csv", "--plots", "none"]) == 2
    assert "not a folder" in capsys.readouterr().err
    assert main(["classify-evaluate", "scores.csv", "--truth", "truth.csv", "--bootstrap", "-1"]) == 2
    assert main(["classify-evaluate", "scores.csv", "--truth", "truth.csv", "--report", "scores.csv"]) == 2
    assert "would replace the table" in capsys.readouterr().err
