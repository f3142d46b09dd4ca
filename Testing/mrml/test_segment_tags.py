import json

import pytest
import slicer
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError
from FoundationSegLib.mrml.segment_tags import (
    PROVENANCE,
    is_locked,
    lock,
    provenance,
    read_tag,
    set_provenance,
    write_tag,
)

PROMPTS = {"version": 1, "segments": [{"name": "a|b:c", "prompts": [{"type": "text", "text": 'x\ny\\n "~^%41"'}]}]}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_and_fits_slicers_separators(text):
    segment = slicer.vtkSegment()
    write_tag(segment, "Any", text)
    assert read_tag(segment, "Any") == text
    import vtk

    raw = vtk.reference("")
    segment.GetTag("Any", raw)
    assert str(raw).isascii()
    assert not set(str(raw)) & set("|\\\n\r\0")


def test_json_stays_readable():
    segment = slicer.vtkSegment()
    text = json.dumps({"corners": [[1.5, -2, 3]], "type": "box"})
    segment.SetTag("Plain", text)
    write_tag(segment, "Ours", text)
    assert read_tag(segment, "Plain") == read_tag(segment, "Ours") == text


def test_a_tag_that_is_not_there():
    assert read_tag(slicer.vtkSegment(), "None") is None


def test_provenance_comes_back():
    segment = slicer.vtkSegment()
    assert provenance(segment) == {}
    whole = dict.fromkeys(PROVENANCE, "") | {"Model": "lite-medsam", "Prompts": json.dumps(PROMPTS)}
    set_provenance(segment, whole)
    assert provenance(segment) == whole
    assert json.loads(provenance(segment)["Prompts"]) == PROMPTS


def test_new_provenance_replaces_the_old_one_and_nothing_else():
    segment = slicer.vtkSegment()
    lock(segment)
    set_provenance(segment, {"Model": "a", "Revision": "b"})
    set_provenance(segment, {"Model": "c"})
    assert provenance(segment) == {"Model": "c"}
    assert is_locked(segment)
    assert segment.GetTerminology()


def test_unknown_provenance_is_refused():
    segment = slicer.vtkSegment()
    with pytest.raises(InputError, match="Patient"):
        set_provenance(segment, {"Model": "a", "Patient": "b"})
    assert provenance(segment) == {}


def test_locking():
    segment = slicer.vtkSegment()
    assert not is_locked(segment)
    lock(segment)
    assert is_locked(segment)
    lock(segment, False)
    assert not is_locked(segment)
