from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.catalog.label_sets import (
    classes_of,
    expand_classes,
    listed,
    name_key,
    read_class_list,
    words_of,
)
from FoundationSegLib.catalog.resource_files import resource_folder
from FoundationSegLib.errors import CardError, PromptError
from FoundationSegLib.prompts.capabilities import class_numbers, require_classes, require_understood
from FoundationSegLib.prompts.kinds import ClassPrompt, PointPrompt, SegmentPrompts

CARD = read_catalogue()["vista3d"]
CLICK = PointPrompt((0.0, 0.0, 0.0))
# configs/inference.json of NV-Segment-CT, as it stands there
EVERYTHING = sorted(set(range(1, 133)) - {2, 16, 18, 20, 21, 23, 24, 25, 26, 27, 128, 129, 130, 131, 132})
SUBCLASS = {2: [14, 5], 20: [28, 29, 30, 31, 32], 21: [*range(33, 57), *range(63, 98), 114, 120, 122]}


def numbers(found):
    return [one.number for one in found]


def test_the_list_is_that_of_the_bundle():
    known = classes_of(CARD)
    assert numbers(known.everything) == EVERYTHING
    assert {one.number: list(one.parts) for one in known.classes if one.parts} == SUBCLASS
    supported = set(range(1, 133)) - {16, 18, 129, 130, 131}
    assert {one.number for one in known.classes if not one.needs_points} == supported
    names = {1: "liver", 5: "right kidney", 14: "left kidney", 33: "vertebrae L5", 63: "left rib 1", 132: "airway"}
    assert {number: known.by_number[number].name for number in names} == names


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *[("liver", 1), (" Livers", 1), ("1", 1), ("kidney, left", 14), ("L kidney", 14), ("vertebrae_T4", 46)],
        *[("hepatic tumour", 26), ("liver tumour", 26), ("oesophagus", 11), ("ribs 3 left", 65), ("132", 132)],
    ],
)
def test_a_class_is_found_by_name_and_number(name, number):
    assert classes_of(CARD).find(name).number == number


@pytest.mark.parametrize(
    ("name", "hint"), [("livr", "'liver'"), ("16", "models show"), ("", "models show"), ("²", "has no class")]
)
def test_a_name_of_no_class_is_told_with_those_that_look_like_it(name, hint):
    with pytest.raises(PromptError, match=hint) as caught:
        classes_of(CARD).find(name, "classes[3]")
    assert caught.value.location == "classes[3]"


def test_names_become_the_classes_they_are_made_of_each_once():
    assert numbers(expand_classes(CARD, ["spleen", "Everything", "3"])) == [3, *(n for n in EVERYTHING if n != 3)]
    assert numbers(expand_classes(CARD, ["kidney", "left kidney", "lung"])) == [14, 5, *SUBCLASS[20]]
    assert numbers(expand_classes(CARD, ["21"])) == SUBCLASS[21]
    with pytest.raises(PromptError, match="without a point"):
        expand_classes(CARD, ["liver", "unlisted structure"])
    with pytest.raises(CardError, match="names no list"):
        expand_classes(read_catalogue()["voxtell"], ["liver"])


def test_the_classes_of_one_segment_are_one_set():
    asked = [ClassPrompt("right kidney"), ClassPrompt("kidney"), ClassPrompt("1")]
    assert class_numbers(classes_of(CARD), asked) == (5, 14, 1)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ((ClassPrompt("livr"),), "no class called"),
        ((ClassPrompt("everything"),), "many segments"),
        ((ClassPrompt("133"),), "without a point"),
        ((ClassPrompt("kidney"), CLICK), "one part of 'kidney': left kidney, right kidney"),
        ((CLICK, ClassPrompt("liver"), ClassPrompt("spleen")), "of one class"),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_place(prompts, message):
    with pytest.raises(PromptError, match=message) as caught:
        require_understood(CARD, SegmentPrompts("A", prompts), "segments[2]")
    last = max(n for n, prompt in enumerate(prompts) if isinstance(prompt, ClassPrompt))
    assert caught.value.location == f"segments[2].prompts[{last}].name"


@pytest.mark.parametrize(
    "prompts",
    [(ClassPrompt("kidney"), ClassPrompt("1")), (CLICK,), (ClassPrompt("133"), CLICK), (ClassPrompt("1"), CLICK)],
)
def test_what_goes_together_is_taken(prompts):
    require_classes(CARD, SegmentPrompts("A", prompts))


def test_a_model_without_a_list_takes_any_name():
    require_understood(replace(CARD, classes=""), SegmentPrompts("A", (ClassPrompt("livr"),)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "title is missing"),
        ("title =", "cannot be read"),
        ('title = "a"\nclasses = [{ number = 1, name = "x" }, { number = 1, name = "y" }]', "number stands twice"),
        ('title = "a"\nclasses = [{ number = 1, name = "x y" }, { number = 2, name = "Y X" }]', "name stands twice"),
        ('title = "a"\nclasses = [{ number = 1, name = "x", parts = [2] }]', "parts that are no classes"),
        ('title = "a"\nclasses = [{ number = 1, name = "-" }]', "no letters"),
        ('title = "a"\nclasses = [{ number = 1, name = "x", parts = [1] }]', "parts in parts"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path, text, message):
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CardError, match=message):
        read_class_list(path)


def test_a_list_that_is_not_there_is_told():
    with pytest.raises(CardError, match=r"nothing\.toml: cannot be read"):
        classes_of(replace(CARD, classes="nothing"))


def test_every_card_names_a_list_that_is_there():
    named = {card.classes for card in read_catalogue().values() if card.classes}
    assert named == {path.stem for path in resource_folder("ClassLists").glob("*.toml")} == {"vista3d"}


@pytest.mark.parametrize(
    "name", ["left kidney", "Kidney, left", "leftKidney", "LEFT_KIDNEYS", "the kidney of the left", "kidney L"]
)
def test_names_of_one_structure_have_one_key(name):
    assert name_key(name) == ("kidney", "left")
    assert name_key(name.replace("left", "").replace("Left", "").replace("LEFT", "").replace(" L", ""), "left") == (
        "kidney",
        "left",
    )


def test_spellings_are_one():
    assert name_key("liver tumour") == name_key("Liver Tumors")
    assert name_key("oesophagus") == name_key("esophagus")


def test_what_differs_differs():
    assert len({name_key(name) for name in ("rib 1", "rib 11", "left rib 1", "vertebrae L1", "vertebrae T1")}) == 5


@given(
    st.lists(st.sampled_from(["lung", "upper", "lobe", "L4", "ribs"]), min_size=1).flatmap(
        lambda words: st.tuples(st.just(words), st.permutations(words))
    )
)
def test_order_and_case_do_not_matter(pair):
    words, shuffled = pair
    assert name_key(" ".join(words)) == name_key("_".join(shuffled).upper())
    assert sorted(words_of(" ".join(words))) == list(name_key(" ".join(words)))


def test_a_list_of_names_fits_on_a_line():
    assert listed([]) == "" and listed([3, "Liver"]) == "3, Liver"
    assert listed(range(20)).endswith("18, 19") and listed(range(21)).endswith("18, 19, ...")
    assert listed(["x" * 41]) == "x" * 40 + "…"
