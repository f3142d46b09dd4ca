from dataclasses import replace

import pytest
import slicer
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.masks import mask_key, pack_mask
from FoundationSegLib.mrml import segment_tags
from FoundationSegLib.prompts import kinds
from Testing.mrml.random_geometries import geometries, masks

_numbers = st.floats(-1e4, 1e4)
_vectors = st.tuples(_numbers, _numbers, _numbers)
_polarities = st.sampled_from(kinds.Polarity)
_oblique = st.builds(kinds.ObliquePlane, _vectors, st.just((0.6, 0.0, 0.8)), st.just((0.0, 1.0, 0.0)))
_planes = st.sampled_from([None, "i", "j", "k"]) | _oblique
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


def _strokes(least):
    return st.lists(_vectors, min_size=least, max_size=9).map(tuple)


@st.composite
def _masks(draw):
    voxels = pack_mask(masks(draw(geometries()), draw(st.integers(0, 99)))) if draw(st.booleans()) else None
    return kinds.MaskPrompt(draw(_texts), draw(_texts), draw(_polarities), voxels)


PROMPTS = st.one_of(
    st.builds(kinds.PointPrompt, _vectors, _polarities, _planes),
    st.builds(kinds.BoxPrompt, st.tuples(_vectors, _vectors), _polarities, _planes),
    st.builds(kinds.ScribblePrompt, _strokes(1), st.none() | st.floats(1e-3, 99), _polarities, _planes),
    st.builds(kinds.LassoPrompt, _strokes(3), _polarities, _planes),
    _masks(),
    st.builds(kinds.TextPrompt, _texts, _polarities),
    st.builds(kinds.ClassPrompt, _texts, _polarities),
)
_settings = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | _numbers | st.text(), max_size=4)


_STEPS = '{"version":1,"steps":[{"step":"seed","mask":"a1","reason":"hand","touched":"b2"}],"result":"0"}'


@st.composite
def records(draw):
    prompts = draw(st.lists(PROMPTS, max_size=6))
    keys = draw(st.lists(_texts, min_size=len(prompts), max_size=len(prompts), unique=True))
    kept = tuple(segment_tags.KeptPrompt(key, prompt) for key, prompt in zip(keys, prompts, strict=True))
    record = segment_tags.PromptRecord(kept, draw(st.text()), draw(_settings))
    if draw(st.booleans()):
        return record
    return replace(record, steps=_STEPS, masks={"a1": '{"bits":"A"}', "b2": '{"bits":"B|"}'})


def tag_names(segment, record):
    """The tags of the masks that a record may refer to."""
    voxels = [kept.prompt.voxels for kept in record.prompts if isinstance(kept.prompt, kinds.MaskPrompt)]
    keys = {mask_key(mask) for mask in voxels if mask is not None} | set(record.masks)
    return {key for key in keys if segment.HasTag(segment_tags.MASK_TAG + key)}


@given(st.lists(records(), min_size=1, max_size=4))
def test_a_segment_keeps_a_record(following):
    segment, tags = slicer.vtkSegment(), segment_tags.RecordTags()
    for record in following:
        tags.write(segment, record)
        assert segment_tags.read_record(segment) == record
    text = segment_tags.record_text(segment)
    segment_tags.RecordTags().write(segment, record)
    assert segment_tags.record_text(segment) == text, "the same, whatever was written before"
    tags.write(segment, segment_tags.PromptRecord())
    assert (
        not segment.HasTag(segment_tags.RECORD_TAG) and segment_tags.read_record(segment) == segment_tags.PromptRecord()
    )
    assert not any(tag_names(segment, record) for record in following), "no mask is left behind"


def test_a_mask_is_written_once_and_goes_with_its_record():
    segment, tags = slicer.vtkSegment(), segment_tags.RecordTags()
    record = segment_tags.PromptRecord((), "", {}, _STEPS, {"a1": '{"bits":"A"}', "b2": '{"bits":"B"}'})
    tags.write(segment, record)
    segment.SetTag(segment_tags.MASK_TAG + "a1", "touched")
    tags.write(segment, replace(record, model="other"))
    assert segment_tags.read_tag(segment, segment_tags.MASK_TAG + "a1") == "touched"
    segment.RemoveTag(segment_tags.MASK_TAG + "b2")  # as Slicer's undo does, which puts tags back
    tags.write(segment, record)
    assert segment_tags.read_tag(segment, segment_tags.MASK_TAG + "b2") == '{"bits":"B"}'
    again = segment_tags.RecordTags()
    again.read(segment)
    again.write(segment, segment_tags.PromptRecord((segment_tags.KeptPrompt("1", kinds.TextPrompt("liver")),)))
    assert not segment.HasTag(segment_tags.MASK_TAG + "a1") and not segment.HasTag(segment_tags.MASK_TAG + "b2")


@given(records(), st.data())
def test_a_damaged_record_is_told_and_set_aside(record, data):
    segment = slicer.vtkSegment()
    segment_tags.RecordTags().write(segment, replace(record, model="model"))
    text = segment_tags.record_text(segment)[: data.draw(st.integers(0, len(segment_tags.record_text(segment)) - 1))]
    segment_tags.write_tag(segment, segment_tags.RECORD_TAG, text)
    tags, masks = segment_tags.RecordTags(), tag_names(segment, record)
    with pytest.raises(PromptError):
        tags.read(segment)
    tags.write(segment, segment_tags.PromptRecord((), "new"))
    assert segment_tags.read_tag(segment, segment_tags.UNREAD_TAG) == text and segment_tags.read_record(
        segment
    ) == segment_tags.PromptRecord((), "new")
    assert tag_names(segment, record) == masks, "its masks are no rubbish"
    tags.write(segment, segment_tags.PromptRecord((), "newer"))
    assert not segment.HasTag(segment_tags.UNREAD_TAG + ".2")


def test_several_are_set_aside():
    segment = slicer.vtkSegment()
    for text in ("one", "two", "two"):
        segment_tags.write_tag(segment, segment_tags.RECORD_TAG, text)
        tags = segment_tags.RecordTags()
        with pytest.raises(PromptError):
            tags.read(segment)
        tags.write(segment, segment_tags.PromptRecord((), "new"))
    assert [segment_tags.read_tag(segment, segment_tags.UNREAD_TAG + end) for end in ("", ".2", ".3")] == [
        "one",
        "two",
        None,
    ]


OTHERS = [
    "[]",
    "{}",
    '{"version":1}',
    "null",
    '{"version":1,"prompts":[1],"model":""}',
    '{"version":1,"model":"","settings":{},"prompts":[],"steps":[1]}',
    '{"version":1,"model":"","settings":{},"prompts":[{"key":"1","voxels":"ff","prompt":{"type":"mask","file":"a",'
    '"segment":"A"}}]}',
]


@pytest.mark.parametrize("text", OTHERS)
def test_other_json_is_told(text):
    segment = slicer.vtkSegment()
    segment_tags.write_tag(segment, segment_tags.RECORD_TAG, text)
    with pytest.raises(PromptError, match="damaged"):
        segment_tags.read_record(segment)


def test_a_later_version_is_told_and_set_aside():
    segment, tags = slicer.vtkSegment(), segment_tags.RecordTags()
    tags.write(segment, segment_tags.PromptRecord((), "model"))
    later = segment_tags.record_text(segment).replace('"version":1', '"version":2')
    segment_tags.write_tag(segment, segment_tags.RECORD_TAG, later)
    with pytest.raises(PromptError, match="later version"):
        tags.read(segment)
    assert segment_tags.record_text(segment) == later, "looking changes nothing"
    tags.write(segment, segment_tags.PromptRecord((), "mine"))
    assert segment_tags.read_tag(segment, segment_tags.UNREAD_TAG) == later


def test_keys_are_unique():
    kept = segment_tags.KeptPrompt("1", kinds.PointPrompt((0.0, 0.0, 0.0)))
    with pytest.raises(PromptError, match="same key"):
        segment_tags.PromptRecord((kept, kept))


def test_changing_a_record():
    one, other = kinds.PointPrompt((0.0, 0.0, 0.0)), kinds.PointPrompt((1.0, 0.0, 0.0))
    record = segment_tags.PromptRecord((segment_tags.KeptPrompt("a", one), segment_tags.KeptPrompt("b", one)), "m")
    assert [kept.prompt for kept in record.changed("b", other).prompts] == [one, other]
    assert record.changed("a", None) == segment_tags.PromptRecord((segment_tags.KeptPrompt("b", one),), "m")
    assert record.changed("c", None) == record.changed("c", other) == record
    assert record.prompt("a") == one and record.prompt("c") is None
