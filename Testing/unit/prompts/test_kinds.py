from typing import get_args

from FoundationSegLib.catalog.model_cards import PromptKind
from FoundationSegLib.prompts.kinds import PROMPT_TYPES, Prompt
from Testing.unit.strategies import ONE_OF_EACH


def test_the_names_cover_every_kind():
    assert set(PROMPT_TYPES) == set(get_args(PromptKind)) == set(ONE_OF_EACH)
    assert set(PROMPT_TYPES.values()) == set(get_args(Prompt))
