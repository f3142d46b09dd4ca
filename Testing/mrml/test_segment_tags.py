import json
import os
import tomllib
from pathlib import Path

import pytest
import slicer
import vtk
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.label_sets import read_class_list
from FoundationSegLib.catalog.resource_files import resource_folder
from FoundationSegLib.errors import InputError
from FoundationSegLib.mrml.segment_tags import (
    PROVENANCE,
    is_locked,
    lock,
    provenance,
    read_tag,
    set_provenance,
    tagged_at_once,
    write_tag,
)
from FoundationSegLib.mrml.terminology import find_term, generic_colour

PROMPTS = {"version": 1, "segments": [{"name": "a|b:c", "prompts": [{"type": "text", "text": 'x\ny\\n "~^%41"'}]}]}
TABLE = tomllib.loads((Path(__file__).parents[2] / "Resources" / "Terminology.toml").read_text(encoding="utf-8"))
TERMS = TABLE["terms"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_and_fits_slicers_separators(text):
    segment, raw = slicer.vtkSegment(), vtk.reference("")
    write_tag(segment, "Any", text)
    assert read_tag(segment, "Any") == text and read_tag(segment, "None") is None
    segment.GetTag("Any", raw)
    assert str(raw).isascii() and not set(str(raw)) & set("|\\\n\r\0")


def test_json_stays_readable():
    segment = slicer.vtkSegment()
    text = json.dumps({"corners": [[1.5, -2, 3]], "type": "box"})
    segment.SetTag("Plain", text)
    write_tag(segment, "Ours", text)
    assert read_tag(segment, "Plain") == read_tag(segment, "Ours") == text


def test_provenance_comes_back():
    segment = slicer.vtkSegment()
    assert provenance(segment) == {}
    whole = dict.fromkeys(PROVENANCE, "") | {"Model": "lite-medsam", "Prompts": json.dumps(PROMPTS)}
    set_provenance(segment, whole)
    assert provenance(segment) == whole and json.loads(provenance(segment)["Prompts"]) == PROMPTS


def test_tags_become_one_event_that_names_the_segment(writer, segmentation_node):
    segment_id, seen = writer.add_segment("Liver"), []
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    look = vtk.calldata_type(vtk.VTK_STRING)(lambda *event: seen.append(event[2]))
    segmentation_node.AddObserver(slicer.vtkSegmentation.SegmentModified, look)
    for _again in range(2):
        with tagged_at_once(segment) as draft:
            set_provenance(draft, {"Model": "a", "Revision": "b"})
    assert seen == [segment_id] and provenance(segment) == {"Model": "a", "Revision": "b"}


def test_new_provenance_replaces_the_old_one_and_nothing_else():
    segment = slicer.vtkSegment()
    lock(segment)
    set_provenance(segment, {"Model": "a", "Revision": "b"})
    set_provenance(segment, {"Model": "c"})
    assert provenance(segment) == {"Model": "c"} and is_locked(segment)
    with pytest.raises(InputError, match="Patient"):
        set_provenance(segment, {"Model": "a", "Patient": "b"})
    assert provenance(segment) == {"Model": "c"}
    lock(segment, False)
    assert not is_locked(segment)


HAND, WORDS = [{"type": "box"}, {"type": "text"}], [{"type": "text"}, {"type": "class"}]


@pytest.mark.parametrize(
    ("prompts", "algorithm"),
    [
        (HAND, "SEMIAUTOMATIC"),
        (WORDS, "AUTOMATIC"),
        ([], "AUTOMATIC"),
        ({"segments": [{"prompts": HAND}]}, "SEMIAUTOMATIC"),
        ({"segments": [{"prompts": WORDS}]}, "AUTOMATIC"),
        ({"label": "nodule", "method": "occlusion"}, "AUTOMATIC"),
    ],
)
def test_the_export_to_dicom_learns_the_algorithm(prompts, algorithm):
    segment = slicer.vtkSegment()
    segment.SetTerminology("")
    revision = "0123456789abcdef" * 3
    set_provenance(segment, {"Model": "m", "Revision": revision, "Version": "1.2", "Prompts": json.dumps(prompts)})
    assert read_tag(segment, "DICOM.SegmentAlgorithmType") == algorithm
    assert read_tag(segment, "DICOM.SegmentAlgorithmName") == "m 0123456789ab (FoundationSeg 1.2)"
    entry = slicer.vtkSlicerTerminologyEntry()
    assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(segment.GetTerminology(), entry)
    assert entry.GetTypeObject().GetCodeMeaning() == "Tissue"
    set_provenance(segment, {})
    assert read_tag(segment, "DICOM.SegmentAlgorithmType") is read_tag(segment, "DICOM.SegmentAlgorithmName") is None


def test_the_algorithm_of_others_stays_until_a_model_writes():
    segment = slicer.vtkSegment()
    segment.SetTag("DICOM.SegmentAlgorithmType", "MANUAL")
    set_provenance(segment, {})
    assert read_tag(segment, "DICOM.SegmentAlgorithmType") == "MANUAL"
    set_provenance(segment, {"Model": "x" * 99, "Prompts": json.dumps(HAND)})
    assert read_tag(segment, "DICOM.SegmentAlgorithmType") == "SEMIAUTOMATIC"
    assert read_tag(segment, "DICOM.SegmentAlgorithmName") == "x" * 64, "the longest that DICOM has room for"


NAMES = (
    "liver=Liver;Liver=Liver; LIVER_=Liver;Left kidney=Kidney/Left;left_kidney=Kidney/Left;kidney_left=Kidney/Left;"
    "Kidney L=Kidney/Left;RightKidney=Kidney/Right;kidneys=Kidney;lung_upper_lobe_right=Upper lobe of lung/Right;"
    "middle lobe of the right lung=Middle lobe of right lung;Left Ventricle=Left Ventricle;"
    "heart_ventricle_right=Right Ventricle;lateral ventricle (left)=Lateral ventricle/Left;"
    "inferior_vena_cava=Inferior vena cava;tumour=Neoplasm;left lung upper lobe=Upper lobe of lung/Left;"
    "vertebrae L4=Vertebra;left rib 12=Rib/Left;right iliac vena=Common iliac vein/Right;left kidney cyst=Cyst;"
    "lung nodule=Nodule;mass=Mass;Lesion=Lesion;liver lesions=Lesion;metastases=Neoplasm, Secondary;"
    "Lymph nodes=Lymph node;parotid gland left=Parotid gland/Left;scapula_right=Scapula/Right;"
)


@pytest.mark.parametrize("entry", NAMES.rstrip(";").split(";"))
def test_names_people_use(entry):
    name, _, term = entry.partition("=")
    meaning, _, side = term.partition("/")
    found = find_term(name)
    assert (found.type.meaning, found.modifier and found.modifier.meaning) == (meaning, side or None)


@pytest.mark.parametrize("name", ["", "Segment_1", "liver segment 4", "aorta left", "left", "not a liver", "L4", "キ"])
def test_other_names_are_not_guessed_at(name):
    assert find_term(name) is None


def test_the_classes_of_models_have_terms_with_their_sides():
    """But for those that Slicer has no code for."""
    listed = read_class_list(resource_folder("ClassLists") / "vista3d.toml").classes
    terms = {entry.name: find_term(entry.name) for entry in listed}
    assert [name for name, term in terms.items() if term is None] == ["unlisted structure"]
    for name, term in terms.items():
        side = name.split()[0].capitalize()
        paired = any(entry.get("paired") and entry["code"] == term.type.value for entry in TERMS) if term else False
        if paired and side in ("Left", "Right"):
            assert term.modifier.meaning == side, name


def test_slicer_reads_what_we_serialise():
    logic = slicer.vtkSlicerTerminologiesModuleLogic
    for entry in TERMS:
        term = find_term(f"{entry['name']} left" if entry.get("paired") else entry["name"])
        read = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(term.serialized, read)
        assert logic.SerializeTerminologyEntry(read) == term.serialized
        assert read.GetTerminologyContextName() == term.context
        assert read.GetCategoryObject().GetCodeValue() == term.category.value
        assert read.GetTypeObject().GetCodeMeaning() == entry["name"]
        assert (read.GetTypeModifierObject().GetCodeMeaning() or None) == ("Left" if entry.get("paired") else None)


def test_the_form_is_that_of_a_new_segment():
    ours, slicers = find_term("liver").serialized, slicer.vtkSegment().GetTerminology()
    assert ours.split("~")[4:] == slicers.split("~")[4:] and ours.split("~")[0] == slicers.split("~")[0]


def test_every_name_and_alias_finds_its_own_entry():
    for entry in TERMS:
        for name in (entry["name"], *entry.get("aliases", ())):
            assert find_term(name).type.value == entry["code"], name


def test_the_table_is_consistent():
    allowed = {"name", "code", "category", "context", "paired", "rgb", "aliases", "own"}
    assert all(set(entry) <= allowed for entry in TERMS)
    assert len({entry["code"] for entry in TERMS}) == len(TERMS) > 40
    assert all(entry["code"].isdigit() for entry in TERMS)
    assert all(
        len(entry["rgb"]) == 3 and 0 <= min(entry["rgb"]) <= max(entry["rgb"]) <= 255
        for entry in TERMS
        if "rgb" in entry
    )


def slicer_list(name):
    """One of Slicer's lists, from the sources that SLICER_PYTHON_SOURCE (their Base/Python) belongs to."""
    folder = os.environ.get("SLICER_PYTHON_SOURCE")
    lists = Path(folder or "").resolve().parents[1] / "Modules" / "Loadable" / "Terminologies" / "Resources"
    path = lists / f"SegmentationCategoryTypeModifier-{name}.json"
    if not folder or not path.is_file():
        pytest.skip("SLICER_PYTHON_SOURCE does not name Base/Python of Slicer's sources")
    return json.loads(path.read_text(encoding="utf-8"))


def is_slicers(entry, codes):
    """True where one type of Slicer's list has the same category, code, meaning, sides and colour."""
    category = TABLE["categories"][entry.get("category", "structure")]
    types = [
        kind
        for group in codes["SegmentationCodes"]["Category"]
        if (group["CodeValue"], group["CodeMeaning"]) == (category["code"], category["meaning"])
        for kind in group["Type"]
        if (kind["CodeValue"], kind["CodeMeaning"]) == (entry["code"], entry["name"])
    ]
    return any(same_sides(entry, kind) and same_colour(entry, kind) for kind in types)


def same_sides(entry, kind):
    sides = {(side["CodeValue"], side["CodeMeaning"]) for side in kind.get("Modifier", ())}
    ours = {(side["code"], side["meaning"]) for side in TABLE["modifiers"].values()}
    return kind["CodingSchemeDesignator"] == "SCT" and (ours <= sides) == entry.get("paired", False)


def same_colour(entry, kind):
    colours = [kind.get("recommendedDisplayRGBValue")]
    colours += [side.get("recommendedDisplayRGBValue") for side in kind.get("Modifier", ())]
    return entry.get("rgb") in [colour for colour in colours if colour] if "rgb" in entry else not any(colours)


@pytest.mark.parametrize(("context", "file"), [("general", "SlicerGeneralAnatomy"), ("dicom", "DICOM-Master")])
def test_codes_agree_with_slicers(context, file):
    codes = slicer_list(file)
    assert codes["SegmentationCategoryTypeContextName"] == TABLE["contexts"][context]
    entries = [entry for entry in TERMS if entry.get("context", "general") == context and "own" not in entry]
    assert entries and [entry["name"] for entry in entries if not is_slicers(entry, codes)] == []


@pytest.mark.parametrize("file", ["SlicerGeneralAnatomy", "DICOM-Master"])
def test_own_terms_are_none_that_slicer_has(file):
    types = [kind for group in slicer_list(file)["SegmentationCodes"]["Category"] for kind in group["Type"]]
    for entry in TERMS:
        if "own" in entry:
            assert not [
                kind for kind in types if entry["name"] == kind["CodeMeaning"] or entry["code"] == kind["CodeValue"]
            ]


def test_generic_colours_are_valid_and_differ():
    colours = [generic_colour(index) for index in range(12)]
    assert all(0 <= level <= 1 for colour in colours for level in colour)
    apart = [
        sum(abs(a - b) for a, b in zip(one, two, strict=True)) for n, one in enumerate(colours) for two in colours[:n]
    ]
    assert min(apart) > 0.15
