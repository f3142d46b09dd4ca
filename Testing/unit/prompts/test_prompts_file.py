import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError, OutputError, PromptError
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt, PromptSet, SegmentPrompts
from FoundationSegLib.prompts.prompts_file import parse_prompts, read_prompts, write_prompts
from Testing.unit.strategies import segments

DOCUMENT = {
    "version": 1,
    "space": "ijk",
    "segments": [{"name": "Leber 肝臓", "prompts": [{"type": "box", "corners": [[0, 1, 2], [3, 4, 5]]}]}],
}


@pytest.fixture
def write(tmp_path):
    def to_file(content):
        path = tmp_path / "prompts.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def complaint(path, kind=PromptError):
    with pytest.raises(kind) as caught:
        read_prompts(path)
    message = str(caught.value)
    assert message.startswith("prompts.json: ")
    assert str(path.parent) not in message
    return message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_file_is_read_whatever_its_editor_put_first(write, encoding, ascii_only):
    path = write(json.dumps(DOCUMENT, ensure_ascii=ascii_only).encode(encoding))
    prompts = read_prompts(path)
    assert prompts == parse_prompts(DOCUMENT)
    assert prompts.segments[0].prompts[0] == BoxPrompt(((0.0, 1.0, 2.0), (3.0, 4.0, 5.0)))


def test_a_file_that_cannot_be_read(tmp_path, write):
    missing = tmp_path / "prompts.json"
    assert "No such file" in complaint(missing, InputError)
    missing.mkdir()
    assert "Is a directory" in complaint(missing, InputError)


@pytest.mark.parametrize("content", [b"\xff\xfe{\x00}\x00", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08\x00\x80\x81"])
def test_a_file_that_is_no_text(write, content):
    assert "is not a text file" in complaint(write(content), InputError)


@pytest.mark.parametrize("content", ["", " ", "{", "{'version': 1}", "[1,]", "nul", "{} {}", "// x\n{}", "[" * 100_000])
def test_a_file_that_is_no_json(write, content):
    assert "is no JSON: " in complaint(write(content))


def test_the_place_of_a_mistake_is_named(write):
    text = json.dumps(DOCUMENT).replace("[3, 4, 5]", '[3, "x", 5]')
    assert "segments[0].prompts[0].corners[1][1]: must be a number" in complaint(write(text))


def test_a_field_that_stands_twice_would_lose_a_prompt(write):
    text = json.dumps(DOCUMENT)[:-1] + ', "segments": []}'
    assert "the field 'segments' stands twice" in complaint(write(text))


@pytest.mark.parametrize("number", ["1" * 5000, "-" + "9" * 5000, "1" * 400, "1e999", "NaN", "-Infinity"])
def test_numbers_without_end_are_named_as_such(write, number):
    text = json.dumps(DOCUMENT).replace("[3, 4, 5]", f"[3, {number}, 5]")
    assert "segments[0].prompts[0].corners[1][1]: must be a finite number" in complaint(write(text))


def test_a_very_long_object_takes_no_time(write):
    text = "{" + ",".join(f'"{n}": 0' for n in range(100_000)) + "}"
    assert "unknown field" in complaint(write(text))


PROMPTS = PromptSet((SegmentPrompts("Leber 肝臓", (PointPrompt((0.1, 1e-300, -0.0)),)),))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(segments, min_size=1, max_size=3, unique_by=lambda segment: segment.name))
def test_what_is_written_is_read(tmp_path, segments):
    prompts = PromptSet(tuple(segments))
    write_prompts(tmp_path / "prompts.json", prompts)
    assert read_prompts(tmp_path / "prompts.json") == prompts


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text("old")
    write_prompts(path, PROMPTS)
    assert read_prompts(path) == PROMPTS
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_told_and_leaves_nothing(tmp_path):
    (tmp_path / "prompts.json").mkdir()
    with pytest.raises(OutputError, match=r"prompts\.json: cannot be written"):
        write_prompts(tmp_path / "prompts.json", PROMPTS)
    with pytest.raises(OutputError):
        write_prompts(tmp_path / "missing" / "prompts.json", PROMPTS)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.json"]
