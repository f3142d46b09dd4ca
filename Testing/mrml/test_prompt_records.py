"""Records of prompts in segment tags: exact on the way back, and damage is told."""

import pytest
import slicer
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.core.errors import PromptError
from FoundationSegLib.core.mask import pack_mask
from FoundationSegLib.core.prompts import (
    BoxPrompt,
    ClassPrompt,
    LassoPrompt,
    MaskPrompt,
    ObliquePlane,
    PointPrompt,
    Polarity,
    ScribblePrompt,
    TextPrompt,
)
from FoundationSegLib.mrml.prompt_records import (
    RECORD_TAG,
    KeptPrompt,
    PromptRecord,
    read_record,
    record_from_json,
    record_to_json,
    write_record,
)
from Testing.mrml.random_geometries import geometries, masks

_numbers = st.floats(-1e4, 1e4)
_vectors = st.tuples(_numbers, _numbers, _numbers)
_polarities = st.sampled_from(Polarity)
_oblique = st.builds(ObliquePlane, _vectors, st.just((0.6, 0.0, 0.8)), st.just((0.0, 1.0, 0.0)))
_planes = st.sampled_from([None, "i", "j", "k"]) | _oblique
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


def _strokes(least):
    return st.lists(_vectors, min_size=least, max_size=9).map(tuple)


@st.composite
def _masks(draw):
    voxels = pack_mask(masks(draw(geometries()), draw(st.integers(0, 99)))) if draw(st.booleans()) else None
    return MaskPrompt(draw(_texts), draw(_texts), draw(_polarities), voxels)


PROMPTS = st.one_of(
    st.builds(PointPrompt, _vectors, _polarities, _planes),
    st.builds(BoxPrompt, st.tuples(_vectors, _vectors), _polarities, _planes),
    st.builds(ScribblePrompt, _strokes(1), st.none() | st.floats(1e-3, 99), _polarities, _planes),
    st.builds(LassoPrompt, _strokes(3), _polarities, _planes),
    _masks(),
    st.builds(TextPrompt, _texts, _polarities),
    st.builds(ClassPrompt, _texts, _polarities),
)
_settings = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | _numbers | st.text(), max_size=4)


@st.composite
def records(draw):
    prompts = draw(st.lists(PROMPTS, max_size=6))
    keys = draw(st.lists(_texts, min_size=len(prompts), max_size=len(prompts), unique=True))
    kept = tuple(KeptPrompt(key, prompt) for key, prompt in zip(keys, prompts, strict=True))
    return PromptRecord(kept, draw(st.text()), draw(_settings))


@given(records())
def test_a_record_comes_back_exactly(record):
    assert record_from_json(record_to_json(record)) == record


@given(records())
def test_a_segment_keeps_a_record(record):
    segment = slicer.vtkSegment()
    write_record(segment, record)
    assert read_record(segment) == record
    write_record(segment, PromptRecord())
    assert not segment.HasTag(RECORD_TAG) and read_record(segment) == PromptRecord()


@given(records(), st.data())
def test_a_damaged_record_is_told(record, data):
    text = record_to_json(record)
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(PromptError):
        record_from_json(text[:cut])


@pytest.mark.parametrize("text", ["[]", "{}", '{"version":1}', "null", '{"version":1,"prompts":[1],"model":""}'])
def test_other_json_is_told(text):
    with pytest.raises(PromptError, match="damaged"):
        record_from_json(text)


def test_a_later_version_is_told():
    text = record_to_json(PromptRecord()).replace('"version":1', '"version":2')
    with pytest.raises(PromptError, match="later version"):
        record_from_json(text)


def test_keys_are_unique():
    kept = KeptPrompt("1", PointPrompt((0.0, 0.0, 0.0)))
    with pytest.raises(PromptError, match="same key"):
        PromptRecord((kept, kept))


def test_changing_a_record():
    one, other = PointPrompt((0.0, 0.0, 0.0)), PointPrompt((1.0, 0.0, 0.0))
    record = PromptRecord((KeptPrompt("a", one), KeptPrompt("b", one)), "m")
    assert [kept.prompt for kept in record.changed("b", other).prompts] == [one, other]
    assert record.changed("a", None) == PromptRecord((KeptPrompt("b", one),), "m")
    assert record.changed("c", None) == record.changed("c", other) == record
    assert record.prompt("a") == one and record.prompt("c") is None
