from dataclasses import replace

import pytest

from FoundationSegLib.core.capabilities import require_understood
from FoundationSegLib.core.cards import CheckpointFile, License, ModelCard, Source
from FoundationSegLib.core.errors import PromptError
from FoundationSegLib.core.prompts import (
    PROMPT_TYPES,
    BoxPrompt,
    ClassPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Polarity,
    ScribblePrompt,
    SegmentPrompts,
    TextPrompt,
)

ORIGIN = (0.0, 0.0, 0.0)
PROMPTS = {
    "point": PointPrompt(ORIGIN),
    "box": BoxPrompt((ORIGIN, ORIGIN)),
    "scribble": ScribblePrompt((ORIGIN,)),
    "lasso": LassoPrompt((ORIGIN, ORIGIN, ORIGIN)),
    "mask": MaskPrompt("seed.seg.nrrd", "Liver"),
    "text": TextPrompt("liver"),
    "class": ClassPrompt("liver"),
}
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
    prompt = PROMPTS[kind]
    assert failure(prompt, card=replace(CARD, prompts=(kind,), negative=())) is None
    error = failure(PROMPTS["box"], prompt)
    if kind in CARD.prompts:
        assert error is None
    else:
        assert error.place == "segments[1].prompts[1].type"
        assert str(error).endswith("it understands: boxes, points")
        assert "Lite Model" in str(error)


def test_negative_is_understood_where_the_card_lists_it():
    point, box = (replace(PROMPTS[kind], polarity=Polarity.NEGATIVE) for kind in ("point", "box"))
    assert failure(point) is None
    error = failure(PROMPTS["box"], point, box)
    assert error.place == "segments[1].prompts[2].polarity"
    assert str(error).endswith("negative kinds it understands: points")
    assert str(failure(point, card=replace(CARD, negative=()))).endswith("negative kinds it understands: none")
