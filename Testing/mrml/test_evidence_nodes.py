"""Evidence in the scene: where a planted bright square lies, there it has to light up, however the volume is stored."""

import json

import numpy as np
import slicer.util
from hypothesis import assume, given
from hypothesis import strategies as st

from FoundationSegLib.catalog.label_sets import label_set_of
from FoundationSegLib.engine.caches import LoadedModel, Weights
from FoundationSegLib.engine.classification import classify
from FoundationSegLib.engine.encoding import Encoder, VectorCache
from FoundationSegLib.imaging.geometry import AXES, Geometry, array_axis
from FoundationSegLib.imaging.intensity import resolve_intensity_views
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml import segment_tags
from FoundationSegLib.mrml.classification import add_evidence_segment, read_report, show_evidence
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.volumes import add_volume_node, geometry_from_node
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.classification import ClassifyRequest, EvidenceWish, Subject, slice_frame, square
from FoundationSegLib.requests.classification_answer import LIMITS, RESEARCH_USE
from FoundationSegLib.requests.segmentation import CheckpointRecord
from Testing.mrml.random_geometries import add_parent, geometries, parent_matrices
from Testing.unit.reader_model import ReaderModel

ROWS, COLUMNS, SLICE = slice(9, 21), slice(24, 40), 1
CELLS = 16


@st.composite
def grids(draw):
    """Oblique, flipped, permuted, sheared grids of three slices, 40 x 48, across any axis."""
    matrix = np.array(draw(geometries()).ijk_to_ras)
    spacing = draw(st.tuples(*[st.floats(0.7, 1.4)] * 3))
    matrix[:3, :3] *= np.array(spacing) / np.linalg.norm(matrix[:3, :3], axis=0)
    axis = draw(st.sampled_from(AXES))
    shape = [40, 48]
    shape.insert(array_axis(axis), 3)
    return Geometry(matrix, tuple(shape)), axis


def planted(geometry, axis):
    """A volume with a bright square on one slice, and where it is."""
    voxels = np.full(geometry.shape_kji, 20, np.uint8)
    np.moveaxis(voxels, array_axis(axis), 0)[:, ::3] += 6  # something to see everywhere
    where = np.zeros(geometry.shape_kji, bool)
    np.moveaxis(where, array_axis(axis), 0)[SLICE, ROWS, COLUMNS] = True
    voxels[where] = 250
    return Volume(voxels, geometry, name="Image"), where


def explained(volume, axis, method):
    model = ReaderModel(cells=CELLS)
    weights = Weights(CheckpointRecord("reader", "owner/name", "abc", "f" * 64), "cpu", "float32")
    wish = EvidenceWish("bright", method, slices=1, parts=CELLS)
    request = ClassifyRequest(
        1, "reader", volume.key, label_set_of(["bright", "dark"]), Subject(axis), "raw", evidence=wish
    )
    encoder = Encoder(LoadedModel(model, weights), VectorCache(), Progress())
    return classify(request, volume, resolve_intensity_views("raw", volume), encoder)


def in_line(found, axis):
    """The planes of an array across an axis."""
    return np.moveaxis(found, array_axis(axis), 0)


@given(grids(), parent_matrices(), st.sampled_from(["similarity", "occlusion"]))
def test_a_planted_square_lights_up_where_it_is(grid, parent, method):
    geometry, axis = grid
    volume, where = planted(geometry, axis)
    cell = [side / CELLS for side in square(slice_frame(geometry, axis), geometry, axis).shape]
    assume(max(cell) < 6)
    answer = explained(volume, axis, method)
    (evidence,) = answer.evidence
    headless = boot_scene()
    node = add_volume_node(headless.scene, volume)
    add_parent(headless.scene, parent, node)
    segmentation = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segment_id = add_evidence_segment(segmentation, evidence, answer, node)
    found = SegmentWriter(segmentation, node).read_mask(segment_id)
    assert segmentation.GetParentTransformNode() is node.GetParentTransformNode()

    grown = np.zeros_like(where)
    rows, columns = (
        slice(max(0, line.start - round(size)), line.stop + round(size))
        for line, size in zip((ROWS, COLUMNS), cell, strict=True)
    )
    in_line(grown, axis)[SLICE, rows, columns] = True
    assert found.any() and not (found & ~grown).any()
    assert (found & where).sum() > 0.5 * where.sum()
    middle, truth = (np.argwhere(mask).mean(axis=0) for mask in (found, where))
    in_plane = [n for n in range(3) if n != array_axis(axis)]
    assert all(abs(middle[n] - truth[n]) <= size for n, size in zip(in_plane, cell, strict=True))

    overlay = show_evidence(headless.scene, evidence, answer, node)
    assert overlay.GetParentTransformNode() is node.GetParentTransformNode()
    painted = slicer.util.arrayFromVolume(overlay)
    highest = np.unravel_index(painted.argmax(), painted.shape)[::-1]
    at = geometry.to_ijk(geometry_from_node(overlay).to_ras(highest))
    assert np.allclose(at, np.round(at), atol=1e-6)  # voxel on voxel
    i, j, k = np.round(at).astype(int)
    assert where[k, j, i]


def test_the_overlay_shows_what_is_above_the_middle_and_says_its_limits(scene):
    geometry = Geometry(np.diag([1.0, 1, 1, 1]), (3, 40, 48))
    volume, _ = planted(geometry, "k")
    answer = explained(volume, "k", "similarity")
    node = add_volume_node(scene, volume)
    overlay = show_evidence(scene, answer.evidence[0], answer, node)
    assert LIMITS in overlay.GetDescription() and RESEARCH_USE in overlay.GetDescription()
    assert read_report(overlay)["model"]["revision"] == "abc"
    display, evidence = overlay.GetDisplayNode(), answer.evidence[0]
    assert display.GetApplyThreshold() and display.GetLowerThreshold() >= evidence.threshold(0)
    assert display.GetColorNode() is not None
    assert slicer.util.arrayFromVolume(overlay).shape == (1, 40, 48)


def test_the_segment_says_where_it_came_from_and_spares_the_others(scene):
    geometry = Geometry(np.diag([1.0, 1, 1, 1]), (3, 40, 48))
    volume, _ = planted(geometry, "k")
    answer = explained(volume, "k", "similarity")
    node = add_volume_node(scene, volume)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    writer = SegmentWriter(segmentation, node)
    other = writer.add_segment("Liver")
    writer.write(other, np.ones(geometry.shape_kji, bool), geometry.box)
    segment_id = add_evidence_segment(segmentation, answer.evidence[0], answer, node, share=0.8)
    assert writer.read_mask(other).all() and writer.read_mask(segment_id).any()
    tags = segment_tags.provenance(writer.segment(segment_id))
    assert (tags["Model"], tags["Revision"], tags["SHA256"]) == ("reader", "abc", "f" * 64)
    asked = json.loads(tags["Prompts"])
    assert asked == {"label": "bright", "method": "similarity", "share": 0.8, "research_use": RESEARCH_USE}
    assert writer.segment(segment_id).GetName() == "Evidence: bright"
