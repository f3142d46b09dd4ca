import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.class_lists import listed, name_key, words_of


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
