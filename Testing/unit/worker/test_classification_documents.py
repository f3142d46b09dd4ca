import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.core.aggregation import Aggregation
from FoundationSegLib.core.classify_request import ClassifyRequest, EvidenceWish, Subject
from FoundationSegLib.core.errors import GeometryError
from FoundationSegLib.core.geometry import Box
from FoundationSegLib.core.label_sets import label_set_folder, read_label_sets
from FoundationSegLib.core.labels import label_set_of
from FoundationSegLib.core.mask import pack_mask
from FoundationSegLib.core.scoring import Scoring
from FoundationSegLib.worker.classification_documents import (
    classification_from_frame,
    classification_to_frame,
    classify_from_frame,
    classify_to_frame,
)
from FoundationSegLib.worker.frames import Frame
from FoundationSegLib.worker.messages import Classified
from FoundationSegLib.worker.work import Work
from Testing.unit.core.classification_cases import answer

SETS = read_label_sets(label_set_folder())
MASK = np.random.default_rng(0).random((3, 5, 7)) > 0.4


def crossed(frame):
    """A frame on the other side: its header has been text, its payload is bytes of its own."""
    return Frame(json.loads(json.dumps(frame.header)), bytearray(frame.payload))


SUBJECTS = st.one_of(
    st.builds(Subject, st.sampled_from("ijk"), st.none() | st.integers(0, 3), st.none() | st.integers(4, 9)),
    st.just(Subject(box=Box((1, 2, 3), (4, 5, 6)))),
    st.just(Subject("j", segment=pack_mask(MASK, (4, 0, 2)), view="mask", margin=0.5)),
)


@given(
    st.sampled_from(sorted(SETS)),
    SUBJECTS,
    st.builds(Scoring, st.sampled_from(["auto", "pairs", "concepts"]), st.floats(0.5, 2), st.floats(0, 1)),
    st.builds(Aggregation, st.sampled_from(["mean", "max", "top-k"]), st.integers(1, 9)),
    st.none() | st.builds(EvidenceWish, st.sampled_from(["", "Liver"]), st.sampled_from(["similarity", "occlusion"])),
)
def test_a_request_arrives_as_it_was(set_id, subject, scoring, aggregation, evidence):
    request = ClassifyRequest(3, "biomedclip", "key", SETS[set_id], subject, "ct-lung", scoring, aggregation, evidence)
    frame = crossed(classify_to_frame(request, 9))
    assert (frame.header["type"], frame.header["ticket"]) == ("classify", 9)
    assert classify_from_frame(frame) == request


def test_words_of_the_users_own_arrive():
    request = ClassifyRequest(1, "clip", "key", label_set_of(["a {} b", 'Grüße "so"', "肝臓"], "findings"))
    assert classify_from_frame(crossed(classify_to_frame(request, 1))) == request


def test_too_few_bits_are_no_segment():
    request = ClassifyRequest(1, "clip", "key", label_set_of(["a", "b"]), Subject(segment=pack_mask(MASK)))
    frame = crossed(classify_to_frame(request, 1))
    with pytest.raises(GeometryError):
        classify_from_frame(Frame(frame.header, frame.payload[:-1]))


def test_an_answer_arrives_as_it_was():
    sent = answer()
    got = classification_from_frame(crossed(classification_to_frame(sent, 5)))
    assert np.array_equal(got.curves, sent.curves, equal_nan=True)
    assert np.array_equal(got.evidence[0].values, sent.evidence[0].values)
    assert got.evidence[0].frame == sent.evidence[0].frame and got.evidence[0].slices == (2, 4)
    assert json.dumps(got.to_document()) == json.dumps(sent.to_document())
    assert (got.request_id, got.scores, got.concepts) == (sent.request_id, sent.scores, sent.concepts)


@pytest.mark.parametrize("cut", [-4, 4])
def test_numbers_too_few_or_too_many_are_no_answer(cut):
    frame = crossed(classification_to_frame(answer(), 5))
    payload = frame.payload[:cut] if cut < 0 else frame.payload + b"\0" * cut
    with pytest.raises(ValueError):
        classification_from_frame(Frame(frame.header, payload))


def asked(names=("Liver", "Spleen", "Kidney")):
    return ClassifyRequest(7, "biomedclip", "key", label_set_of(names))


def test_an_answer_has_to_be_one_to_the_question():
    frame = crossed(classification_to_frame(answer(), 5))
    extent = Box((0, 0, 0), (5, 8, 8))
    event = Work(asked(), 5, extent).answer(frame)
    assert isinstance(event, Classified) and event.request_id == 7
    with pytest.raises(ValueError, match="other labels"):
        Work(asked(("Liver", "Spleen")), 5, extent).answer(frame)
    with pytest.raises(GeometryError, match="outside"):
        Work(asked(), 5, Box((0, 0, 0), (4, 8, 8))).answer(frame)
    with pytest.raises(ValueError, match="other labels"):
        Work(replace(asked(), subject=Subject("j")), 5, extent).answer(frame)
