"""The measures of a checkout's structure: on a small tree that is in order, and with one thing wrong at a time."""

import subprocess
import sys

import pytest

from Testing import house

GOOD = {
    "FoundationSegLib/__init__.py": "",
    "FoundationSegLib/area/__init__.py": "",
    "FoundationSegLib/area/shapes.py": '"""Shapes."""\n\nfrom . import sizes\n\n\nclass Box:\n    size = sizes.SMALL\n',
    "FoundationSegLib/area/sizes.py": '"""Sizes."""\n\nSMALL = 1\n',
    "FoundationSeg/FoundationSegPanel/panel.py": "from FoundationSegLib.area.shapes import Box\n\nbox = Box()\n",
    "Testing/test_shapes.py": "def test_box():\n    assert True\n",
    "README.md": "# Title\n\n```\npython3 Testing/run.py demo\n```\n",
}
FILLER = "\n" * house.SMALL
SHAPES, SIZES, PANEL = "FoundationSegLib/area/shapes.py", "FoundationSegLib/area/sizes.py", "FoundationSegPanel.panel"
PATCH = (
    "from FoundationSegLib.area import sizes\n\n\ndef test(monkeypatch):\n"
    + "    monkeypatch.setattr(sizes, 'SMALL', 2)\n" * 11
)
OTHERS = "import sys\n\n\ndef test(monkeypatch):\n" + "    monkeypatch.setattr(sys, 'argv', [])\n" * 81


@pytest.fixture
def tree(tmp_path):
    def make(**more):
        for name, text in (GOOD | more.pop("files", {})).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + FILLER * (name.endswith(".py") and "Testing" not in name), encoding="utf-8")
        return tmp_path

    return make


def above(root):
    """The measures that are above their limits."""
    measured = house.measure(root)
    assert set(measured) == set(house.LIMITS)
    return {name for name, (limit, _) in house.LIMITS.items() if measured[name][0] > limit}


def many(count, folders=1):
    return {f"FoundationSegLib/more{n % folders}/part{n}.py": "" for n in range(count)}


def test_a_tree_in_order_is_below_every_limit(tree, capsys):
    assert above(tree()) == set()
    assert house.main([str(tree())]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(house.LIMITS) + 1


CIRCLES = [
    "from .shapes import Box\n",
    "from . import shapes\n",
    "import FoundationSegLib.area.shapes\n",
    "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from .shapes import Box\n",
    "def late():\n    from ..area.shapes import Box\n\n    return Box\n",
    f"from {PANEL} import box\n",
]


@pytest.mark.parametrize("text", CIRCLES)
def test_a_circle_is_found_wherever_the_import_stands(tree, text):
    assert above(tree(files={SIZES: text})) == {"import circles"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (many(201, folders=20), "product files"),
        (many(21), "fullest folder, files"),
        ({SIZES: "x = 1\n" * 430}, None),
        ({SIZES: "#\n" * 450}, "longest product file, lines"),
        ({SIZES: "class Box:\n    pass\n"}, "repeated type names"),
        ({SIZES: "class _Box:\n    pass\n"}, "repeated type names"),
        ({SIZES: "def process():\n    pass\n"}, "names that say nothing, %"),
        ({SIZES: "def size(found):\n    pass\n"}, "names that say nothing, %"),
        ({SIZES: "def size():\n    one = 1\n"}, "names that say nothing, %"),
        ({SIZES: "process = 1\n"}, None),
        ({SIZES: '"""What sizes there are."""\n'}, "docstrings that begin with What, Who, Told or See"),
        ({SIZES: 'def size():\n    """See there."""\n'}, "docstrings that begin with What, Who, Told or See"),
        ({"Testing/test_shapes.py": PATCH}, "monkeypatch.setattr on modules of the product"),
        ({"Testing/test_shapes.py": OTHERS}, "monkeypatch.setattr in tests"),
        ({"Testing/test_shapes.py": "\n" * 400}, "lines of test to one of product"),
        ({"README.md": GOOD["README.md"] + "\n" * 200}, "README, lines"),
        ({"README.md": "\n" * 50 + GOOD["README.md"]}, "README, line of its first command"),
        ({"README.md": "# Title\n" + "words\n" * 50}, "README, line of its first command"),
    ],
)
def test_one_thing_that_is_wrong_is_found(tree, files, expected):
    assert above(tree(files=files)) == ({expected} if expected else set())


def test_lines_of_code_are_neither_blank_nor_words(tree):
    before = house.measure(tree())["lines of code, without comments and docstrings"][0]
    words = '"""Sizes.\n\nMore.\n"""\n\n# why\nSMALL = """a\n\nb"""  # three\n\n\n'
    text = f'{words}def f():\n    """Give it."""\n    return (\n        1\n    )\n'
    assert house.measure(tree(files={SIZES: text}))["lines of code, without comments and docstrings"][0] == before + 6


def test_it_is_a_command_that_fails_above_a_limit_and_names_the_places(tree):
    root = tree(files={SIZES: "from .shapes import Box\n"})
    command = (sys.executable, "Testing/run.py", "house", str(root), "--list")
    run = subprocess.run(command, cwd=house.__file__.rpartition("/")[0] + "/..", capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    assert "FoundationSegLib.area.shapes <-> FoundationSegLib.area.sizes" in run.stdout
