"""`--classes` and `--text`, with a model that knows two of the classes by heart."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from FoundationSegLib.catalog.label_sets import read_class_list
from FoundationSegLib.catalog.resource_files import resource_folder
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.io.segmentations import read_mask_prompt
from FoundationSegLib.models.protocols import VolumeAnswer
from Testing.unit.commands.conftest import SHAPE, START, block_mask
from Testing.unit.fakes import CARD_TOML, fake_card, fill_store

CLASSES = (
    ('id = "fake"', 'id = "words"'),
    ('prompts = ["box"]', 'prompts = ["class"]\ntranslations = { text = "class" }\nclasses = "vista3d"'),
    ("dimensions = [2]", "dimensions = [3]"),
    ("channels = [1, 3]", "channels = [1]"),
)
KNOWN = {"liver": "Left", "spleen": "Right", "left rib 7": "Right"}


@dataclass
class Knowing:
    """Finds the desk's blocks by the names of classes."""

    asked: list
    device: str = "cpu"
    precision: str = "float32"
    nbytes: int = 8

    def view(self, volume, progress):
        return self

    def answer(self, prompts, progress):
        names = [[part.words for part in prompt.parts] for prompt in prompts]
        self.asked.append(names)
        masks = [
            np.any([block_mask(KNOWN[name]) if name in KNOWN else np.zeros(SHAPE, bool) for name in some], axis=0)
            for some in names
        ]
        return [VolumeAnswer(pack_mask(mask), None, notes=() if n else ("seen",)) for n, mask in enumerate(masks)]


@pytest.fixture
def words(desk, tmp_path):
    """The desk with a model of classes; returns what it was asked."""
    text = CARD_TOML
    for old, new in CLASSES:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "cards" / "words.toml").write_text(text)
    changes = {"id": "words", "prompts": ["class"], "classes": "vista3d", "dimensions": [3], "channels": [1]}
    fill_store(tmp_path / "store", fake_card(**changes))
    asked = []
    desk.model = Knowing(asked)
    return asked


def mask_of(desk, name):
    return read_mask_prompt(desk.output, name)[0]


def test_classes_by_name_and_number_are_segments_in_one_request(desk, words):
    report = desk.folder / "report.json"
    assert desk.segment(model="words", prompts=False, classes="Liver, 3,kidney", report=report) == 0, desk.err
    assert words == [[["liver"], ["spleen"], ["left kidney"], ["right kidney"]]]
    assert np.array_equal(mask_of(desk, "liver"), block_mask("Left"))
    assert np.array_equal(mask_of(desk, "spleen"), block_mask("Right"))
    told = json.loads(report.read_text(encoding="utf-8"))
    assert [one["name"] for one in told["segments"]] == ["liver", "spleen", "left kidney", "right kidney"]
    assert told["prompts"]["segments"][1] == {"name": "spleen", "prompts": [{"type": "class", "name": "spleen"}]}
    assert told["notes"][-2:] == ["segments[2]: the model found nothing", "segments[3]: the model found nothing"]


def test_of_everything_what_was_found_is_written_and_the_rest_told_in_one_line(desk, words):
    report = desk.folder / "report.json"
    assert desk.segment(model="words", prompts=False, classes="everything", report=report, overlap="allow") == 0, (
        desk.err
    )
    known = read_class_list(resource_folder("ClassLists") / "vista3d.toml")
    assert words == [[[one.name] for one in known.everything]]
    told = json.loads(report.read_text(encoding="utf-8"))
    assert [one["name"] for one in told["segments"]] == list(KNOWN)
    left_out = [note for note in told["notes"] if "left out" in note]
    assert len(left_out) == 1
    assert left_out[0].startswith("not found, and left out: 114 of 117: pancreas, right kidney, aorta")
    assert "segments[0]: seen" in told["notes"]
    assert not any("found nothing" in note for note in told["notes"])


def test_everything_of_which_nothing_is_there_writes_nothing(desk, words, monkeypatch):
    for name in list(KNOWN):
        monkeypatch.delitem(KNOWN, name)
    desk.segment(model="words", prompts=False, classes="everything")
    desk.assert_refused(1, "found none of its classes")


def test_a_text_and_a_prompts_file_go_with_classes(desk, words):
    segment = {"name": "Both", "prompts": [{"type": "class", "name": "liver"}, {"type": "class", "name": "spleen"}]}
    prompts = desk.write_prompts({"version": 1, "space": "ijk", "segments": [segment]})
    assert desk.segment(model="words", prompts=prompts, classes="aorta", text="Liver") == 0, desk.err
    assert words == [[["liver", "spleen"], ["aorta"], ["liver"]]]
    assert np.array_equal(mask_of(desk, "Both"), block_mask("Left") | block_mask("Right"))
    assert np.array_equal(mask_of(desk, "Liver"), block_mask("Left"))
    assert "the text became the class 'liver'" in desk.err


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompts": False}, "say what to segment: --prompts FILE, --classes NAMES, --text PHRASE or --seed-from FILE"),
        (
            {"prompts": False, "classes": "livr"},
            "classes[0]: VISTA3D has no class called 'livr'; did you mean 'liver'?",
        ),
        ({"prompts": False, "classes": "liver,"}, "has no class called ''"),
        ({"prompts": False, "classes": "unlisted structure"}, "means nothing without a point"),
        ({"prompts": False, "text": "a livr"}, "has no class called 'a livr'"),
        ({"prompts": False, "text": " "}, "is empty"),
        ({"prompts": False, "classes": "liver", "text": "liver"}, "'liver' is asked for twice"),
        ({"classes": "liver"}, "does not understand boxes"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_the_model_not_asked(desk, words, asked, message):
    desk.segment(model="words", **asked)
    desk.assert_refused(2, message)
    assert words == []


def test_a_segment_of_the_file_is_not_asked_for_again(desk, words):
    segment = {"name": "liver", "prompts": [{"type": "class", "name": "liver"}]}
    desk.write_prompts({"version": 1, "space": "ijk", "segments": [segment]})
    desk.segment(model="words", classes="1")
    desk.assert_refused(2, "has a segment 'liver' already")


def test_a_model_of_boxes_takes_no_words(desk):
    desk.segment(prompts=False, classes="liver")
    desk.assert_refused(2, "Fake Model does not understand class names; it understands: boxes")
    desk.segment(prompts=False, text="liver")
    desk.assert_refused(2, "Fake Model does not understand texts")
    assert desk.files() == START


def test_a_report_of_everything_asks_for_everything_again(desk, words):
    report, again = desk.folder / "report.json", desk.folder / "again.json"
    assert desk.segment(model="words", prompts=False, classes="everything", report=report) == 0, desk.err
    options = {"model": False, "prompts": False, "from-report": report, "output": desk.folder / "again.seg.nrrd"}
    assert desk.segment(**options, report=again) == 0, desk.err
    assert words[0] == words[1] and len(words[0]) > 100
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (report, again))
    for key in ("prompts", "segments", "left_out", "notes"):
        assert first[key] == second[key], key
