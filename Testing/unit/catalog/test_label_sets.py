import hashlib
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog import label_sets
from FoundationSegLib.catalog.catalogue import card_folder, read_catalogue
from FoundationSegLib.catalog.label_sets import (
    MOST_LABELS,
    Label,
    LabelSet,
    find_label_set,
    import_label_set,
    label_set_of,
    labels_of,
    parse_label_set,
    read_label_set,
    read_label_sets,
)
from FoundationSegLib.catalog.resource_files import resource_folder
from FoundationSegLib.errors import InputError

WORDS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=20)


def made(*labels, **fields):
    return LabelSet("set", "Set", "exclusive", labels, **fields)


def test_texts_are_all_phrasings_in_all_templates_each_once():
    label = Label("Liver", ("the liver", "hepatic tissue"))
    labels = made(label, templates=("{}", "a photo of {}", "{}"), negative_templates=("no {}",))
    assert labels.texts(label) == ("the liver", "hepatic tissue", "a photo of the liver", "a photo of hepatic tissue")
    assert labels.negative_texts(label) == ("no the liver", "no hepatic tissue")


def test_a_label_without_phrasings_is_said_by_its_name_and_negations_of_its_own_win():
    label = Label("Cyst", negations=("a normal kidney",))
    labels = made(label, negative_templates=("no {}",))
    assert labels.texts(label) == ("Cyst",)
    assert labels.negative_texts(label) == ("a normal kidney",)
    assert made(Label("Cyst")).negative_texts(Label("Cyst")) == ()


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([], "no label"),
        ([""], "empty"),
        (["  "], "empty"),
        (["?!"], "says nothing"),
        (["liver", "spleen", "liver"], "twice"),
        (["Liver", "  liver "], "twice"),
        (["a" * 2001], "longer"),
        (["two\nlines"], "control characters"),
        ([f"label {n}" for n in range(MOST_LABELS + 1)], "too many"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_labels_that_say_nothing_or_the_same_are_refused(labels, why):
    with pytest.raises(InputError, match=why):
        label_set_of(labels)


@pytest.mark.parametrize("template", ["", "a photo", "{} and {}", "{" * 2001])
def test_a_template_has_one_slot(template):
    with pytest.raises(InputError, match="template"):
        made(Label("Liver"), templates=(template,))
    with pytest.raises(InputError, match="template"):
        made(Label("Liver"), negative_templates=(template,))


def test_a_set_needs_a_template_and_a_bounded_number_of_sentences():
    with pytest.raises(InputError, match="no template"):
        made(Label("Liver"), templates=())
    labels = [Label(f"label {n}", tuple(f"{n} {m}" for m in range(100))) for n in range(300)]
    with pytest.raises(InputError, match="sentences"):
        made(*labels)


@given(st.lists(WORDS, min_size=1, max_size=8, unique_by=str.casefold))
def test_words_in_any_script_are_labels(names):
    labels = label_set_of(names)
    assert labels.names == tuple(names)
    assert [labels.label(name).name for name in names] == names
    assert all(labels.texts(label) == (label.name,) for label in labels.labels)
    with pytest.raises(InputError, match="no label is called"):
        labels.label("no such label")


def test_braces_of_a_label_are_its_own():
    labels = made(Label("a {} b"), templates=("see {}",))
    assert labels.texts(labels.labels[0]) == ("see a {} b",)


SHIPPED = read_label_sets(resource_folder("LabelSets"))
TOML = """
id = "mine"
title = "Mine"
kind = "findings"
negative_templates = ["no {}"]

[[labels]]
name = "Cyst"
phrasings = ["a cyst", "a fluid-filled lesion"]
code = { scheme = "SCT", value = "367643001", meaning = "Cyst" }
"""


def test_what_comes_along():
    assert set(SHIPPED) == {
        "modality",
        "body-part",
        "chest-xray-findings",
        "chest-ct-findings",
        "abdominal-ct-findings",
        "ct-abdomen-organs",
        "ultrasound-views",
        "endoscopy-views",
        "fundus-findings",
        "pathology-tissue",
        "torchxrayvision-findings",
    }


@pytest.mark.parametrize("labels", SHIPPED.values(), ids=SHIPPED)
def test_every_label_has_phrasings_a_negation_and_a_source(labels):
    assert labels.source and labels.title
    for label in labels.labels:
        assert len(labels.texts(label)) >= 2, label.name
        assert labels.negative_texts(label), label.name
        assert not set(labels.texts(label)) & set(labels.negative_texts(label)), label.name


@pytest.mark.parametrize("labels", SHIPPED.values(), ids=SHIPPED)
def test_no_sentence_stands_for_two_labels(labels):
    texts = [text.casefold() for label in labels.labels for text in labels.texts(label)]
    assert len(set(texts)) == len(texts)


def verhoeff(number):
    """The check digit that every SNOMED CT identifier ends with (SNOMED CT Release File Specification, 4.6)."""
    step = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    rows = [list(range(10))]
    for _ in range(7):
        rows.append([rows[-1][step[n]] for n in range(10)])
    check = 0
    for position, digit in enumerate(map(int, reversed(number))):
        one, other = check, rows[position % 8][digit]
        turned = (one + other) % 5 if other < 5 else 5 + (one + other) % 5
        flipped = (one - other) % 5 if other >= 5 else 5 + (one - other) % 5
        check = turned if one < 5 else flipped
    return check == 0


@pytest.mark.parametrize("labels", SHIPPED.values(), ids=SHIPPED)
def test_codes_are_codes(labels):
    coded = [label.code for label in labels.labels if label.code]
    assert len(coded) * 2 >= len(labels.labels) or labels.id in ("endoscopy-views", "pathology-tissue")
    for code in coded:
        forms = {"SCT": r"[1-9][0-9]{5,17}", "DCM": r"[A-Z]{2,8}"}
        assert code.meaning and re.fullmatch(forms[code.scheme], code.value), code
        assert code.scheme != "SCT" or verhoeff(code.value), code


def test_a_table_of_authors_becomes_a_set_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv(label_sets.LABEL_SETS_VARIABLE, str(tmp_path / "sets"))
    table, card = tmp_path / "outputs.csv", replace(read_catalogue(card_folder())["merlin"], label_set="outputs")
    with pytest.raises(InputError, match="label set outputs of Merlin is not on this computer"):
        labels_of(card)
    for rows in ("phecode,name\n8,Infection\n", 'phecode,name\n8,Infection\n8.5,"Enteritis, bacterial"\n'):
        table.write_text(rows, encoding="utf-8")
        path = import_label_set(table, "outputs")
        labels = labels_of(card)
        assert labels == read_label_sets()["outputs"] and path.stem == "outputs"
        assert len(labels.names) == rows.count("\n") - 1 and labels.labels[0].code.scheme == "phecode"
        assert labels.source == f"outputs.csv, sha256 {hashlib.sha256(rows.encode()).hexdigest()}"
    assert labels.names[1] == "Enteritis, bacterial"


@pytest.mark.parametrize(
    "content", [b"", b"a\nb\n", b"\xff\xfe", b"code,name\n", b"c,n\n1,x\n2,x\n", b"c,n\n" * 3 * 10**5]
)
def test_a_table_that_is_none_changes_nothing(content, tmp_path, monkeypatch):
    monkeypatch.setenv(label_sets.LABEL_SETS_VARIABLE, str(tmp_path / "sets"))
    (tmp_path / "outputs.csv").write_bytes(content)
    with pytest.raises(InputError):
        import_label_set(tmp_path / "outputs.csv", "outputs")
    with pytest.raises(InputError, match="no name for a label set"):
        import_label_set(tmp_path / "outputs.csv", "../outputs")
    assert not (tmp_path / "sets").exists()


def test_organs_have_concepts_and_a_segment_is_one_of_them():
    organs = SHIPPED["ct-abdomen-organs"]
    assert organs.one_in_segment and organs.kind == "findings"
    assert all(label.concepts and label.category == "structure" for label in organs.labels)


def test_users_sets_join_those_that_come_along_and_may_replace_them(tmp_path, monkeypatch):
    monkeypatch.setenv(label_sets.LABEL_SETS_VARIABLE, str(tmp_path))
    (tmp_path / "mine.toml").write_text(TOML, encoding="utf-8")
    (tmp_path / "modality.toml").write_text(TOML.replace('"mine"', '"modality"'), encoding="utf-8")
    (tmp_path / "._mine.toml").write_text("what a Mac leaves", encoding="utf-8")
    sets = read_label_sets()
    assert set(sets) == {*SHIPPED, "mine"}
    assert sets["modality"].names == ("Cyst",)
    assert find_label_set(sets, "mine").labels[0].code.value == "367643001"
    with pytest.raises(InputError, match="no label set is called 'none'; there are: abdominal-ct-findings, body-part"):
        find_label_set(sets, "none")


def test_a_folder_that_was_named_and_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv(label_sets.LABEL_SETS_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(InputError, match="names no folder: none"):
        read_label_sets()
    with pytest.raises(InputError, match="install FoundationSeg again"):
        read_label_sets(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (('kind = "findings"', 'kind = "both"'), "kind: must be one of exclusive, findings"),
        (('title = "Mine"', 'titel = "Mine"'), "unknown field 'titel'"),
        (('name = "Cyst"', "name = 3"), r"labels\[0\]: name: must be str"),
        (('name = "Cyst"', 'name = ""'), "name: is empty"),
        (('"no {}"', '"no"'), "template 'no'"),
        (('"367643001"', "367643001"), "value: must be str"),
        (('id = "mine"', 'id = "other"'), "named after its id, other.toml"),
        (("[[labels]]", "[labels]"), "labels: must be a list"),
        (('title = "Mine"', 'title = "Mi'), "cannot be read"),
        (('"a cyst"', '"a\\u001bcyst"'), "control characters"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_named(tmp_path, change, why):
    path = tmp_path / "mine.toml"
    path.write_text(TOML.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=why) as error:
        read_label_set(path)
    assert str(error.value).startswith("mine.toml: ") and str(tmp_path) not in str(error.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "big.toml").write_bytes(b" " * 1_000_001)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("big", "binary", "missing"):
        with pytest.raises(InputError, match=f"{name}.toml: "):
            read_label_set(tmp_path / f"{name}.toml")


def test_a_document_is_named_by_its_origin():
    with pytest.raises(InputError, match=r"^labels: labels is missing"):
        parse_label_set({"id": "a", "title": "b", "kind": "findings"}, "labels")
