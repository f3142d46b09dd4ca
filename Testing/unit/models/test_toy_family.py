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


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the library with the toy's file and card, and with the bytecode that is there already."""
    copied = tmp_path_factory.mktemp("library")
    for name in ("FoundationSegLib", "Resources"):
        shutil.copytree(ROOT / name, copied / name)
    for path in TOY.iterdir():
        folder = "FoundationSegLib/models/segmentation" if path.suffix == ".py" else "Resources/ModelCards"
        shutil.copy(path, copied / folder)
    return copied


@pytest.fixture
def library(copied, tmp_path):
    """How to run Python with the copy, in a folder with a store of its own."""
    own = {STORE_VARIABLE: str(tmp_path / "store"), "PYTHONPATH": str(copied)}
    environment = {name: value for name, value in os.environ.items() if name != CARDS_VARIABLE} | own

    def run(*arguments: str) -> str:
        done = subprocess.run(
            (sys.executable, *arguments), cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def segmented(library, folder, model_id, level, prompts, *options):
    """The report on a bright block, segmented with weights that were imported first; the masks are beside it."""
    (folder / "weights").mkdir()
    (folder / "weights" / "toy.json").write_text(level)
    library("-m", "FoundationSegLib", "models", "import", model_id, str(folder / "weights"))
    array = np.full((5, 10, 12), -1000, np.int16)
    array[BLOCK] = 100
    sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / "ct.nrrd"))
    segments = [{"name": name, "prompts": of_segment} for name, of_segment in prompts.items()]
    (folder / "prompts.json").write_text(json.dumps({"version": 1, "space": "ijk", "segments": segments}))
    command = ("segment", "ct.nrrd", "--model", model_id, "--prompts", "prompts.json", "--output", "out.seg.nrrd")
    library("-m", "FoundationSegLib", *command, "--report", "report.json", "--device", "cpu", *options)
    return json.loads((folder / "report.json").read_text())


def test_one_file_and_one_card_are_a_model(library, tmp_path):
    assert "My Toy (my-toy)" in library("-m", "FoundationSegLib", "models", "show", "my-toy")
    ring = {"type": "lasso", "points": [[3, 2, 2], [9, 2, 2], [9, 7, 2], [3, 7, 2]]}
    report = segmented(library, tmp_path, "my-toy", '{"level": 128}', {"B": [ring]}, "--propagate")
    expected = np.zeros((5, 10, 12), bool)
    expected[BLOCK] = True
    assert np.array_equal(read_mask_prompt(tmp_path / "out.seg.nrrd", "B")[0], expected)
    assert report["model"]["id"] == "my-toy"
    assert report["notes"] == ["segments[0].prompts[0]: the lasso became a box, which My Toy understands"]


def test_one_file_and_one_card_are_a_model_of_volumes(library, tmp_path):
    """Two segments in one request, and what the model says of them."""
    not_this = {"type": "box", "corners": [[4, 3, 1], [8, 3, 3]], "polarity": "negative"}
    prompts = {"A": [{"type": "text", "text": "all"}, not_this], "C": [{"type": "point", "position": [4, 3, 1]}]}
    report = segmented(library, tmp_path, "my-toy-volume", '{"level":  50}', prompts)
    expected = np.zeros((2, 5, 10, 12), bool)
    expected[(0, *BLOCK)] = True
    expected[0, :, 3] = False
    expected[1, 1:4, 3:6, 4:7] = True
    for name, mask in zip(prompts, expected, strict=True):
        assert np.array_equal(read_mask_prompt(tmp_path / "out.seg.nrrd", name)[0], mask), name
    assert (report["intensity"]["policy"], report["intensity"]["rule"]) == ("auto", "raw")
    assert report["notes"] == [f"segments[{n}]: looked at as it is" for n in range(2)]
    assert report["counts"] == {"encodes": 1, "decodes": 2}


def test_a_model_loads_what_it_needs_and_nothing_of_the_others(library, tmp_path):
    """The engine of the toy on the CPU, in a process of its own: neither torch nor any other adapter's package."""
    script = tmp_path / "script.py"
    (tmp_path / "toy.json").write_text('{"level": 128}')
    script.write_text(
        "from pathlib import Path\n"
        "from FoundationSegLib.catalog.catalogue import read_catalogue\n"
        "from FoundationSegLib.engine.device import choose_device\n"
        "from FoundationSegLib.engine.engine import Engine\n"
        "from FoundationSegLib.models.protocols import load_model\n"
        "load_model(read_catalogue()['my-toy'], {'toy.json': Path('toy.json')}, choose_device('cpu'))\n"
        "import sys\n"
        "print([name for name in ('torch', 'transformers', 'timm', 'scipy') if name in sys.modules])\n"
    )
    assert library(str(script)).strip() == "[]"
