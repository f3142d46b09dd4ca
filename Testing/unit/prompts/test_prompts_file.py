"""Whatever is done to a prompts file, the parser accepts it or names the place; nothing else ever comes out."""

import copy
import json
import math
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError, OutputError, PromptError
from FoundationSegLib.prompts import kinds
from FoundationSegLib.prompts.prompts_file import parse_prompts, prompts_to_document, read_prompts, write_prompts
from Testing.unit.strategies import paths_of, prompt_sets, segments

POSITION = [1.0, 2.0, 3.0]
OBLIQUE = {"origin": [1, 2, 3], "normal": [0, 0, 2], "up": [0, 1, 0.5]}
VALID = {
    "point": {"type": "point", "position": POSITION},
    "box": {"type": "box", "corners": [[0, 0, 0], POSITION]},
    "scribble": {"type": "scribble", "points": [POSITION]},
    "lasso": {"type": "lasso", "points": [[0, 0, 0], [1, 0, 0], [0, 1, 0]]},
    "mask": {"type": "mask", "file": "seed.seg.nrrd", "segment": "Liver"},
    "text": {"type": "text", "text": "liver"},
    "class": {"type": "class", "name": "liver"},
}


def document_of(*prompts, **fields):
    """A document of three segments whose last holds the prompts; ``fields`` replace those of the document."""
    plain = [{"name": name, "prompts": [copy.deepcopy(VALID["point"])]} for name in ("Spleen", "Kidney")]
    return {"version": 1, "segments": [*plain, {"name": "Liver", "prompts": list(prompts)}], **fields}


def first_prompt(**fields):
    return parse_prompts(document_of(fields)).segments[2].prompts[0]


def test_the_example_of_the_interface_page():
    document = {
        "version": 1,
        "space": "ras",
        "segments": [
            {
                "name": "Liver",
                "prompts": [
                    {"type": "box", "corners": [[-10, 0, 5], [20.5, 30, 5]]},
                    {"type": "point", "position": [1, 2, 3], "polarity": "negative"},
                    {"type": "scribble", "points": [[0, 0, 0], [1, 1, 1]], "radius_mm": 2.0},
                    {"type": "lasso", "points": [[0, 0, 0], [1, 0, 0], [0, 1, 0]]},
                    {"type": "mask", "file": "seed.seg.nrrd", "segment": "Liver"},
                    {"type": "text", "text": "liver"},
                    {"type": "class", "name": "liver"},
                ],
            }
        ],
    }
    expected = (
        kinds.BoxPrompt(((-10.0, 0.0, 5.0), (20.5, 30.0, 5.0))),
        kinds.PointPrompt((1.0, 2.0, 3.0), kinds.Polarity.NEGATIVE),
        kinds.ScribblePrompt(((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 2.0),
        kinds.LassoPrompt(((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))),
        kinds.MaskPrompt("seed.seg.nrrd", "Liver"),
        kinds.TextPrompt("liver"),
        kinds.ClassPrompt("liver"),
    )
    assert parse_prompts(document) == kinds.PromptSet((kinds.SegmentPrompts("Liver", expected),), "ras")


@given(prompt_sets)
def test_prompts_survive_the_way_through_the_file(prompts):
    text = json.dumps(prompts_to_document(prompts), allow_nan=False)
    assert parse_prompts(json.loads(text)) == prompts


def test_what_was_not_said_is_not_written():
    document = document_of(*VALID.values(), space="ras")
    assert json.dumps(prompts_to_document(parse_prompts(document)), sort_keys=True) == json.dumps(
        json.loads(json.dumps(document), parse_int=float), sort_keys=True
    ).replace('"version": 1.0', '"version": 1')


def test_the_space_is_ras_unless_said():
    assert parse_prompts(document_of(VALID["text"])).space == "ras"
    assert parse_prompts(document_of(VALID["text"], space="ijk")).space == "ijk"


@pytest.mark.parametrize("kind", ["point", "box", "scribble", "lasso"])
@pytest.mark.parametrize(
    ("plane", "expected"),
    [("i", "i"), ("j", "j"), ("k", "k"), (OBLIQUE, kinds.ObliquePlane((1, 2, 3), (0, 0, 2), (0, 1, 0.5)))],
)
def test_prompts_of_a_plane_may_name_it(kind, plane, expected):
    assert first_prompt(**VALID[kind]).plane is None
    assert first_prompt(**VALID[kind], plane=plane).plane == expected


# What is wrong with the document itself: (document, place, words of the message).
WRONG_DOCUMENTS = [
    ([], "", "must be an object, not a list"),
    ({"segments": []}, "version", "missing"),
    (document_of(VALID["text"], version=2), "version", "must be 1, not 2"),
    (document_of(VALID["text"], version="1"), "version", "not '1'"),
    ({"version": 1}, "segments", "missing"),
    ({"version": 1, "segments": []}, "segments", "is empty"),
    ({"version": 1, "segments": {}}, "segments", "must be a list, not an object"),
    (document_of(VALID["text"], space="lps"), "space", "must be 'ras' or 'ijk', not 'lps'"),
    (document_of(VALID["text"], model="medsam"), "model", "unknown field; known here: version, segments, space"),
    ({"version": 1, "segments": [7]}, "segments[0]", "must be an object, not a number"),
    ({"version": 1, "segments": [{"prompts": []}]}, "segments[0].name", "missing"),
    ({"version": 1, "segments": [{"name": "Liver"}]}, "segments[0].prompts", "missing"),
    ({"version": 1, "segments": [{"name": "", "prompts": [VALID["text"]]}]}, "segments[0].name", "is empty"),
    (document_of(), "segments[2].prompts", "is empty"),
    (document_of(None), "segments[2].prompts[0]", "must be an object, not null"),
]


@pytest.mark.parametrize(("document", "place", "message"), WRONG_DOCUMENTS)
def test_mistakes_in_the_document_are_named_by_their_place(document, place, message):
    with pytest.raises(PromptError) as caught:
        parse_prompts(document)
    assert caught.value.location == place
    assert message in str(caught.value)


def test_duplicate_names_are_an_error_at_the_later_segment():
    document = document_of(VALID["text"])
    document["segments"][2]["name"] = "Spleen"
    with pytest.raises(PromptError, match="taken by an earlier segment") as caught:
        parse_prompts(document)
    assert caught.value.location == "segments[2].name"


# What is wrong with one prompt: (kind, fields that replace its own, place inside the prompt, words of the message).
# ... as a value takes the field away.
WRONG_PROMPTS = [
    ("point", {"type": "circle"}, ".type", "'circle' is unknown; must be one of point, box, scribble, lasso"),
    ("point", {"type": ...}, ".type", "missing; must be one of"),
    ("point", {"position": ...}, ".position", "missing"),
    ("point", {"position": []}, ".position", "is empty"),
    ("point", {"position": {"x": 1}}, ".position", "must be a list, not an object"),
    ("point", {"position": [1, 2, "3"]}, ".position[2]", "must be a number, not text"),
    ("point", {"position": [math.nan, 2, 3]}, ".position[0]", "must be a finite number"),
    ("point", {"position": [1, 2, 10**400]}, ".position[2]", "must be a finite number"),
    ("point", {"corners": [POSITION, POSITION]}, ".corners", "unknown field; known here: type, position"),
    ("point", {"polarity": "Negative"}, ".polarity", "must be 'positive' or 'negative', not 'Negative'"),
    ("box", {"corners": [POSITION] * 3}, ".corners", "needs two corners, not 3"),
    ("scribble", {"points": []}, ".points", "is empty"),
    ("scribble", {"radius_mm": 0}, ".radius_mm", "must be above 0"),
    ("scribble", {"radius_mm": None}, ".radius_mm", "must be a number, not null"),
    ("lasso", {"points": [POSITION, [0, 0, 0]]}, ".points", "at least three points"),
    ("mask", {"file": ...}, ".file", "missing"),
    ("text", {"text": ""}, ".text", "is empty"),
    ("box", {"plane": "K"}, ".plane", "must be 'i', 'j', 'k' or an object, not 'K'"),
    ("point", {"plane": {"origin": [0, 0, 0], "normal": [0, 0, 1]}}, ".plane.up", "missing"),
    ("point", {"plane": OBLIQUE | {"origin": [0, 0, math.nan]}}, ".plane.origin[2]", "must be a finite number"),
    ("point", {"plane": OBLIQUE | {"normal": [0, 0, 0]}}, ".plane.normal", "must not be zero"),
    ("point", {"plane": OBLIQUE | {"up": [0, 0, 0]}}, ".plane.up", "must not be zero or along the normal"),
]


@pytest.mark.parametrize(("kind", "fields", "inner_place", "message"), WRONG_PROMPTS)
def test_mistakes_in_a_prompt_are_named_by_their_place(kind, fields, inner_place, message):
    wrong = {name: value for name, value in {**VALID[kind], **fields}.items() if value is not ...}
    with pytest.raises(PromptError) as caught:
        parse_prompts(document_of(VALID["text"], wrong))
    assert caught.value.location == f"segments[2].prompts[1]{inner_place}"
    assert str(caught.value).startswith(f"segments[2].prompts[1]{inner_place}: ")
    assert message in str(caught.value)


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
    assert prompts.segments[0].prompts[0] == kinds.BoxPrompt(((0.0, 1.0, 2.0), (3.0, 4.0, 5.0)))


def test_a_file_that_cannot_be_read(tmp_path, write):
    missing = tmp_path / "prompts.json"
    assert "No such file" in complaint(missing, InputError)
    missing.mkdir()
    assert "Is a directory" in complaint(missing, InputError)


@pytest.mark.parametrize("content", [b"\xff\xfe{\x00}\x00", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08\x00\x80\x81"])
def test_a_file_that_is_no_text(write, content):
    assert "is not text in UTF-8" in complaint(write(content), InputError)


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


PROMPTS = kinds.PromptSet((kinds.SegmentPrompts("Leber 肝臓", (kinds.PointPrompt((0.1, 1e-300, -0.0)),)),))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(segments, min_size=1, max_size=3, unique_by=lambda segment: segment.name))
def test_what_is_written_is_read(tmp_path, segments):
    prompts = kinds.PromptSet(tuple(segments))
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
    with pytest.raises(OutputError, match=r"prompts\.json cannot be written"):
        write_prompts(tmp_path / "prompts.json", PROMPTS)
    with pytest.raises(OutputError):
        write_prompts(tmp_path / "missing" / "prompts.json", PROMPTS)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.json"]


GARBAGE = [
    *(None, True, False, 0, 1, -1, 2, 1.5, -0.0, 5e-324, 1e308, math.nan, math.inf, -math.inf, 10**400, -(2**63)),
    *("", " ", "x", "ras", "ijk", "k", "point", "box", "lasso", "mask", "negative", "\0", "\ud800", "x" * 5000),
    *([], {}, [[]], [{}], [None] * 3, [0, 0, 0], [[0, 0, 0]], [[0, 0, 0]] * 3, [1e308, 1e308, -1e308], [0] * 1000),
    *({"x": 1}, {"type": "text", "text": "x"}, {"origin": [0, 0, 0], "normal": [0, 0, 1], "up": [0, 1, 0]}),
    *((), (1, 2, 3), b"x", {1, 2}, object()),
]
garbage = st.sampled_from(GARBAGE) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "x", "points"]), inner),
    max_leaves=6,
)


def value_at(document, path):
    for step in path:
        document = document[step]
    return document


@st.composite
def mutated_documents(draw):
    """A valid document with one thing done to it, and the path of the object or list in which it was done."""
    document = prompts_to_document(draw(prompt_sets))
    path = draw(st.sampled_from(list(paths_of(document))[1:]))
    parent, step = value_at(document, path[:-1]), path[-1]
    deed = draw(st.sampled_from(["delete", "replace", "replace", "replace", "add", "rename", "twin"]))
    if deed == "delete":
        del parent[step]
    elif deed == "replace":
        parent[step] = draw(garbage)
    elif isinstance(parent, list):
        parent.insert(step, copy.deepcopy(parent[step]) if deed == "twin" else draw(garbage))
    else:
        name = draw(st.sampled_from(["extra", "Type", "position", "points", "plane", "radius_mm", "name", "prompts"]))
        parent[name] = parent.pop(step) if deed == "rename" else draw(garbage)
    return document, path[:-1]


def steps_of(place):
    return tuple(int(number) if number else name for number, name in re.findall(r"\[(\d+)\]|([^.\[\]]+)", place))


def is_part(path, of):
    return path[: len(of)] == of


def assert_names_the_culprit(error, document, where):
    """The place leads to a value of the document, or to a field missing there, and lies around the deed."""
    steps = steps_of(error.location)
    assert steps, "a document that is an object always has a place to name"
    parent, step = value_at(document, steps[:-1]), steps[-1]
    is_there = step < len(parent) if isinstance(step, int) else step in parent
    assert is_there != (": missing" in str(error))
    twin_name = steps[-1] == "name" and "taken by an earlier segment" in str(error)
    if "plane" in where:  # a plane's normal can make its up wrong
        where = where[: where.index("plane") + 1]
    assert twin_name or is_part(steps, where) or is_part(where, steps)


@given(mutated_documents())
def test_one_mutation_anywhere_is_accepted_or_named(mutated):
    document, where = mutated
    try:
        prompts = parse_prompts(document)
    except PromptError as error:
        assert_names_the_culprit(error, document, where)
        assert len(str(error)) < 400, "a message shows no whole document"
    else:
        assert parse_prompts(prompts_to_document(prompts)) == prompts


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [10**5000, -(10**5000), nested(50_000)], ids=["huge", "negative", "deep"])
@pytest.mark.parametrize(
    "place",
    [
        *("version", "space", "segments[0].name", "segments[0].prompts[0].type"),
        *("segments[0].prompts[0].position[1]", "segments[0].prompts[0].plane"),
    ],
)
def test_values_that_python_itself_cannot_print_are_named(place, value):
    point = {"type": "point", "position": [1, 2, 3], "polarity": "positive", "plane": "k"}
    document = {"version": 1, "space": "ras", "segments": [{"name": "Liver", "prompts": [point]}]}
    *way, last = steps_of(place)
    value_at(document, way)[last] = value
    with pytest.raises(PromptError) as caught:
        parse_prompts(document)
    assert caught.value.location.startswith(place)
