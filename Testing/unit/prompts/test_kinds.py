from typing import get_args

import pytest

from FoundationSegLib.catalog.model_cards import PromptKind
from FoundationSegLib.prompts.kinds import PROMPT_TYPES, Polarity, Prompt
from Testing.unit.strategies import ONE_OF_EACH


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_every_kind_knows_its_name_and_is_positive_unless_said(kind):
    prompt = ONE_OF_EACH[kind]
    assert prompt.kind == kind
    assert prompt.polarity is Polarity.POSITIVE


def test_the_names_cover_every_kind():
    assert set(PROMPT_TYPES) == set(get_args(PromptKind)) == set(ONE_OF_EACH)
    assert set(PROMPT_TYPES.values()) == set(get_args(Prompt))
