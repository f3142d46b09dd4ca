"""A case with everything that the command line needs, but for a network: image, prompts, a fake model and its store."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.commands.cli import main
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.hub.store import STORE_VARIABLE, Store
from FoundationSegLib.installation.packages import PipTool
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.fakes import CARD_TOML, FakeModel, fill_store
from Testing.unit.reader_model import READER_TOML, ReaderModel

SHAPE = (6, 10, 12)
BLOCKS = {"Left": (slice(1, 5), slice(2, 6), slice(1, 5)), "Right": (slice(2, 4), slice(3, 8), slice(7, 11))}
FAKE_CARD = CARD_TOML.replace('packages = ["fakelib"]', "packages = []")
START = {"ct.nrrd", "prompts.json"}  # the files of a fresh desk
BOXES = {"Left": [[0, 1, 1], [5, 6, 4]], "Right": [[6, 2, 2], [11, 8, 3]]}


def ct_array() -> np.ndarray:
    """Air with two blocks of tissue in it; (6, 10, 12) int16."""
    array = np.random.default_rng(5).integers(-1010, -990, SHAPE, np.int16)
    for block in BLOCKS.values():
        array[block] = 200
    return array


def block_mask(name: str) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[BLOCKS[name]] = True
    return mask


def in_ras(corners_ijk: list[list[float]]) -> list[list[float]]:
    """Voxels of the desk's image in mm: ITK's axes point to the left and to the back."""
    return [[-i, -j, 2 * k] for i, j, k in corners_ijk]


@dataclass
class CommandCase:
    """A folder with an image and prompts; :meth:`segment` runs the command on them.

    ``connect`` makes the client of a run, in line, where the fake model is: the worker has tests of its own.
    ``devices`` are those that were asked for, ``cards`` is the folder of the models' cards; ``out``, ``err`` and
    ``code`` come from the last run.
    """

    folder: Path
    capture: Any
    connect: Any = None
    pip: Any = None
    model: FakeModel | ReaderModel = field(default_factory=FakeModel)
    devices: list[str] = field(default_factory=list)
    out: str = ""
    err: str = ""
    code: int = 0

    def __post_init__(self) -> None:
        self.image = self.write_image("ct.nrrd", ct_array())
        self.prompts = self.write_prompts(self.document())
        self.output = self.folder / "result.seg.nrrd"

    @property
    def cards(self) -> Path:
        return self.folder.parent / "cards"

    def catalogue(self) -> Any:
        return read_catalogue(self.cards)

    def load(self, card: Any, *_: Any) -> Any:
        """The model that answers instead of the card's."""
        return self.model

    def write_image(self, name: str, array: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 2.0)) -> Path:
        image = sitk.GetImageFromArray(array, isVector=False)
        image.SetSpacing(spacing[: array.ndim])
        sitk.WriteImage(image, str(self.folder / name))
        return self.folder / name

    def document(self, *names: str, space: str = "ijk") -> dict[str, Any]:
        """Boxes around both blocks, or around those that are named."""
        boxes = {name: BOXES[name] if space == "ijk" else in_ras(BOXES[name]) for name in names or BOXES}
        segments = [{"name": name, "prompts": [self.box(corners)]} for name, corners in boxes.items()]
        return {"version": 1, "space": space, "segments": segments}

    def box(self, corners: list[list[float]], **fields: Any) -> dict[str, Any]:
        return {"type": "box", "corners": corners} | fields

    def write_prompts(self, document: object, name: str = "prompts.json") -> Path:
        path = self.folder / name
        text = document if isinstance(document, str) else json.dumps(document)
        path.write_text(text, encoding="utf-8")
        return path

    def arguments(self, **options: object) -> list[str]:
        """The command's arguments: those of the desk unless given otherwise; False leaves one out, True is a flag."""
        values = {"model": "fake", "prompts": self.prompts, "output": self.output} | options
        line = ["segment", str(values.pop("image", self.image))]
        for name, value in values.items():
            if value is not False:
                line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return line

    def segment(self, **options: object) -> int:
        return self.run(*self.arguments(**options))

    def run(self, *arguments: str) -> int:
        """The exit code of the command line."""
        self.capture.readouterr()
        try:
            self.code = main(arguments, self.connect, self.catalogue, self.pip)
        except SystemExit as error:
            self.code = int(error.code or 0)
        self.out, self.err = self.capture.readouterr()
        return self.code

    def assert_refused(self, code: int, *told: str, files: set[str] = START) -> None:
        """The last run ended with this code, said these words on its one line, and left nothing behind."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("foundationseg: ")
        for words in told:
            assert words in lines[0]
        assert self.code == code
        assert str(self.folder) not in self.err, "a message names files, not folders"
        assert len(lines[0]) < 500
        assert self.out == ""
        assert self.files() == set(files)

    def files(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}


def add_card(desk, name, *replacements):
    """A further model of the desk, without a checkpoint."""
    text = FAKE_CARD.replace('id = "fake"', f'id = "{name}"')
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    (desk.cards / f"{name}.toml").write_text(text)


@pytest.fixture
def desk(tmp_path, monkeypatch, capfd):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "fake.toml").write_text(FAKE_CARD)
    (tmp_path / "desk").mkdir()
    fill_store(tmp_path / "store")
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the command line sets its own
    made = CommandCase(tmp_path / "desk", capfd, pip=PipTool)

    def connect(settings):
        made.devices.append(settings.device)
        store = Store(tmp_path / "store")
        return InlineClient(Engine(made.catalogue(), store, "cpu", settings.box_rule, load_model=made.load))

    made.connect = connect
    return made


@pytest.fixture
def booth(desk, tmp_path):
    """The desk with a model to classify with."""
    (tmp_path / "cards" / "reader.toml").write_text(READER_TOML)
    fill_store(tmp_path / "store", desk.catalogue()["reader"])
    desk.model = ReaderModel()
    return desk
