from typing import get_args

import pytest

from FoundationSegLib.core.prompts import (
    PROMPT_TYPES,
    BoxPrompt,
    ClassPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Polarity,
    Prompt,
    PromptKind,
    ScribblePrompt,
    TextPrompt,
    prompt_kind,
)

ORIGIN = (0.0, 0.0, 0.0)
ONE_OF_EACH = {
    "point": PointPrompt(ORIGIN),
    "box": BoxPrompt((ORIGIN, ORIGIN)),
    "scribble": ScribblePrompt((ORIGIN,)),
    "lasso": LassoPrompt((ORIGIN, ORIGIN, ORIGIN)),
    "mask": MaskPrompt("seed.seg.nrrd", "Liver"),
    "text": TextPrompt("liver"),
    "class": ClassPrompt("liver"),
}


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_every_kind_knows_its_name_and_is_positive_unless_said(kind):
    prompt = ONE_OF_EACH[kind]
    assert prompt_kind(prompt) == kind
    assert prompt.polarity is Polarity.POSITIVE


def test_the_names_cover_every_kind():
    assert set(PROMPT_TYPES) == set(get_args(PromptKind)) == set(ONE_OF_EACH)
    assert set(PROMPT_TYPES.values()) == set(get_args(Prompt))
