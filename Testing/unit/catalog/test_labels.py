import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.label_sets import MOST_LABELS, Label, LabelSet, label_set_of
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
