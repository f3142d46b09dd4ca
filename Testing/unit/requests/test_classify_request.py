import numpy as np
import pytest

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import EMPTY_BOX, Box, geometry_from_spacing
from FoundationSegLib.imaging.masks import EMPTY_MASK, pack_mask
from FoundationSegLib.requests.classification import EvidenceWish, Subject, slices_of

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


def test_the_slices_of_a_subject_are_those_that_it_is_on():
    geometry = geometry_from_spacing((4, 6, 8), (1.0, 1.0, 1.0))
    assert slices_of(Subject("j", 4), geometry) == (4, 5)
    assert slices_of(Subject("k", box=Box((1, 1, 2), (3, 5, 4))), geometry) == (1, 2)
    mask = np.zeros((4, 6, 8), bool)
    mask[1, 2, 3] = mask[3, 2, 3] = True
    assert slices_of(Subject(segment=pack_mask(mask)), geometry) == (1, 3)
    for subject in (
        Subject(stop=5),
        Subject("k", box=Box((1, 1, 2), (3, 5, 9))),
        Subject("k", 2, 3, Box((0, 0, 0), (1, 1, 1))),
    ):
        with pytest.raises(InputError):
            slices_of(subject, geometry)
