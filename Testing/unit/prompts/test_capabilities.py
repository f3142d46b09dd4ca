from dataclasses import replace

import pytest

from FoundationSegLib.catalog.model_cards import CheckpointFile, License, ModelCard, Source
from FoundationSegLib.errors import InputError, PromptError
from FoundationSegLib.prompts.capabilities import require_task, require_understood
from FoundationSegLib.prompts.kinds import PROMPT_TYPES, Polarity, SegmentPrompts
from Testing.unit.strategies import ONE_OF_EACH

CARD = ModelCard(
    id="lite",
    title="Lite Model",
    task="segment",
    family="lite",
    prompts=("box", "point"),
    negative=("point",),
    dimensions=(2,),
    channels=(1,),
    source=Source("hub", "someone/lite", "1", (CheckpointFile("model.pth", 1),)),
    license=License("MIT", "yes"),
    good_at="-",
    bad_at="-",
    citation="-",
)


def failure(*prompts, card=CARD):
    """The error for a segment of these prompts, or None."""
    try:
        require_understood(card, SegmentPrompts("Liver", prompts), "segments[1]")
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
        assert error.place == "segments[1].prompts[1].type"
        assert str(error).endswith("it understands: boxes, points")
        assert "Lite Model" in str(error)


def test_negative_is_understood_where_the_card_lists_it():
    point, box = (replace(ONE_OF_EACH[kind], polarity=Polarity.NEGATIVE) for kind in ("point", "box"))
    assert failure(point) is None
    error = failure(ONE_OF_EACH["box"], point, box)
    assert error.place == "segments[1].prompts[2].polarity"
    assert str(error).endswith("negative kinds it understands: points")
    assert str(failure(point, card=replace(CARD, negative=()))).endswith("negative kinds it understands: none")


def test_a_model_is_asked_what_it_is_for():
    require_task(CARD, "segment")
    with pytest.raises(InputError, match="lite is a model to segment with, not to classify with"):
        require_task(CARD, "classify")
