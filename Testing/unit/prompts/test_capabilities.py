from dataclasses import replace
from typing import get_args

import pytest

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.catalog.model_cards import PromptKind
from FoundationSegLib.errors import InputError, PromptError
from FoundationSegLib.prompts import capabilities
from FoundationSegLib.prompts.kinds import PROMPT_TYPES, ClassPrompt, Polarity, Prompt, SegmentPrompts, TextPrompt
from Testing.unit.fakes import fake_card
from Testing.unit.strategies import ONE_OF_EACH

CARD = fake_card(id="lite", title="Lite Model", prompts=["box", "point"], negative=["point"])


def failure(*prompts, card=CARD):
    """The error for a segment of these prompts, or None."""
    try:
        capabilities.require_understood(card, SegmentPrompts("Liver", prompts), "segments[1]")
    except PromptError as error:
        return error
    return None


@pytest.mark.parametrize("kind", PROMPT_TYPES)
def test_a_kind_is_understood_where_the_card_lists_it(kind):
    prompt = ONE_OF_EACH[kind]
    assert failure(prompt, card=replace(CARD, prompts=(kind,), negative=())) is None
    error = failure(ONE_OF_EACH["box"], prompt)
    if kind in CARD.prompts:
        assert error is None
    else:
        assert error.location == "segments[1].prompts[1].type"
        assert str(error).endswith("it understands: boxes, points")
        assert "Lite Model" in str(error)


def test_negative_is_understood_where_the_card_lists_it():
    point, box = (replace(ONE_OF_EACH[kind], polarity=Polarity.NEGATIVE) for kind in ("point", "box"))
    assert failure(point) is None
    error = failure(ONE_OF_EACH["box"], point, box)
    assert error.location == "segments[1].prompts[2].polarity"
    assert str(error).endswith("negative kinds it understands: points")
    assert str(failure(point, card=replace(CARD, negative=()))).endswith("negative kinds it understands: none")


def test_a_model_is_asked_what_it_is_for():
    capabilities.require_task(CARD, "segment")
    with pytest.raises(InputError, match="lite is a model to segment with, not to classify with"):
        capabilities.require_task(CARD, "classify")


VISTA3D, VOXTELL = (read_catalogue()[name] for name in ("vista3d", "voxtell"))


def test_each_class_and_each_text_is_a_segment_of_its_name():
    assert capabilities.segments_by_name(VISTA3D, ["Liver", "kidneys"], ["a cyst "]) == (
        SegmentPrompts("liver", (ClassPrompt("liver"),)),
        SegmentPrompts("left kidney", (ClassPrompt("left kidney"),)),
        SegmentPrompts("right kidney", (ClassPrompt("right kidney"),)),
        SegmentPrompts("a cyst", (TextPrompt("a cyst "),)),
    )
    assert len(capabilities.segments_by_name(VISTA3D, ["everything"])) == 117


def test_a_model_without_classes_takes_their_names_as_they_are():
    named = capabilities.segments_by_name(VOXTELL, ["liver", "12"])
    assert [one.prompts[0] for one in named] == [ClassPrompt("liver"), ClassPrompt("12")]


@pytest.mark.parametrize(
    ("card", "classes", "texts", "message"),
    [
        (VISTA3D, ["livr"], [], "no class called 'livr'"),
        (VISTA3D, ["liver"], ["liver"], "'liver' is asked for twice"),
        (VISTA3D, [], ["a", "a"], "'a' is asked for twice"),
        (VOXTELL, [], [" "], "is empty"),
        (VOXTELL, ["everything"], [], "name them one by one"),
    ],
)
def test_what_cannot_be_meant_is_told(card, classes, texts, message):
    with pytest.raises(PromptError, match=message):
        capabilities.segments_by_name(card, classes, texts)


def test_the_names_cover_every_kind():
    assert set(PROMPT_TYPES) == set(get_args(PromptKind)) == set(ONE_OF_EACH)
    assert set(PROMPT_TYPES.values()) == set(get_args(Prompt))
