"""`heads` and `classify --head`, in process: learned from a table, listed, shown, used, measured, removed."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.api import choose_labels
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.heads import HEADS_VARIABLE, LearnHeadRequest, head_names, read_head
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.worker.server import FUNCTIONS

LEVELS = {"faint": 60, "strong": 180}


@pytest.fixture
def booth(booth, tmp_path, monkeypatch):
    """The desk with images of two kinds, and a table of them."""
    monkeypatch.setenv(HEADS_VARIABLE, str(tmp_path / "heads"))
    generator = np.random.default_rng(0)
    lines = ["image,label,patient"]
    for number in range(16):
        label = ("faint", "strong")[number % 2]
        image = generator.normal(LEVELS[label], 12, (2, 12, 12)).clip(0, 255).astype(np.uint8)
        image[:, 0, 0], image[:, 0, 1] = 0, 255
        sitk.WriteImage(sitk.GetImageFromArray(image), str(booth.folder / f"case{number}.nrrd"))
        lines.append(f"case{number}.nrrd,{label},p{number}")
    (booth.folder / "cases.csv").write_text("\n".join(lines))
    return booth


def train(booth, *more, name="glow"):
    table = booth.folder / "cases.csv"
    intensity = () if "--intensity" in more else ("--intensity", "256,128")
    return booth.run(
        "heads", "train", "--model", "reader", "--cases", str(table), "--name", name, *intensity, *map(str, more)
    )


def test_from_a_table_to_an_answer(booth):
    report = booth.folder / "report.json"
    assert train(booth, "--report", report, "--plots", booth.folder) == 0, booth.err
    assert (booth.folder / "calibration.png").stat().st_size > 1000
    document = json.loads(report.read_text(encoding="utf-8"))
    assert document["command"] == "heads train" and document["accuracy"]["value"] == 1.0
    assert document["patients"] == 16 and document["head"]["of_label"] == {"faint": 8, "strong": 8}
    assert "not calibrated" in booth.err and str(booth.folder) not in report.read_text(encoding="utf-8")
    image = str(booth.folder / "case3.nrrd")
    use = ("classify", image, "--model", "reader", "--head", "glow")  # seen as it has learned
    assert booth.run(*use, "--json") == 0, booth.err
    answer = json.loads(booth.out)
    assert answer["labels"][0]["name"] == "strong" and answer["scoring"]["rule"] == "learned"
    assert answer["head"]["sha256"] == document["head"]["sha256"] and answer["label_set"] == "glow"
    assert any("not calibrated" in note for note in answer["notes"])
    assert booth.run("heads", "evaluate", "glow", "--cases", str(booth.folder / "cases.csv"), "--json") == 0, booth.err
    assert json.loads(booth.out)["auc"]["value"] == 1.0
    assert booth.run("heads", "list") == 0 and booth.out.startswith("glow  reader  logistic  faint, strong")
    assert booth.run("heads", "show", "glow") == 0 and "faint: 8 examples" in booth.out
    assert booth.run("heads", "remove", "glow") == 0
    assert booth.run("heads", "list") == 0 and booth.out == "no heads yet\n"
    assert booth.run(*use) == 2 and "no head is called 'glow'" in booth.err


def test_a_worker_learns_the_same_from_the_table(booth):
    assert train(booth) == 0, booth.err
    engine = booth.connect(WorkerSettings()).engine
    request = LearnHeadRequest(1, "reader", booth.folder / "cases.csv", "again", intensity="256,128")
    reports = []
    workplace = SimpleNamespace(need_engine=lambda: engine)
    head = FUNCTIONS["learn_head"](request, workplace, Progress(reports.append))
    glow = read_head("glow")
    assert np.array_equal(head.weights, glow.weights) and head.origin["measured"] == glow.origin["measured"]
    assert head.origin["measured"]["accuracy"][0] == 1.0 and [report.total for report in reports] == [16] * 16
    assert head_names() == ("glow",) and choose_labels("head:glow").name == "glow"


def test_concepts_explain(booth):
    sentences = ("--method", "concepts", "--concept", "a bright picture", "--concept", "a dark picture")
    assert train(booth, *sentences) == 0, booth.err
    assert booth.run("heads", "show", "glow", "--json") == 0
    weights = {(row["label"], row["concept"]): row["weight"] for row in json.loads(booth.out)["weights"]}
    assert weights["strong", "a bright picture"] > 0 > weights["strong", "a dark picture"]


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        ("image,label\ncase0.nrrd,faint\n", (), "1 label; there is nothing to tell apart"),
        ("image,label\ncase0.nrrd,faint\ncase1.nrrd,strong\n", (), "1 patient with the label 'faint'"),
        ("image\ncase0.nrrd\n", (), "needs a header"),
        ("image,label\n,faint\n", (), "line 2: names no image"),
        ("image,label\ncase0.nrrd,a\ncase0.nrrd,a\n", (), "line 3: case0.nrrd stands twice"),
        ("image,label,patient\ncase0.nrrd,a,x\ncase0.nrrd,b,y\n", (), "line 3: case0.nrrd is of two patients"),
        (None, ("--method", "concepts"), "--method concepts and its sentences go together"),
        (None, ("--concept", "bright"), "--method concepts and its sentences go together"),
        (None, ("--intensity", "nonsense"), "nonsense"),
        ("image,label\n" + "".join(f"none{n}.nrrd,{'ab'[n % 2]}\n" for n in range(8)), (), "none0.nrrd"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_kept(booth, table, options, words):
    if table is not None:
        (booth.folder / "cases.csv").write_text(table)
    assert train(booth, *options) == 2
    assert words in booth.err and booth.run("heads", "list") == 0 and booth.out == "no heads yet\n"


def test_a_head_is_for_its_own_model_and_for_its_own_labels(booth):
    assert train(booth) == 0, booth.err
    assert train(booth) == 2 and "there is a head 'glow'" in booth.err
    (booth.folder / "cases.csv").write_text("image,label\ncase0.nrrd,odd\n")
    assert booth.run("heads", "evaluate", "glow", "--cases", str(booth.folder / "cases.csv")) == 2
    assert "'odd' is none of the head's: faint, strong" in booth.err
    image = str(booth.folder / "case0.nrrd")
    evidence = ("--evidence", str(booth.folder / "out.nrrd"))
    assert booth.run("classify", image, "--model", "reader", "--head", "glow", *evidence) == 2
    assert "evidence is shown for words" in booth.err
