"""Whatever is done to a card, it is refused with its place, or it is a valid card; nothing else ever comes out."""

import copy
import json
import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.catalogue import card_folder, has_adapter, parse_card, read_card
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import CardError
from FoundationSegLib.folders import is_safe_name, is_safe_path

CARDS = {path.stem: path.read_bytes() for path in sorted(card_folder().glob("*.toml"))}
DOCUMENTS = [tomllib.loads(content.decode("utf-8")) for content in CARDS.values()]
GARBAGE = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        1.5,
        -0.0,
        1e308,
        math.nan,
        math.inf,
        10**400,
        -(2**63),
        b"x",
        (),
        {1},
        object(),
    ),
    *(
        "",
        " ",
        "x",
        ".",
        "..",
        "a/b",
        "/a",
        "a\\b",
        "con",
        "main",
        "unknown",
        "yes",
        "\0",
        "\x1b[2J",
        "\ud800",
        "x" * 5000,
    ),
    *("source.files[0].bytes", "source.files[99]", "a/../../b", "C:/x", "https://x", "a" * 64, "torch>=2", "--user"),
    *([], {}, [[]], [{}], [None] * 3, [2, 3], ["box"], ["box"] * 2, {"x": 1}, {"path": "a", "bytes": 1}, {"cpu": 1}),
]
garbage = st.sampled_from(GARBAGE) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["path", "bytes", "x"]), inner),
    max_leaves=6,
)
FIELDS = ["id", "path", "bytes", "extra", "sha256", "revision", "repository", "replaces", "unverified", "memory_mb"]


def paths_of(value, path=()):
    """The way to every value of a document, the document itself first."""
    yield path
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_of(inner, (*path, step))


@st.composite
def mutated_documents(draw):
    """A card that comes along, with one to three things done to it."""
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(paths_of(document))[1:] or [()]))
        if not path:
            break
        parent = document
        for step in path[:-1]:
            parent = parent[step]
        deed = draw(st.sampled_from(["delete", "replace", "replace", "replace", "add"]))
        if deed == "delete":
            del parent[path[-1]]
        elif deed == "replace":
            parent[path[-1]] = copy.deepcopy(draw(garbage))  # a later deed may change it
        elif isinstance(parent, list):
            parent.insert(path[-1], copy.deepcopy(draw(garbage)))
        else:
            parent[draw(st.sampled_from(FIELDS))] = copy.deepcopy(draw(garbage))
    return document


def assert_sound(card):
    """What everybody who handles a card relies on."""
    assert isinstance(card, ModelCard)
    hash((card.source, card.license))
    json.dumps([card.title, card.source.bytes, card.source.bytes / 1e6])
    assert is_safe_name(card.id)
    assert is_safe_name(card.source.revision)
    assert all(is_safe_path(file.path) for file in card.source.files)
    assert all(is_safe_name(revision) for _, revision in card.source.origins)
    has_adapter(card)


def assert_refused_clearly(error, name):
    message = str(error)
    assert message.startswith(f"{name}: ")
    assert message.isprintable(), "one line, without anything that a terminal would obey"
    assert len(message) < 3000


@given(mutated_documents())
def test_a_changed_card_is_refused_or_valid(document):
    try:
        card = parse_card(document, "x.toml")
    except CardError as error:
        assert_refused_clearly(error, "x.toml")
    else:
        assert_sound(card)


@given(garbage)
def test_what_is_no_card_at_all_is_refused(value):
    with pytest.raises(CardError) as caught:
        parse_card(value, "x.toml")
    assert_refused_clearly(caught.value, "x.toml")


@given(st.data())
def test_a_changed_file_is_refused_or_valid(tmp_path_factory, data):
    name = data.draw(st.sampled_from(list(CARDS)))
    content = bytearray(CARDS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 40)))
        content[start:end] = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"[[", b"]", b'"', b"\n", b"= 1", b"\\u"])
        )
    path = tmp_path_factory.getbasetemp() / f"{name}.toml"
    path.write_bytes(content)
    try:
        card = read_card(path)
    except CardError as error:
        assert_refused_clearly(error, path.name)
        assert str(path.parent) not in str(error)
    else:
        assert_sound(card)
