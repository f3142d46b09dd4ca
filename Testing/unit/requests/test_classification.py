import json
from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.errors import InputError
from FoundationSegLib.requests.classification_answer import NONE_OF_THESE, RESEARCH_USE
from Testing.unit.requests.classification_cases import answer


def test_labels_are_ranked_and_equal_ones_keep_their_order():
    assert [one.name for one in answer().ranked] == ["Spleen", "Liver", "Kidney"]
    even = tuple(replace(one, score=0.5) for one in answer().scores)
    assert [one.name for one in answer(scores=even).ranked] == ["Liver", "Spleen", "Kidney"]


def test_the_verdict_is_what_stands_out_or_none_of_these():
    assert answer().verdict == ("Spleen",)
    none = tuple(replace(one, stands_out=False) for one in answer().scores)
    assert answer(scores=none).verdict == ()
    assert answer(scores=none).to_document()["verdict"] == NONE_OF_THESE


def test_the_report_is_json_and_says_what_it_is_for():
    document = json.loads(json.dumps(answer().to_document(), allow_nan=False))
    assert document["research_use"] == RESEARCH_USE
    assert "not a diagnosis" in RESEARCH_USE and "not calibrated probabilities" in RESEARCH_USE
    assert [one["name"] for one in document["labels"]] == ["Spleen", "Liver", "Kidney"]
    assert document["curves"]["Spleen"] == [pytest.approx(0.7), None, 0.5]
    assert document["aggregation"] == "top-2"
    assert document["model"]["revision"] == "abc123"
    assert document["scoring"] == {"rule": "softmax", "temperature": 1.0, "margin": 0.1}


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="do not fit"):
        answer(slices=(1, 2))
    with pytest.raises(InputError, match="not a number"):
        answer(scores=(replace(answer().scores[0], score=float("nan")), *answer().scores[1:]))


def test_what_was_scored_against_each_other():
    assert answer().is_exclusive and answer(rule="concepts").is_exclusive
    assert not answer(rule="pairs").is_exclusive
    assert np.isnan(answer().curves[1]).all()
