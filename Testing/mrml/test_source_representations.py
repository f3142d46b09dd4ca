import numpy as np
import pytest
import slicer
import vtk

from FoundationSegLib.errors import InputError
from FoundationSegLib.mrml.segment_store import SceneStore
from FoundationSegLib.mrml.surfaces import drop_surfaces, has_surfaces, make_surfaces
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import PointPrompt
from FoundationSegLib.session.segment_store import NewSegment, Refused, SegmentEdited
from FoundationSegLib.session.segments import next_segment
from Testing.mrml.controller_cases import make_controller, run
from Testing.mrml.scene_session import SceneSession
from Testing.unit.session.session_cases import mask_of, point, ras, small_volume

LABELMAP, SURFACE = "Binary labelmap", "Closed surface"
OTHERS = (SURFACE, "Fractional labelmap", "Planar contour", "Ribbon model", "Oriented DICOM image")


@pytest.fixture
def volume_node(scene):
    return add_volume_node(scene, small_volume())


@pytest.fixture
def work(segmentation_node, volume_node):
    work = SceneSession(segmentation_node, volume_node)
    work.store.defers_surfaces = True
    yield work
    work.prompts.stop()


def make_source(node, name):
    """What "Make source" in the Segmentations module does; what Slicer cannot convert to, another module brings."""
    segmentation = node.GetSegmentation()
    segmentation.CreateRepresentation(name)
    segmentation.SetSourceRepresentationName(name)
    for key in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(key).GetRepresentation(name) is None:
            content = slicer.vtkOrientedImageData() if "labelmap" in name else vtk.vtkPolyData()
            segmentation.GetSegment(key).AddRepresentation(name, content)


def representations(node):
    segmentation = node.GetSegmentation()
    found = {}
    for key in segmentation.GetSegmentIDs():
        for name in (LABELMAP, *OTHERS):
            representation = segmentation.GetSegment(key).GetRepresentation(name)
            found[key, name] = representation and (representation, representation.GetMTime())
    return found


@pytest.mark.parametrize("kind", OTHERS)
def test_another_source_is_refused_and_nothing_is_removed(kind, work, segmentation_node, volume_node):
    segment = next_segment(work.session, "Liver")
    segment.add(point(3))
    segment.add(point(5))
    work.client.is_slow = True
    segment.add(point(1))
    make_source(segmentation_node, kind)
    kept, steps = representations(segmentation_node), segment.steps
    work.client.reply()
    assert isinstance(work.outcomes[-1], Refused), "the prompt waits"
    session, store, outcomes = work.session, work.store, len(work.outcomes)
    actions = (
        lambda: segment.add(point(6)),
        lambda: session.retry(),
        lambda: next_segment(session, "Spleen"),
        lambda: store.add(NewSegment("Spleen")),
        lambda: session.discard() and session.undo(segment.segment_id),
        lambda: session.reject(segment.segment_id),
        lambda: session.accept(segment.segment_id),
        lambda: SceneStore(segmentation_node, volume_node),
    )
    for action in actions:
        with pytest.raises(InputError, match=f"kept as {kind.lower()}"):
            action()
    assert not store.withdraw(segment.segment_id), "what looks empty may be the only copy"
    drop_surfaces(segmentation_node)
    assert session.detect_external_changes() == frozenset() and segment.steps == steps[:-1]
    assert representations(segmentation_node) == kept and len(work.outcomes) == outcomes


def test_label_maps_that_are_the_source_again_are_gone_on_with(work, segmentation_node):
    segment = next_segment(work.session, "Liver")
    segment.add(point(3))
    make_source(segmentation_node, SURFACE)
    with pytest.raises(InputError):
        segment.add(point(5))
    make_source(segmentation_node, LABELMAP)
    segment.add(point(6))
    assert mask_of(segment)[6, 2:7, 3:8].all() and mask_of(segment)[3].any()


@pytest.mark.parametrize("has_surface", [True, False])
def test_a_click_at_a_desk_on_surfaces(has_surface, segmentation_node, volume_node):
    desk, _, ticks = make_controller(volume_node, segmentation_node)
    for k in (3, 6):
        desk.add_segment()
        desk.add_prompt(PointPrompt(ras(k, 4, 5)))
        run(desk, ticks)
    if has_surface:
        segmentation_node.CreateClosedSurfaceRepresentation()
    segmentation_node.GetSegmentation().SetSourceRepresentationName(SURFACE)
    kept, outcome = representations(segmentation_node), desk.outcome
    for action in (lambda: desk.add_prompt(PointPrompt(ras(1, 4, 5))), lambda: desk.undo()):
        with pytest.raises(InputError, match="closed surface"):
            action()
        run(desk, ticks)
    assert representations(segmentation_node) == kept and desk.outcome is outcome
    assert has_surfaces(segmentation_node) == has_surface
    desk.close()


def test_a_surface_that_is_the_only_copy_of_a_segment_stays(work, segmentation_node):
    segment = next_segment(work.session, "Liver")
    segment.add(point(3))
    segmentation_node.CreateClosedSurfaceRepresentation()
    segmentation = segmentation_node.GetSegmentation()
    foreign = segmentation.AddEmptySegment("foreign", "Foreign")
    segmentation.GetSegment(foreign).RemoveRepresentation(LABELMAP)
    sphere = vtk.vtkSphereSource()
    sphere.Update()
    segmentation.GetSegment(foreign).AddRepresentation(SURFACE, sphere.GetOutput())
    segment.add(point(5))
    assert isinstance(work.outcomes[-1], SegmentEdited) and np.count_nonzero(mask_of(segment)) == 50
    assert segmentation.GetSegment(foreign).GetRepresentation(SURFACE).GetNumberOfPoints() == 50


def surface_voxels(node, segment_id):
    found = vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation(segment_id, found)
    return found.GetNumberOfPoints()


@pytest.fixture
def surface_work(volume_node, segmentation_node):
    segmentation_node.CreateDefaultDisplayNodes()
    desk, _client, ticks = make_controller(volume_node, segmentation_node)

    def click(i):
        matrix = vtk.vtkMatrix4x4()
        volume_node.GetIJKToRASMatrix(matrix)
        desk.add_prompt(PointPrompt(matrix.MultiplyPoint((i, 3, 2, 1))[:3], plane="k"))
        run(desk, ticks)

    yield desk, click
    desk.close()


def test_surfaces_come_and_go(surface_work, segmentation_node):
    desk, click = surface_work
    click(2)
    assert not has_surfaces(segmentation_node)
    make_surfaces(segmentation_node)
    assert has_surfaces(segmentation_node) and surface_voxels(segmentation_node, desk.segment_id) > 0
    assert segmentation_node.GetDisplayNode().GetPreferredDisplayRepresentationName3D() == "Closed surface"
    drop_surfaces(segmentation_node)
    assert not has_surfaces(segmentation_node)


def test_a_change_makes_only_its_own_surface_and_none_within_the_write(surface_work, segmentation_node):
    desk, click = surface_work
    click(0)
    first = desk.segment_id
    desk.add_segment()
    click(7)
    second = desk.segment_id
    make_surfaces(segmentation_node)
    segmentation = segmentation_node.GetSegmentation()
    before = [segmentation.GetSegment(key).GetRepresentation(SURFACE).GetMTime() for key in (first, second)]
    points = surface_voxels(segmentation_node, second)
    click(4)
    assert [segmentation.GetSegment(key).GetRepresentation(SURFACE).GetMTime() for key in (first, second)] == before
    assert desk.has_stale_surfaces and desk.make_next_surface() and not desk.make_next_surface()
    assert segmentation.GetSegment(first).GetRepresentation(SURFACE).GetMTime() == before[0]
    assert surface_voxels(segmentation_node, second) > points
    desk.undo()
    desk.leave()  # what is out of date is made anew at the latest now
    assert surface_voxels(segmentation_node, second) == points
