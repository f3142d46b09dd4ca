"""Whatever is done to a card, it is refused with its place, or it is a valid card; nothing else ever comes out."""

import copy
import json
import math
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.catalogue import (
    adapted_id,
    card_folder,
    has_adapter,
    parse_card,
    read_card,
    read_catalogue,
)
from FoundationSegLib.catalog.model_cards import ModelCard, find_card
from FoundationSegLib.errors import CardError, InputError, UnknownModelError
from FoundationSegLib.folders import is_safe_name, is_safe_path
from FoundationSegLib.hub.store import Store
from Testing.unit.strategies import paths_of

CARD = """
id = "lite-model-2.1"
title = "Lite Model"
task = "segment"
family = "lite-model"
prompts = ["box", "point"]
negative = ["point"]
dimensions = [2, 3]
channels = [1, 3]
modalities = ["CT", "MR"]
intensity = "400,40"
input_8bit = true
gated = false
good_at = "Organs."
bad_at = "Vessels."
citation = "Somebody. Somewhere 2024."
full_pickle = true
packages = ["torch>=2.4,!=2.9.*", "open_clip_torch[extra]>=3.0", "monai"]
notes = ["A note."]
unverified = ["source.files[1].bytes", "license", "memory_mb.cuda"]
replaces = "lite-model-2.1"

[memory_mb]
cpu = 1200
cuda = 900

[memory_basis]
cpu = "measured"
cuda = "published"

[source]
kind = "hub"
repository = "someone/lite-model"
revision = "0123abc"
download_bytes = 70

[[source.files]]
path = "weights/model.safetensors"
bytes = 100
sha256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"

[[source.files]]
path = "config.json"
bytes = 5

[[source.files]]
path = "text/vocabulary.txt"
bytes = "unknown"
repository = "somebody/else"
revision = "main"

[license]
name = "Apache-2.0"
commercial_use = "yes"
url = "https://example.org/license"
note = "Read it."
must_accept = true
version = "2024-05"
"""
DOCUMENT = tomllib.loads(CARD)
NAME = "lite-model-2.1.toml"


def changed(path, value):
    """The document with one value replaced; ... takes it away."""
    document = copy.deepcopy(DOCUMENT)
    *way, last = path
    inner = document
    for step in way:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return document


def test_a_card_holds_what_the_file_says():
    card = parse_card(DOCUMENT, NAME)
    assert (card.id, card.task, card.family) == ("lite-model-2.1", "segment", "lite-model")
    assert (card.prompts, card.negative) == (("box", "point"), ("point",))
    assert (card.dimensions, card.channels) == ((2, 3), (1, 3))
    assert card.memory_mb == {"cpu": 1200, "cuda": 900}
    assert (card.source.kind, card.source.revision) == ("hub", "0123abc")
    assert [file.name for file in card.source.files] == ["model.safetensors", "config.json", "vocabulary.txt"]
    assert card.source.files[1].sha256 == ""
    assert (card.license.commercial_use, card.license.must_accept) == ("yes", True)
    assert [kind for kind in ("box", "point", "text") if kind in card.prompts] == ["box", "point"]


def test_what_travels_is_the_sum_of_the_files_unless_said():
    told = parse_card(DOCUMENT).source
    assert (told.bytes, told.bytes_known) == (70, True)
    summed = parse_card(changed(["source", "download_bytes"], ...)).source
    assert (summed.bytes, summed.bytes_known) == (105, False)
    assert summed.files[2].bytes is None


def test_a_file_may_come_from_another_repository():
    source = parse_card(DOCUMENT).source
    assert [source.origin(file)[0] for file in source.files] == ["someone/lite-model"] * 2 + ["somebody/else"]
    assert source.origins == (("someone/lite-model", "0123abc"), ("somebody/else", "main"))


def test_what_is_unverified_covers_what_is_inside_it():
    card = parse_card(DOCUMENT)
    doubtful = ["source.files[1].bytes", "license", "license.commercial_use", "memory_mb.cuda"]
    certain = ["source.files[0].bytes", "source.files[1]", "source", "licensed", "memory_mb", "memory_mb.cpu"]
    assert [card.is_unverified(field) for field in doubtful + certain] == [True] * 4 + [False] * 6


OPTIONAL = ["negative", "modalities", "intensity", "input_8bit", "gated", "full_pickle", "memory_mb", "memory_basis"]
OPTIONAL += ["packages", "notes", "unverified", "replaces"]


def test_what_may_be_left_out_has_a_default():
    document = {name: value for name, value in DOCUMENT.items() if name not in OPTIONAL}
    card = parse_card(document)
    assert [getattr(card, name) for name in OPTIONAL] == [
        *((), (), "auto", False, False, False, None, None),
        *((), (), (), ""),
    ]
    assert not parse_card(changed(["license", "must_accept"], ...)).license.must_accept
    assert parse_card(changed(["license", "version"], ...)).license.version == "1"


@pytest.mark.parametrize("name", sorted(set(DOCUMENT) - set(OPTIONAL)))
def test_what_is_missing_is_named(name):
    with pytest.raises(CardError, match=f"^{NAME}: {name} is missing$"):
        parse_card(changed([name], ...), NAME)


@pytest.mark.parametrize("name", [name for name in DOCUMENT if isinstance(DOCUMENT[name], str) and name != "replaces"])
def test_empty_text_is_refused(name):
    with pytest.raises(CardError, match=f"{NAME}: {name}"):
        parse_card(changed([name], ""), NAME)


OTHER_TYPES = [None, 7, True, 1.5, "text", ["x", 1], {"x": 1}, [[]], [{}]]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [(name, wrong) for name in DOCUMENT for wrong in OTHER_TYPES if type(wrong) not in (type(DOCUMENT[name]), list)]
    + [(name, wrong) for name in DOCUMENT for wrong in OTHER_TYPES if type(wrong) is list],
)
def test_a_value_of_the_wrong_type_is_named(name, wrong):
    with pytest.raises(CardError, match=f"^{NAME}: {name}"):
        parse_card(changed([name], wrong), NAME)


# (path, wrong value, words that the message must hold)
WRONG = [
    (["colour"], "red", "unknown field 'colour'"),
    (["source", "url"], "https://", "source: unknown field 'url'"),
    (["source", "files", 0, "md5"], "", "files[0]: unknown field 'md5'"),
    (["license", "spdx"], "MIT", "license: unknown field 'spdx'"),
    (["id"], "Lite Model", "id: 'Lite Model'"),
    (["id"], "../lite", "id: '../lite'"),
    (["family"], "lite_model", "family: 'lite_model'"),
    (["family"], "os.path", "family: 'os.path'"),
    (["task"], "detect", "task: must be one of segment, classify, not 'detect'"),
    (["task"], ["segment"], "task: must be one of"),
    (["prompts"], [], "prompts: a model to segment with needs one"),
    (["prompts"], ["box", "circle"], "prompts: unknown kinds ['circle']"),
    (["negative"], ["lasso"], "negative: names kinds that prompts does not"),
    (["ct_channels"], [[0, 80]], "ct_channels: needs the lowest and highest value of red, green and blue"),
    (["ct_channels"], [[0, 80], [0], [0, 1]], "ct_channels: needs the lowest"),
    (["ct_channels"], [[0, 80], [0, 80], [0, 80]], "ct_channels: needs the lowest"),
    (["dimensions"], [], "dimensions: must be 2, 3 or both"),
    (["dimensions"], [2, 4], "dimensions: must be 2, 3 or both"),
    (["channels"], [4], "channels: must be 1, 3 or both"),
    (["id"], "a" * 65, "id: 'aaa"),
    (["title"], "Lite \x1b[2J", "title: must be one line without control characters"),
    (["notes", 0], "x" * 2001, "notes[0]: is longer than 2000 characters"),
    (["prompts"], ["box", "point", "box"], "prompts: names something twice"),
    (["packages"], ["torch", "torch"], "packages: names something twice"),
    (["packages", 1], "--index-url=https://x", "packages[1]: '--index-url=https://x' is no name"),
    (["packages", 1], "x @ https://x/y.whl", "packages[1]: 'x @ https://x/y.whl' is no name"),
    (["packages", 1], "torch>=", "packages[1]: 'torch>=' is no name"),
    (["packages", 1], "", "packages[1]: '' is no name"),
    (["unverified", 0], "source.files[3].bytes", "unverified[0]: the card has no field 'source.files[3].bytes'"),
    (["unverified", 0], "licence", "unverified[0]: the card has no field 'licence'"),
    (["unverified", 0], "memory_mb.mps", "unverified[0]: the card has no field 'memory_mb.mps'"),
    (["replaces"], "other", "replaces: must be the card's own id, 'lite-model-2.1'"),
    (["memory_basis", "cuda"], ..., "memory_basis: must say of every number of memory_mb how it is known"),
    (["memory_basis", "mps"], "measured", "memory_basis: must say of every number"),
    (["memory_basis", "cpu"], "guessed", "memory_basis.cpu: must be one of measured, published, estimated"),
    (["memory_mb", "cpu"], 0, "memory_mb.cpu: must be above 0"),
    (["memory_mb", "cpu"], 10**7, "memory_mb.cpu: must be above 0 and below 10 TB"),
    (["source", "repository"], "lite-model", "source: repository: 'lite-model' is not owner/name"),
    (["source", "revision"], "refs/pr/1", "source: revision: 'refs/pr/1' is no commit, tag or branch"),
    (["source", "files", 2, "repository"], "else", "files[2]: repository: 'else' is not owner/name"),
    (["source", "files", 2, "repository"], ..., "files[2]: revision: goes with a repository of the file's own"),
    (["source", "files", 2, "revision"], ..., "files[2]: revision: goes with a repository of the file's own"),
    (["source", "files", 1, "path"], "other/MODEL.safetensors", "files[1]: path: the name stands twice"),
    (["license", "url"], "javascript:alert(1)", "license: url: must begin with https://"),
    (["license", "version"], "", "license: version: is empty"),
    (["intensity"], "abdomen", "intensity: unknown intensity policy 'abdomen'"),
    (["intensity"], "0,40", "intensity: the window '0,40'"),
    (["memory_mb", "gpu"], 900, "memory_mb: must be of cpu, cuda or mps"),
    (["source", "kind"], "ftp", "source: kind: must be one of hub, release, pypi-wheel, adaptation, not 'ftp'"),
    (["source", "kind"], "release", "files[0]: url: must be the https address of the file"),
    (["source", "files", 0, "url"], "https://host.example/a", "files[0]: url: only files of a release have one"),
    (["source", "download_bytes"], 0, "source: download_bytes must be above 0"),
    (["source", "files"], [], "source: files: is empty"),
    (["source", "files", 1, "bytes"], 0, "files[1]: bytes: must be above 0"),
    (["source", "files", 0, "sha256"], "79d8", "files[0]: sha256: must be 64 hexadecimal digits"),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG)
def test_one_wrong_value_is_named_by_file_and_field(path, value, words):
    with pytest.raises(CardError) as caught:
        parse_card(changed(path, value), NAME)
    assert str(caught.value).startswith(f"{NAME}: ")
    assert words in str(caught.value)


def test_unclear_terms_must_be_quoted():
    document = changed(["license", "commercial_use"], "unclear")
    assert parse_card(document).license.commercial_use == "unclear"
    document["license"]["note"] = ""
    with pytest.raises(CardError, match="license: note: must quote the texts that leave commercial use unclear"):
        parse_card(document, NAME)


def test_a_wheel_has_the_name_of_a_project_and_files_of_its_own():
    document = changed(["source", "kind"], "pypi-wheel")
    with pytest.raises(CardError, match="source: repository: 'someone/lite-model' is not a project's name"):
        parse_card(document, NAME)
    document["source"]["repository"] = "lite-model"
    with pytest.raises(CardError, match=r"files\[2\]: repository: only files from the Hub have one of their own"):
        parse_card(document, NAME)
    del document["source"]["files"][2]
    assert parse_card(document, NAME).source.repository == "lite-model"


def release(url="https://files.example/v1/model.safetensors?download=1", sha256="0" * 64, length=7):
    files = [{"path": "model.safetensors", "bytes": length, "sha256": sha256, "url": url}]
    return changed(["source"], {"kind": "release", "repository": "some/one", "revision": "v1", "files": files})


def test_a_release_has_secure_addresses_hashes_and_lengths():
    source = parse_card(release() | {"unverified": []}).source
    assert (source.host, source.comes_in_files, source.bytes) == ("files.example", True, 7)
    addresses = ["http://files.example/a", "https://", "https://me:secret@files.example/a", "https://files.example/"]
    addresses += ["ftp://files.example/a", "file:///etc/passwd", "https://[/a", "https://files.example/a b", "/a"]
    wrong = [release(url) for url in addresses] + [release(sha256=""), release(length="unknown")]
    for document in wrong:
        with pytest.raises(CardError, match=r"files\[0\]: (url|sha256): "):
            parse_card(document | {"unverified": []})


@pytest.mark.parametrize("path", ["/etc/passwd", "a/../../x", "a\\b", "C:/x", "x\0y", "con", "x."])
def test_a_file_cannot_leave_its_folder(path):
    with pytest.raises(CardError, match=r"files\[0\]: path: (.* leaves its folder|must be one line)"):
        parse_card(changed(["source", "files", 0, "path"], path), NAME)


def test_a_classifier_needs_no_prompts():
    card = parse_card(changed(["task"], "classify") | {"prompts": [], "negative": []}, NAME)
    assert "box" not in card.prompts


def test_a_catalogue_is_the_cards_of_a_folder_in_order(tmp_path):
    for model_id in ("zebra", "ant-2", "ant"):
        (tmp_path / f"{model_id}.toml").write_text(CARD.replace("lite-model-2.1", model_id), encoding="utf-8")
    (tmp_path / "README.md").write_text("no card")
    catalogue = read_catalogue(tmp_path)
    assert list(catalogue) == ["ant-2", "ant", "zebra"]
    assert all(card.id == model_id for model_id, card in catalogue.items())
    assert find_card(catalogue, "ant") is catalogue["ant"]
    with pytest.raises(UnknownModelError, match="'cat'; there are: ant-2, ant, zebra"):
        find_card(catalogue, "cat")


def test_a_draft_is_the_same_model_at_another_resolution(tmp_path):
    whole = replace(parse_card(DOCUMENT), resolutions=(1024, 512))
    catalogue, store = {whole.id: whole}, Store(tmp_path)
    assert find_card(catalogue, f"{whole.id}@1024") is whole
    draft = find_card(catalogue, f"{whole.id}@512")
    assert (draft.id, draft.resolution, draft.source) == (f"{whole.id}@512", 512, whole.source)
    assert store.all_of(draft) == store.all_of(whole)
    for model_id, words in ((f"{whole.id}@256", "1024 or 512 pixels"), ("other@512", "'other@512'")):
        with pytest.raises(UnknownModelError, match=words):
            find_card(catalogue, model_id)
    with pytest.raises(InputError, match="is a draft"):
        adapted_id(draft, "mine")


def test_an_empty_catalogue_is_empty_and_a_missing_one_is_an_error(tmp_path):
    assert read_catalogue(tmp_path) == {}
    with pytest.raises(CardError, match="no folder of model cards called nowhere") as caught:
        read_catalogue(tmp_path / "nowhere")
    assert str(tmp_path) not in str(caught.value)


def test_a_card_file_must_be_named_after_its_id(tmp_path):
    path = tmp_path / "other.toml"
    path.write_text(CARD, encoding="utf-8")
    with pytest.raises(CardError, match=r"^other.toml: the file must be named after its id, lite-model-2.1.toml"):
        read_card(path)


@pytest.mark.parametrize(
    "content",
    [b"id = ", b"\xff\xfe", b"id = 1\nid = 2", None, b"x = " + b"[" * 5000, b"x = " + b"9" * 5000, b"#" * 200_001],
    ids=["broken", "binary", "twice", "missing", "nested", "endless", "large"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "card.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CardError, match=r"^card.toml: (cannot be read: .|is too large)") as caught:
        read_card(path)
    assert tmp_path.name not in str(caught.value)


DOCUMENTS = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(card_folder().glob("*.toml"))]
GARBAGE = [
    *(None, True, False, 0, 1, -1, 2, 3, 1.5, -0.0, 1e308, math.nan, math.inf, 10**400, -(2**63), b"x", (), {1}),
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
