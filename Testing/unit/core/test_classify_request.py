import numpy as np
import pytest

from FoundationSegLib.core.classify_request import EvidenceWish, Subject
from FoundationSegLib.core.errors import InputError
from FoundationSegLib.core.geometry import EMPTY_BOX, Box
from FoundationSegLib.core.mask import EMPTY_MASK, pack_mask

BOX = Box((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"start": 3, "stop": 3}, "no slice from 3 to before 3"),
        ({"start": -1}, "no slice"),
        ({"stop": 0}, "no slice from 0 to before 0"),
        ({"box": EMPTY_BOX}, "region to classify is empty"),
        ({"segment": EMPTY_MASK}, "segment to classify is empty"),
        ({"box": BOX, "segment": pack_mask(np.ones((1, 1, 1)))}, "not both"),
        ({"margin": -0.1}, "margin"),
        ({"margin": float("inf")}, "margin"),
    ],
)
def test_subjects_that_are_nothing_are_refused(fields, why):
    with pytest.raises(InputError, match=why):
        Subject(**fields)


@pytest.mark.parametrize("fields", [{"slices": -1}, {"parts": 1}, {"parts": 65}])
def test_evidence_in_impossible_numbers_is_refused(fields):
    with pytest.raises(InputError, match="evidence needs"):
        EvidenceWish(**fields)
