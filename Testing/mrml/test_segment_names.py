import json
from dataclasses import replace

import pytest

from FoundationSegLib.catalog.label_sets import Label, TermCode, label_set_folder, read_label_sets
from FoundationSegLib.errors import InputError
from FoundationSegLib.mrml import segment_tags
from FoundationSegLib.mrml.classification import NAMED_BY, accept_label, identity, label_term, take_back
from FoundationSegLib.mrml.segment_tags import find_term
from FoundationSegLib.requests.classification_answer import RESEARCH_USE
from Testing.unit.requests.classification_cases import answer

ORGANS = read_label_sets(label_set_folder())["ct-abdomen-organs"]


@pytest.fixture
def segment(writer):
    return writer.segment(writer.add_segment("Segment_1"))


def test_a_label_that_is_accepted_gives_name_terminology_and_colour(segment):
    accept_label(segment, ORGANS.label("Spleen"), answer())
    assert segment.GetName() == "Spleen"
    assert segment.GetTerminology() == find_term("spleen").serialized
    assert segment.GetColor() == pytest.approx(find_term("spleen").colour)
    told = json.loads(segment_tags.read_tag(segment, NAMED_BY))
    assert (told["label"], told["score"], told["research_use"]) == ("Spleen", 0.6, RESEARCH_USE)
    assert told["model"]["revision"] == "abc123"


def test_it_can_be_taken_back(segment):
    before = identity(segment)
    assert accept_label(segment, ORGANS.label("Spleen"), answer()) == before
    between = accept_label(segment, ORGANS.label("Liver"), answer())
    take_back(segment, between)
    assert segment.GetName() == "Spleen" and json.loads(segment_tags.read_tag(segment, NAMED_BY))["label"] == "Spleen"
    take_back(segment, before)
    assert identity(segment) == before and segment_tags.read_tag(segment, NAMED_BY) is None


def test_a_label_without_a_code_gives_its_name_alone(segment):
    before = identity(segment)
    named = answer(scores=tuple(replace(one, name=f"my {one.name}") for one in answer().scores))
    accept_label(segment, Label("my Liver"), named)
    assert segment.GetName() == "my Liver" and segment.GetTerminology() == before.terminology


def test_codes_of_labels_become_terms_where_they_are_of_segments():
    assert label_term(ORGANS.label("Left kidney")).modifier.meaning == "Left"
    code = TermCode("SCT", "68496003", "Polyp of colon")
    term = label_term(Label("Polyp X", category="finding", code=code))
    assert "SCT^49755003^Morphologically Altered Structure~SCT^68496003^Polyp of colon" in term.serialized
    assert label_term(Label("Polyp X", code=code)) is None
    assert label_term(Label("CT", category="structure", code=TermCode("DCM", "CT", "Computed Tomography"))) is None
    for label in ORGANS.labels:
        term = label_term(label)
        assert term is not None and term.type.value == label.code.value, label.name


def test_locked_segments_and_labels_that_were_not_asked_for_are_left_alone(segment):
    with pytest.raises(InputError, match="was not asked about 'Aorta'"):
        accept_label(segment, ORGANS.label("Aorta"), answer())
    segment_tags.lock(segment)
    with pytest.raises(InputError, match="locked"):
        accept_label(segment, ORGANS.label("Spleen"), answer())
    assert segment.GetName() == "Segment_1"
