import copy
import tomllib

import pytest

from FoundationSegLib.core.cards import card_folder, find_card, parse_card, read_card, read_catalogue
from FoundationSegLib.core.errors import CardError, UnknownModelError

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
packages = ["torch"]
notes = ["A note."]

[memory_mb]
cpu = 1200
cuda = 900

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

[license]
name = "Apache-2.0"
commercial_use = "yes"
url = "https://example.org/license"
note = "Read it."
must_accept = true
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
    assert [file.name for file in card.source.files] == ["model.safetensors", "config.json"]
    assert card.source.files[1].sha256 == ""
    assert (card.license.commercial_use, card.license.must_accept) == ("yes", True)
    assert [kind for kind in ("box", "point", "text") if card.understands(kind)] == ["box", "point"]


def test_what_travels_is_the_sum_of_the_files_unless_said():
    assert parse_card(DOCUMENT).source.bytes == 70
    assert parse_card(changed(["source", "download_bytes"], ...)).source.bytes == 105


OPTIONAL = ["negative", "modalities", "intensity", "input_8bit", "gated", "memory_mb", "packages", "notes"]


def test_what_may_be_left_out_has_a_default():
    document = {name: value for name, value in DOCUMENT.items() if name not in OPTIONAL}
    card = parse_card(document)
    assert [getattr(card, name) for name in OPTIONAL] == [(), (), "auto", False, False, None, (), ()]
    assert not parse_card(changed(["license", "must_accept"], ...)).license.must_accept


@pytest.mark.parametrize("name", sorted(set(DOCUMENT) - set(OPTIONAL)))
def test_what_is_missing_is_named(name):
    with pytest.raises(CardError, match=f"^{NAME}: {name} is missing$"):
        parse_card(changed([name], ...), NAME)


@pytest.mark.parametrize("name", [name for name, value in DOCUMENT.items() if isinstance(value, str)])
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
    (["id"], "lite-", "id: 'lite-'"),
    (["family"], "lite_model", "family: 'lite_model'"),
    (["family"], "os.path", "family: 'os.path'"),
    (["task"], "detect", "task: must be one of segment, classify, not 'detect'"),
    (["task"], ["segment"], "task: must be one of"),
    (["prompts"], [], "prompts: a model to segment with needs one"),
    (["prompts"], ["box", "circle"], "prompts: unknown kinds ['circle']"),
    (["prompts", 1], 3, "prompts[1]: must be str, not int"),
    (["negative"], ["lasso"], "negative: names kinds that prompts does not"),
    (["dimensions"], [], "dimensions: must be 2, 3 or both"),
    (["dimensions"], [2, 4], "dimensions: must be 2, 3 or both"),
    (["dimensions", 0], 2.0, "dimensions[0]: must be int, not float"),
    (["dimensions", 0], True, "dimensions[0]: must be int, not bool"),
    (["channels"], [4], "channels: must be 1, 3 or both"),
    (["intensity"], "abdomen", "intensity: unknown intensity policy 'abdomen'"),
    (["intensity"], "0,40", "intensity: the window '0,40'"),
    (["memory_mb", "gpu"], 900, "memory_mb: must be of cpu, cuda or mps"),
    (["memory_mb", "cpu"], "1 GB", "memory_mb.cpu: must be int, not str"),
    (["source", "kind"], "ftp", "source: kind: must be one of hub, pypi-wheel, not 'ftp'"),
    (["source", "repository"], ..., "source: repository is missing"),
    (["source", "repository"], "", "source: repository: is empty"),
    (["source", "revision"], "", "source: revision: is empty"),
    (["source", "revision"], 1, "source: revision: must be str, not int"),
    (["source", "download_bytes"], 0, "source: download_bytes must be above 0"),
    (["source", "download_bytes"], "5 MB", "source: download_bytes: must be int, not str"),
    (["source", "files"], [], "source: files: is empty"),
    (["source", "files"], {}, "source: files: must be a list"),
    (["source", "files", 1], "config.json", "files[1]: must be a table"),
    (["source", "files", 1, "path"], ..., "files[1]: path is missing"),
    (["source", "files", 1, "path"], "", "files[1]: path: is empty"),
    (["source", "files", 1, "path"], "weights/model.safetensors", "files[1]: path: the name stands twice"),
    (["source", "files", 1, "bytes"], ..., "files[1]: bytes is missing"),
    (["source", "files", 1, "bytes"], 0, "files[1]: bytes: must be above 0"),
    (["source", "files", 1, "bytes"], -5, "files[1]: bytes: must be above 0"),
    (["source", "files", 1, "bytes"], True, "files[1]: bytes: must be int, not bool"),
    (["source", "files", 0, "sha256"], "79d8", "files[0]: sha256: must be 64 hexadecimal digits"),
    (["source", "files", 0, "sha256"], "G" * 64, "files[0]: sha256: must be 64 hexadecimal digits"),
    (["license", "name"], ..., "license: name is missing"),
    (["license", "commercial_use"], ..., "license: commercial_use is missing"),
    (["license", "commercial_use"], True, "license: commercial_use: must be one of yes, no, unclear, not True"),
    (["license", "must_accept"], "yes", "license: must_accept: must be bool, not str"),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG)
def test_one_wrong_value_is_named_by_file_and_field(path, value, words):
    with pytest.raises(CardError) as caught:
        parse_card(changed(path, value), NAME)
    assert str(caught.value).startswith(f"{NAME}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "a//b", "./x", "a/", "..", "a\\b", "C:/x", "C:x", "//host/x", "x\0y"]
)
def test_a_file_cannot_leave_its_folder(path):
    with pytest.raises(CardError, match=r"files\[0\]: path: .* leaves its folder or names no file"):
        parse_card(changed(["source", "files", 0, "path"], path), NAME)


def test_a_classifier_needs_no_prompts():
    card = parse_card(changed(["task"], "classify") | {"prompts": [], "negative": []}, NAME)
    assert not card.understands("box")


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
    "content", [b"id = ", b"\xff\xfe", b"id = 1\nid = 2", None], ids=["broken", "binary", "twice", "missing"]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "card.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CardError, match=r"^card.toml: cannot be read: ") as caught:
        read_card(path)
    assert tmp_path.name not in str(caught.value)


def test_every_card_that_comes_along_is_valid():
    catalogue = read_catalogue()
    assert card_folder().name == "ModelCards"
    assert "lite-medsam" in catalogue
