"""`report`: a page about a case, from files and from scenes, that says what was done and names nobody unasked."""

import json
import re

import pytest
import slicer

from FoundationSegLib.api_nodes import report_nodes
from FoundationSegLib.errors import InputError, OutputError
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import Polarity
from FoundationSegLib.session.segments import next_segment
from Testing.mrml.scene_session import SceneSession, save_bundle
from Testing.unit.commands.conftest import ct_array
from Testing.unit.session.session_cases import point, small_volume

pytestmark = pytest.mark.usefixtures("opengl")
PICTURE = "data:image/jpeg;base64,"


@pytest.fixture
def case(desk):
    """A case with its report and its segments side by side, as `batch` leaves them."""
    prompts = desk.document()
    prompts["segments"][0]["name"] = "Left kidney"
    report = desk.folder / "case.json"
    line = {"report": report, "prompts": desk.write_prompts(prompts), "output": desk.folder / "case.seg.nrrd"}
    assert desk.segment(**line) == 0, desk.err
    return report


def page(desk, case, *more, image=True):
    """The page of a case; empty where the command refuses it."""
    output = desk.folder / "page.html"
    line = ["report", str(case), "--output", str(output), *map(str, more)]
    line += ["--image", str(desk.image)] if image else []
    return output.read_text(encoding="utf-8") if desk.run(*line) == 0 else ""


def test_a_case_of_files_is_all_on_one_page(desk, case):
    text = page(desk, case)
    assert text.count(PICTURE) == 3, desk.err  # all segments, and each by itself
    assert "<script" not in text and not re.search(r'(src|href)="http', text) and str(desk.folder) not in text
    for words in (
        *("Left kidney", "Kidney, left (SCT 64033007)", "0.13 ml", "5.0 mm", "0.75"),
        "box 0, 1, 1 to 5, 6, 4 voxels",
        *("Fake Model (fake)", "fake-wheel, 1.0", "MIT, commercial use: yes", "Research use, not a diagnosis"),
    ):
        assert words in text, words


def test_what_does_not_belong_together_is_refused(desk, case):
    assert not page(desk, case, image=False) and "--image IMAGE" in desk.err
    other = desk.write_image("other.nrrd", ct_array() + 1)
    assert not page(desk, case, "--image", other, image=False)
    assert "other.nrrd is not the image of case.json" in desk.err
    (desk.folder / "case.seg.nrrd").unlink()
    assert not page(desk, case) and "say where they are: --segmentation FILE" in desk.err
    case.write_text("{}")
    assert not page(desk, case) and "is no report of" in desk.err
    (desk.folder / "bad.mrb").write_text("no scene")
    assert not page(desk, desk.folder / "bad.mrb", image=False) and "is no scene" in desk.err
    assert not page(desk, desk.folder / "bad.mrb") and "leave out --image" in desk.err


def test_a_label_map_takes_its_names_from_the_report(desk):
    prompts, labels, case = (
        desk.write_prompts(desk.document("Right")),
        desk.folder / "labels.nrrd",
        desk.folder / "a.json",
    )
    assert desk.segment(output=labels, prompts=prompts, report=case) == 0
    text = page(desk, case, "--segmentation", labels)
    assert text.count(PICTURE) == 1 and "Right" in text and "Fake Model (fake)" in text, desk.err


def test_a_classification_has_its_labels(desk):
    label = {"name": "Liver", "score": 0.9, "low": 0.7, "high": 0.95, "margin": 0.8}
    model = {"id": "fake", "source": "fake-wheel", "revision": "1.0", "sha256": "0" * 64}
    document = {"version": 1, "model": model, "labels": [label], "verdict": ["Liver"], "notes": ["<b>"]}
    case = desk.folder / "case.json"
    case.write_text(json.dumps(document), encoding="utf-8")
    text = page(desk, case, image=False)
    assert "Labels: Liver" in text and "0.700 to 0.950" in text and PICTURE not in text and "&lt;b&gt;" in text
    assert page(desk, case).count(PICTURE) == 1


@pytest.fixture
def scene():
    """A scene of a patient, in which a segment was prompted, corrected, and changed by hand."""
    headless = boot_scene()
    volume_node = add_volume_node(headless.scene, small_volume(), "1: secret series")
    volume_node.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    segmentation_node = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(headless.scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Doe")
    hierarchy.SetItemAttribute(patient, "DICOM.PatientName", "Doe^Jane")
    hierarchy.CreateItem(patient, volume_node)
    at = SceneSession(segmentation_node, volume_node)
    segment = next_segment(at.session, "Liver")
    segment.add(point(2))
    segment.add(point(2, i=6, polarity=Polarity.NEGATIVE))
    writer = SegmentWriter(segmentation_node, volume_node)
    mask = writer.read(segment.segment_id)
    mask[0, :2, :2] = True
    writer.write(segment.segment_id, mask)
    segment.add(point(3))
    at.prompts.stop()
    yield headless.scene, segmentation_node
    assert not at.errors


def test_a_scene_says_what_was_corrected_and_the_patient_where_asked(desk, scene, tmp_path):
    text = page(desk, save_bundle(scene[0], tmp_path), "--with-patient", image=False)
    assert text.count(PICTURE) == 1, desk.err
    assert "changed by hand: 1; negative prompts: 1" in text and "not: point 6, 4, 2 mm" in text
    assert "Doe^Jane" in text and "secret series" in text


def test_scripts_write_the_same_page_and_name_nobody(scene, tmp_path):
    report_nodes(str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count(PICTURE) == 1 and "Liver" in text and "Doe" not in text and "secret" not in text
    with pytest.raises(OutputError, match="cannot be written"):
        report_nodes(tmp_path / "nowhere" / "page.html", [scene[1]])
    scene[0].Clear()
    with pytest.raises(InputError, match="no segmentation with segments"):
        report_nodes(tmp_path / "none.html")
