"""A new family is one file and one card: proven with a copy of the library that has both, and nothing else changed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE
from FoundationSegLib.hub.store import STORE_VARIABLE
from FoundationSegLib.io.segmentations import read_mask_prompt
from Testing.conftest import ROOT

TOY = Path(__file__).with_name("toy_family")
BLOCK = (slice(1, 4), slice(3, 7), slice(4, 9))


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library with the toy's file and card; returns how to run Python with it."""
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "FoundationSegLib", tmp_path / "FoundationSegLib", ignore=hidden)
    shutil.copytree(ROOT / "Resources", tmp_path / "Resources", ignore=hidden)
    for path in TOY.iterdir():
        folder = "FoundationSegLib/models/segmentation" if path.suffix == ".py" else "Resources/ModelCards"
        shutil.copy(path, tmp_path / folder)
    own = {STORE_VARIABLE: str(tmp_path / "store"), "PYTHONPATH": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if name != CARDS_VARIABLE} | own

    def run(*arguments: str) -> str:
        done = subprocess.run(
            (sys.executable, *arguments), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_one_file_and_one_card_are_a_model(library, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "toy.json").write_text('{"level": 128}')
    assert "My Toy (my-toy)" in library("-m", "FoundationSegLib", "models", "show", "my-toy")
    listed = json.loads(library("-m", "FoundationSegLib", "models", "list", "--json"))
    assert "my-toy" in [row["id"] for row in listed]
    library("-m", "FoundationSegLib", "models", "import", "my-toy", str(weights))

    array = np.full((5, 10, 12), -1000, np.int16)
    array[BLOCK] = 100
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "ct.nrrd"))
    ring = [[3, 2, 2], [9, 2, 2], [9, 7, 2], [3, 7, 2]]
    segment = {"name": "B", "prompts": [{"type": "lasso", "points": ring}]}
    (tmp_path / "prompts.json").write_text(json.dumps({"version": 1, "space": "ijk", "segments": [segment]}))
    asked = ("segment", "ct.nrrd", "--model", "my-toy", "--prompts", "prompts.json", "--propagate")
    library("-m", "FoundationSegLib", *asked, "--output", "out.seg.nrrd", "--report", "report.json", "--device", "cpu")
    wanted = np.zeros(array.shape, bool)
    wanted[BLOCK] = True
    assert np.array_equal(read_mask_prompt(tmp_path / "out.seg.nrrd", "B")[0], wanted)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["model"]["id"] == "my-toy"
    assert report["notes"] == ["segments[0].prompts[0]: the lasso became a box, which My Toy understands"]


def test_one_file_and_one_card_are_a_model_of_volumes(library, tmp_path):
    """Every kind of prompt, two segments in one request, and what the model says of them."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "toy.json").write_text('{"level":  50}')
    library("-m", "FoundationSegLib", "models", "import", "my-toy-volume", str(weights))
    array = np.full((5, 10, 12), -1000, np.int16)
    array[BLOCK], array[0, 0, 0] = 100, 7
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "ct.nrrd"))
    not_this = {"type": "box", "corners": [[4, 3, 1], [8, 3, 3]], "polarity": "negative"}
    segments = [
        {"name": "A", "prompts": [{"type": "text", "text": "all"}, not_this]},
        {"name": "B", "prompts": [{"type": "class", "name": "7"}]},
        {"name": "C", "prompts": [{"type": "point", "position": [4, 3, 1]}]},
        {"name": "D", "prompts": [{"type": "scribble", "points": [[4, 4, 2], [8, 4, 2]]}]},
        {"name": "E", "prompts": [{"type": "lasso", "points": [[3, 2, 2], [9, 2, 2], [9, 5, 2], [3, 5, 2]]}]},
    ]
    (tmp_path / "prompts.json").write_text(json.dumps({"version": 1, "space": "ijk", "segments": segments}))
    asked = ("segment", "ct.nrrd", "--model", "my-toy-volume", "--prompts", "prompts.json")
    library("-m", "FoundationSegLib", *asked, "--output", "out.seg.nrrd", "--report", "report.json", "--device", "cpu")
    wanted = np.zeros((5, *array.shape), bool)
    wanted[(0, *BLOCK)] = True
    wanted[0, :, 3] = False
    wanted[1, 0, 0, 0] = True
    wanted[2, 1:4, 3:6, 4:7] = True
    wanted[3, 2, 4, 4:9] = True
    wanted[4, 2, 3:5, 4:9] = True
    for name, mask in zip("ABCDE", wanted, strict=True):
        assert np.array_equal(read_mask_prompt(tmp_path / "out.seg.nrrd", name)[0], mask), name
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["intensity"]["policy"], report["intensity"]["rule"]) == ("auto", "raw")
    assert report["notes"] == [f"segments[{n}]: looked at as it is" for n in range(5)]
    assert report["counts"] == {"encodes": 1, "decodes": 5}


def test_a_model_loads_what_it_needs_and_nothing_of_the_others(library, tmp_path):
    """The engine of the toy on the CPU, in a process of its own: neither torch nor any other adapter's package."""
    script = tmp_path / "script.py"
    (tmp_path / "toy.json").write_text('{"level": 128}')
    script.write_text(
        "from pathlib import Path\n"
        "from FoundationSegLib.catalog.catalogue import read_catalogue\n"
        "from FoundationSegLib.engine.device import choose_device\n"
        "from FoundationSegLib.engine.engine import Engine\n"
        "from FoundationSegLib.models.protocols import load_slice_model\n"
        "load_slice_model(read_catalogue()['my-toy'], {'toy.json': Path('toy.json')}, choose_device('cpu'))\n"
        "import sys\n"
        "print([name for name in ('torch', 'transformers', 'timm', 'scipy') if name in sys.modules])\n"
    )
    assert library(str(script)).strip() == "[]"
