"""Exit codes and messages: whatever goes wrong, one clear line on stderr, the right code, and nothing written."""

import argparse
import errno
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from FoundationSegLib import __version__
from FoundationSegLib.commands.cli import build_parser
from FoundationSegLib.errors import (
    Cancelled,
    CardError,
    CheckpointError,
    FoundationSegError,
    GeometryError,
    InferenceError,
    InputError,
    OutputError,
    PackageError,
    PackageMissingError,
    PromptError,
    UnknownModelError,
)
from Testing.unit.commands.conftest import ct_array, in_ras


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["models"], "ACTION"),
        (["models", "download"], "ID"),
        (["segment"], "VOLUME"),
        (["segment", "a", "--model", "b"], "--output"),
        (["segment", "a", "--frame", "x"], "--frame"),
        (["segment", ""], "argument VOLUME: is empty"),
        (["segment", "a", "--report", ""], "argument --report: is empty"),
        (["segment", "a", "--device", "tpu"], "--device"),
        (["segment", "a", "--overlap", "b\nc"], "--overlap"),
        (["models", "list", "--xml"], "--xml"),
    ],
)
def test_bad_usage_is_one_line_and_points_to_the_help(desk, arguments, told):
    desk.run(*arguments)
    desk.assert_refused(2, told, "--help'")


def test_help_and_version(desk):
    assert desk.run("--version") == 0
    assert desk.out == f"FoundationSeg {__version__}\n"
    for command in ([], ["segment"], ["classify"], ["models"], ["models", "list"], ["models", "download"]):
        assert desk.run(*command, "--help") == 0
        assert "usage: python -m FoundationSegLib" in desk.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "nothing"}, "no model is called 'nothing'; there are: fake"),
        ({"intensity": "bright"}, "unknown intensity policy 'bright'"),
        ({"intensity": "0,40"}, "a width above 0"),
        ({"intensity": "nan,40"}, "a width above 0"),
        ({"intensity": "1,2,3"}, "width,centre"),
        ({"intensity": "display"}, "no display window"),
        ({"intensity": "1,100000"}, None),
        ({"frame": 0}, "single frame"),
        ({"series": "1"}, "not a folder"),
        ({"image": "no such file.nrrd"}, "no such file.nrrd does not exist"),
        ({"prompts": "no such file.json"}, "no such file.json: cannot be read"),
    ],
)
def test_bad_options(desk, options, told):
    code = desk.segment(**options)
    if told is None:
        assert code == 0, "a window beyond all values is odd, not wrong"
    else:
        desk.assert_refused(2, told)


BLOCK = np.zeros((6, 10, 12), np.uint8)
BLOCK[2:4, 2:6, 3:9] = 1


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.where(BLOCK, np.nan, ct_array()).astype(np.float32), "has 48 values that are not a number or infinite"),
        (np.full((6, 10, 12), 7, np.int16), "the image is constant"),
        (BLOCK, "is a label map, not an image"),
        (np.stack([ct_array()] * 2), "choose one with --frame"),
        (b"Hello", "bad.nrrd is no image"),
        (b"", "is empty"),
        (None, "no DICOM image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_images(desk, image, told):
    path = desk.folder / "bad.nrrd"
    if isinstance(image, np.ndarray):
        desk.write_image("bad.nrrd", image, (1.0, 1.0, 2.0, 1.0))
    elif image is None:
        path.mkdir()
    else:
        path.write_bytes(image)
    files = desk.files()
    desk.segment(image=path)
    desk.assert_refused(2, told, files=files)


def test_a_prompt_that_the_model_does_not_understand(desk):
    document = desk.document("Left")
    for prompt in (
        {"type": "point", "position": [1, 2, 3]},
        {"type": "scribble", "points": [[1, 2, 3]]},
        {"type": "lasso", "points": [[1, 2, 3], [1, 3, 3], [2, 3, 3]]},
        {"type": "mask", "file": "a.seg.nrrd", "segment": "Left"},
        {"type": "text", "text": "liver"},
        {"type": "class", "name": "liver"},
    ):
        document["segments"][0]["prompts"][1:] = [prompt]
        desk.segment(prompts=desk.write_prompts(document))
        desk.assert_refused(2, "segments[0].prompts[1].type: Fake Model does not understand", "understands: boxes")


@pytest.mark.parametrize(
    ("corners", "told"),
    [
        ([[100, 0, 0], [110, 5, 5]], "lies wholly outside the image (12 x 10 x 6 voxels"),
        ([[-9, 0, 0], [-1, 5, 5]], "wholly outside"),
        ([[1, 2, 3], [1, 2, 5]], "one voxel thick along i and j"),
        ([[1, 2, 3], [1, 2, 3]], "one voxel thick along i and j and k"),
    ],
)
@pytest.mark.parametrize("space", ["ijk", "ras"])
def test_prompts_that_miss_the_image(desk, corners, told, space):
    document = desk.document("Left", space=space)
    document["segments"][0]["prompts"].append(desk.box(corners if space == "ijk" else in_ras(corners)))
    desk.segment(prompts=desk.write_prompts(document))
    desk.assert_refused(2, "segments[0].prompts[1].corners: ", told)


def box(*corners):
    return {"prompts": [{"type": "box", "corners": corners}]}


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({"name": "N" * 5000}, {}, ": prompts.json: segments[0].name: is longer than 200 characters"),
        ({"k" * 5000: 1}, {}, "unknown field"),
        (box([0, 0, 0], [0, 0, -1e308]), {}, "corners[1][2]: -1e+308 is larger than any image"),
        (box([0, 1], [2, 3, 4]), {}, "corners[0]: needs three numbers, not 2"),
        (
            box([90, 0, 0], [99, 9, 9]),
            {},
            ": prompts.json: segments[0].prompts[0].corners: the prompt lies wholly outside",
        ),
        ({}, {"image": "x" * 5000}, "argument VOLUME: is longer than the name of a file can be"),
        ({}, {"output": "x" * 300 + ".nrrd"}, "argument --output: is longer than the name of a file can be"),
        (
            {},
            {"roi": "foo"},
            "START:STOP,START:STOP,START:STOP (along i, j and k); or prompts:MM",
        ),
        ({}, {"propagate-range": "5:2"}, "the range 5:2 holds no slice; its end must be above its start"),
        ({}, {"model": "fak"}, "no model is called 'fak'; did you mean 'fake'? there are: fake"),
        ({}, {"intensity": "ct-lungs"}, "did you mean 'ct-lung'?"),
        ({}, {"device": "cud"}, "did you mean 'cuda'"),
        ({}, {"overviw": "a.png"}, "unrecognized arguments: --overviw a.png; did you mean '--overview'"),
        ({}, {"prompts": False, "classes": "liver"}, ": --classes liver: Fake Model does not understand class names"),
        ({}, {"prompts": False, "text": "liver"}, ": --text liver: Fake Model does not understand texts"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_messages_name_the_mistake_in_the_users_words(desk, changes, options, told):
    document = desk.document("Left")
    document["segments"][0] |= changes
    desk.write_prompts(document)
    desk.segment(**options)
    desk.assert_refused(2, told)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (InferenceError("out of memory"), 1),
        (CardError("odd"), 1),
        (FoundationSegError("odd"), 1),
        (InputError("odd"), 2),
        (PromptError("odd"), 2),
        (UnknownModelError("odd"), 2),
        (CheckpointError("odd"), 3),
        (PackageMissingError("odd"), 3),
        (PackageError("odd"), 1),
        (Cancelled("stopped"), 130),
        (GeometryError("odd"), 2),
        (OutputError("odd"), 2),
        (OSError(errno.EIO, "Input/output error"), 1),
        (OSError(), 1),
        (RuntimeError("CUDA error\nand more"), 1),
        (MemoryError(), 1),
    ],
)
def test_every_error_has_its_code(desk, monkeypatch, fault, code):
    def fail(self, *arguments):
        raise fault

    monkeypatch.setattr(type(desk.model), "encode", fail)
    assert desk.segment() == code
    desk.assert_refused(code)


def test_debug_shows_where_and_keeps_the_code(desk, monkeypatch):
    def fail(self, *arguments):
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(type(desk.model), "encode", fail)
    assert desk.segment(debug=True) == 1
    assert "Traceback" in desk.err
    assert desk.err.splitlines()[-1] == "foundationseg: the model could not answer: CUDA error"
    assert desk.segment(debug=True, model="nothing") == 2
    assert "UnknownModelError" in desk.err


def test_what_nobody_foresaw_is_one_line_too(desk):
    """Only the process's own hook may catch everything."""

    def fail(settings):
        raise ZeroDivisionError("by\nzero")

    desk.connect = fail
    with pytest.raises(ZeroDivisionError) as caught:
        desk.segment()
    sys.excepthook(caught.type, caught.value, caught.tb)
    assert desk.capture.readouterr().err == (
        "foundationseg: unexpected ZeroDivisionError: by zero; run again with --debug to see where\n"
    )


def option_names(parser, prefix=()):
    """The long options of each command, by its words."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        return {prefix: {name for action in parser._actions for name in action.option_strings if name[:2] == "--"}}
    choices = nested[0].choices.items()
    return {words: names for name, child in choices for words, names in option_names(child, (*prefix, name)).items()}


def test_the_page_has_every_option_of_every_command():
    page = Path(__file__).resolve().parents[3] / "Resources/Documentation/command-line.md"
    text = page.read_text(encoding="utf-8")
    block = text[text.index("```\npython -m FoundationSegLib segment VOLUME") + 4 :].split("```", 1)[0]
    told = {}
    for line in block.split("python -m FoundationSegLib ")[1:]:
        first, second = line.split()[:2]
        words = (first, second) if first in ("heads", "models", "pacs") else (first,)
        told.setdefault(words, set()).update(re.findall(r"--[a-z][a-z-]*", line))
    usual = {"--help", "--debug"}  # of every command
    assert {words: names - usual for words, names in told.items()} == {
        words: names - usual for words, names in option_names(build_parser()).items()
    }
