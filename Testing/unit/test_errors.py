import copy
import inspect
import pickle

import pytest

from FoundationSegLib import errors
from FoundationSegLib.errors import FoundationSegError, PromptError


def test_one_base_catches_everything():
    kinds = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    assert len(kinds) > 5
    assert all(issubclass(kind, FoundationSegError) for kind in kinds)


@pytest.mark.parametrize(
    ("place", "text"), [("segments[2].prompts[0].corners", "segments[2].prompts[0].corners: is odd"), ("", "is odd")]
)
def test_prompt_error_says_where(place, text):
    error = PromptError("is odd", place)
    assert (str(error), error.place) == (text, place)


@pytest.mark.parametrize("twin", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_prompt_error_keeps_its_place_in_a_copy(twin):
    error = twin(PromptError("is odd", "segments[0]"))
    assert (str(error), error.place) == ("segments[0]: is odd", "segments[0]")
