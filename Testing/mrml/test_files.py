import gzip
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError, OutputError
from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.files import read_segmentation, require_sound_nrrd, write_segmentation
from FoundationSegLib.mrml.labelmaps import is_empty
from FoundationSegLib.mrml.segment_tags import is_locked, lock, provenance, set_provenance
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.session.segment_store import OverlapPolicy
from Testing.mrml.random_geometries import geometries, masks

in_one_scene = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def header(path):
    return path.read_bytes().split(b"\n\n")[0].decode()


@in_one_scene
@given(geometry=geometries(), seed=st.integers(0, 99), policy=st.sampled_from(OverlapPolicy))
def test_any_geometry_and_any_layers_come_back(scene, tmp_path, geometry, seed, policy):
    assume(geometry.shape_kji != (1, 1, 1))
    volume_node = add_volume_node(scene, Volume(np.zeros(geometry.shape_kji, np.uint8), geometry))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    writer, path = SegmentWriter(node, volume_node), tmp_path / "any.seg.nrrd"
    ids = [writer.add_segment(name) for name in ("Empty", "First", "Second")]
    for number, segment_id in enumerate(ids[1:]):
        writer.write(segment_id, masks(geometry, seed + number), policy=policy)
    before = [writer.read(segment_id) for segment_id in ids]
    write_segmentation(node, path)
    back_node = read_segmentation(scene, path)
    back = SegmentWriter(back_node, volume_node)
    assert back.segment_ids == writer.segment_ids == tuple(ids)
    for segment_id, mask in zip(ids, before, strict=True):
        assert np.array_equal(back.read(segment_id), mask) and np.array_equal(writer.read(segment_id), mask)
    for gone in (node, back_node, volume_node):
        scene.RemoveNode(gone)


def test_everything_about_a_segment_comes_back(scene, tmp_path, writer, segmentation_node, volume_node):
    prompts = json.dumps({"segments": [{"name": "a|b:c", "prompts": [{"type": "text", "text": "x\ny|z\\n"}]}]})
    origin = {"Model": "lite-medsam", "SHA256": "79d8", "Prompts": prompts}
    for name in ("left_kidney", "Ünbekannt: | \n", "tumour"):
        segment_id = writer.add_segment(name)
        set_provenance(writer.segment(segment_id), origin)
        lock(writer.segment(segment_id), name == "tumour")
    path = tmp_path / "all.seg.nrrd"
    write_segmentation(segmentation_node, path)
    back = SegmentWriter(read_segmentation(scene, path), volume_node)
    for segment_id in writer.segment_ids:
        ours, theirs = writer.segment(segment_id), back.segment(segment_id)
        assert theirs.GetName() == ours.GetName() and theirs.GetTerminology() == ours.GetTerminology()
        assert np.allclose(theirs.GetColor(), ours.GetColor(), atol=1e-6) and provenance(theirs) == origin
    assert segments_locked(back) == segments_locked(writer) == [False, False, True]


def segments_locked(writer):
    return [is_locked(writer.segment(segment_id)) for segment_id in writer.segment_ids]


def test_the_whole_reference_geometry_is_in_the_file(tmp_path, writer, segmentation_node):
    """So that other programs find the voxels of the image, not of a crop."""
    segment_id = writer.add_segment("Any")
    writer.write(segment_id, masks(writer.geometry, 1, density=0.02))
    path = tmp_path / "any.seg.nrrd"
    write_segmentation(segmentation_node, path)
    assert "sizes: 8 7 6\n" in header(path)


def test_the_file_names_neither_the_node_nor_a_path(tmp_path, writer, segmentation_node, volume_node):
    segmentation_node.SetName("Doe^John segmentation")
    volume_node.SetName("Doe^John")
    writer.write(writer.add_segment("liver"), np.ones((6, 7, 8), bool))
    path = tmp_path / "any.seg.nrrd"
    write_segmentation(segmentation_node, path)
    text = header(path)
    assert "Doe" not in text and str(tmp_path) not in text and "/" not in text.split("format.html", 1)[1]


def test_writing_leaves_the_node_as_it_was(tmp_path, scene, writer, segmentation_node):
    ids = [writer.add_segment(name) for name in "AB"]
    for segment_id, start in zip(ids, (0, 3), strict=True):
        writer.write(segment_id, np.ones((2, 7, 8), bool), Box((start, 0, 0), (start + 2, 7, 8)))
    segmentation_node.SetName("Mine")
    count = scene.GetNumberOfNodes()
    before = [writer.labelmap(segment_id) for segment_id in ids]
    write_segmentation(segmentation_node, tmp_path / "any.seg.nrrd")
    assert segmentation_node.GetName() == "Mine" and [writer.labelmap(segment_id) for segment_id in ids] == before
    assert [writer.segment(segment_id).GetLabelValue() for segment_id in ids] == [1, 1]
    assert "dimension: 3" in header(tmp_path / "any.seg.nrrd") and segmentation_node.GetStorageNode() is None
    assert scene.GetNumberOfNodes() == count


def test_an_existing_file_is_replaced(scene, tmp_path, writer, segmentation_node):
    path = tmp_path / "any.seg.nrrd"
    path.write_bytes(b"old")
    writer.add_segment("liver")
    write_segmentation(segmentation_node, path)
    node = read_segmentation(scene, path)
    assert node.GetName() == "any" and node.GetDisplayNode() is not None
    assert node.GetSegmentation().GetNumberOfSegments() == 1


def test_an_empty_first_segment_of_slicers_spoils_nothing(scene, tmp_path):
    """Made without the writer: two layers, the first one empty and on the identity's grid."""
    geometry = geometry_from_spacing((6, 7, 8), (0.5, 0.5, 2.0))
    volume_node = add_volume_node(scene, Volume(np.zeros(geometry.shape_kji, np.uint8), geometry))
    maker = SegmentWriter(scene.AddNewNodeByClass("vtkMRMLSegmentationNode"), volume_node)
    segment_id, mask = maker.add_segment("Any"), masks(geometry, 1)
    maker.write(segment_id, mask)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    node.GetSegmentation().AddEmptySegment()
    node.GetSegmentation().AddSegment(maker.segment(segment_id), "Any")
    write_segmentation(node, tmp_path / "any.seg.nrrd")
    back = SegmentWriter(read_segmentation(scene, tmp_path / "any.seg.nrrd"), volume_node)
    assert np.array_equal(back.read("Any"), mask)


def test_a_single_voxel_is_refused(scene, tmp_path):
    """Slicer crashes when it reads such a file."""
    geometry = geometry_from_spacing((1, 1, 1))
    volume_node = add_volume_node(scene, Volume(np.zeros((1, 1, 1), np.uint8), geometry))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    writer = SegmentWriter(node, volume_node)
    writer.write(writer.add_segment("Any"), np.ones((1, 1, 1), bool))
    with pytest.raises(OutputError, match="single voxel"):
        write_segmentation(node, tmp_path / "any.seg.nrrd")
    assert list(tmp_path.iterdir()) == []


def test_empty_segments_have_the_whole_image(scene, tmp_path, writer, segmentation_node, volume_node):
    for name in "ABC":
        writer.add_segment(name)
    write_segmentation(segmentation_node, tmp_path / "any.seg.nrrd")
    text = header(tmp_path / "any.seg.nrrd")
    assert "type: unsigned char\n" in text and "sizes: 8 7 6\n" in text
    assert all(is_empty(writer.labelmap(segment_id)) for segment_id in writer.segment_ids)
    back = SegmentWriter(read_segmentation(scene, tmp_path / "any.seg.nrrd"), volume_node)
    assert not any(back.read(segment_id).any() for segment_id in back.segment_ids)


def test_a_closed_surface_is_refused(tmp_path, segmentation_node):
    segmentation_node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    segmentation_node.GetSegmentation().AddEmptySegment("", "Surface")
    with pytest.raises(OutputError, match="'Surface' is no binary label map"):
        write_segmentation(segmentation_node, tmp_path / "any.seg.nrrd")


def test_a_segmentation_without_segments(scene, tmp_path, segmentation_node):
    write_segmentation(segmentation_node, tmp_path / "none.seg.nrrd")
    assert read_segmentation(scene, tmp_path / "none.seg.nrrd").GetSegmentation().GetNumberOfSegments() == 0


@pytest.mark.parametrize("name", ["plain.nrrd", "segmentation.nii.gz", "missing/any.seg.nrrd"])
def test_places_that_cannot_be_written(tmp_path, segmentation_node, name):
    with pytest.raises(OutputError):
        write_segmentation(segmentation_node, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"no segmentation", b"NRRD0004\ntype: short\n"])
def test_files_that_cannot_be_read_leave_no_node_behind(scene, tmp_path, content):
    path = tmp_path / "any.seg.nrrd"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"'any\.seg\.nrrd'") as caught:
        read_segmentation(scene, path)
    assert str(tmp_path) not in str(caught.value) and scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


HEADER = """NRRD0004
# Complete NRRD file format specification at:
# http://teem.sourceforge.net/nrrd/format.html
type: unsigned char
dimension: 3
space: left-posterior-superior
sizes: 4 3 2
space directions: (-0.7,0.2,0.1) (-0.1,-0.9,0.02) (-0.3,-0.05,3)
kinds: domain domain domain
encoding: gzip
space origin: (-10,20,5)
Segment0_Name:=sizes: 1 1 1
"""
DATA = gzip.compress(bytes(24), mtime=0)


def check_nrrd(tmp_path, header=HEADER, data=DATA):
    path = tmp_path / "any.seg.nrrd"
    path.write_bytes(header.encode() + b"\n" + data)
    require_sound_nrrd(path)


def test_a_whole_file(tmp_path):
    check_nrrd(tmp_path)
    check_nrrd(tmp_path, HEADER.replace("gzip", "raw"), bytes(24))
    check_nrrd(tmp_path, HEADER.replace("unsigned char", "ushort\nendian: little"), gzip.compress(bytes(48)))


def test_several_layers(tmp_path):
    header = HEADER.replace("dimension: 3", "dimension: 4").replace("sizes: 4", "sizes: 2 4", 1)
    header = header.replace("directions:", "directions: none").replace("kinds:", "kinds: list")
    check_nrrd(tmp_path, header, gzip.compress(bytes(48)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("NRRD0004", "P6"),
        ("type: unsigned char\n", ""),
        ("unsigned char", "float"),
        ("unsigned char", "short"),
        ("sizes: 4 3 2\n", ""),
        ("sizes: 4 3 2", "sizes: 4 3"),
        ("sizes: 4 3 2", "sizes: 4 -3 -2"),
        ("sizes: 4 3 2", "sizes: 4 three 2"),
        ("sizes: 4 3 2", "sizes: 4 3 20"),
        ("dimension: 3", "dimension: 2"),
        ("space: left-posterior-superior\n", ""),
        ("left-posterior-superior", "scanner"),
        ("(-0.3,-0.05,3)", ""),
        ("(-0.3,-0.05,3)", "(0,0,0)"),
        ("(-0.3,-0.05,3)", "(-0.7,0.2,0.1)"),
        ("(-0.3,-0.05,3)", "(nan,0,1)"),
        ("(-0.3,-0.05,3)", "(0,1)"),
        ("(-10,20,5)", "(-10,20)"),
        ("(-10,20,5)", "none"),
        ("kinds: domain domain domain", "kinds: domain domain"),
        ("gzip", "bzip2"),
        ("encoding: gzip\n", ""),
        ("encoding: gzip", "encoding: gzip\ndata file: elsewhere.raw"),
    ],
)
def test_a_damaged_header(tmp_path, old, new):
    assert old in HEADER
    with pytest.raises(InputError, match=r"'any\.seg\.nrrd' is no whole segmentation file"):
        check_nrrd(tmp_path, HEADER.replace(old, new, 1))


@pytest.mark.parametrize(
    "data", [b"", DATA[:-1], DATA[:10], bytes(len(DATA)), DATA[:-6] + bytes(6), gzip.compress(bytes(23), mtime=0)]
)
def test_damaged_voxels(tmp_path, data):
    with pytest.raises(InputError):
        check_nrrd(tmp_path, data=data)
