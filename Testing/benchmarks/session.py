"""The interactive session on Slicer's nodes, against the bare calls that write the same voxels."""

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer

from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.imaging.masks import Edit, PackedMask, pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.labelmaps import mask_image
from FoundationSegLib.mrml.scene import HeadlessScene, boot_scene
from FoundationSegLib.mrml.scene_prompts import SessionPrompts
from FoundationSegLib.mrml.segment_store import SceneStore
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import PointPrompt
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, PredictRequest, SegmentPrediction
from FoundationSegLib.session.segment_store import Options, SegmentEdited
from FoundationSegLib.session.segments import SegmentSession, next_segment
from FoundationSegLib.session.session import Session
from FoundationSegLib.session.steps import ModelChoice

from .timing import Comparison, timed_s

SHAPE = (300, 512, 512)
CUBE = 100
CLICKS = 20


@dataclass(slots=True)
class Prepared:
    """A client that has its answers at hand: nothing but the session and the writing takes time."""

    answers: Iterator[PackedMask]
    session: Session | None = None

    def send_volume(self, volume: Volume) -> None:
        """Needs none."""

    def remove_volume(self, volume_key: str) -> None:
        """Has none."""

    def cancel(self, request_id: int) -> None:
        """Has answered already."""

    def submit(self, request: PredictRequest) -> None:
        """Answer at once, in the session's hook."""

    def answer(self, session: Session) -> None:
        """What the next click finds."""
        mask = SegmentPrediction(next(self.answers), 0.9)
        checkpoint = CheckpointRecord("prepared", "here", "1", "ab")
        session.answer(Prediction(session.request_id or 0, (mask,), {}, checkpoint, "cpu", "float32"))


def blobs() -> Iterator[PackedMask]:
    """Lumps of ten voxels' width all over the cube, others each time: gains and losses fill the cube's box."""
    for n in itertools.count():
        lumps = np.random.default_rng(n).random((CUBE // 10,) * 3) > 0.5
        yield pack_mask(np.kron(lumps, np.ones((10, 10, 10))) > 0, (100, 200, 200))


@dataclass(slots=True)
class Bench:
    """A session on one segmentation, and the bare calls on a second one that gets the same voxels."""

    headless: HeadlessScene
    segment: SegmentSession
    twin: SegmentWriter
    twin_id: str
    logic: Any
    prompts: SessionPrompts | None = None
    edits: list[Edit] = field(default_factory=list)
    calls: list[float] = field(default_factory=lambda: [0.0])

    def click(self) -> None:
        """One prompt, to the written segment."""
        self.segment.add(PointPrompt((250.0, 250.0, 150.0)))

    def stop(self) -> None:
        """Watch the scene no more."""
        if self.prompts is not None:
            self.prompts.stop()

    def grow(self) -> None:
        """Somebody draws a large organ around it in both segmentations, as existing segments have."""
        organ = np.zeros((240, 360, 360), np.bool_)
        organ[::40] = organ[0, 0, 0] = organ[-1, -1, -1] = True
        box = Box((30, 80, 80), (270, 440, 440))
        store = self.segment.session.store
        for writer, segment_id in ((store, self.segment.segment_id), (self.twin, self.twin_id)):
            writer.write(segment_id, organ | writer.read(segment_id, box), box)

    def bare(self) -> float:
        """The same voxels as the last change by the two bare calls, in seconds, their images included."""
        change = next(iter(self.edits[-1].changes.values()))
        logic, node = self.logic, self.twin._node
        start = time.perf_counter()
        for mask, mode in ((change.lost, logic.ModificationModeRemove), (change.gained, logic.ModificationModeAdd)):
            if mask.box.is_empty:
                continue
            image = mask_image(mask, self.twin.labelmap(self.twin_id), self.twin.geometry)
            called = time.perf_counter()
            logic.ModifySegmentByLabelmap(node, self.twin_id, image, mode, False, True)
            self.calls[-1] += time.perf_counter() - called
        return time.perf_counter() - start


def bench(with_prompts: bool = False) -> Bench:
    """Both segmentations on 512 x 512 x 300, with a neighbour each; on request the session's prompts are markups."""
    headless = boot_scene()
    volume = Volume(np.zeros(SHAPE, np.int16), geometry_from_spacing(SHAPE))
    volume_node = add_volume_node(headless.scene, volume)
    nodes = [headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode") for _ in range(2)]
    for node in nodes:
        node.CreateDefaultDisplayNodes()
    twin, store = SegmentWriter(nodes[1], volume_node), SceneStore(nodes[0], volume_node)
    for writer in (store, twin):
        neighbour = writer.add_segment("Neighbour")
        writer.write(neighbour, np.ones((60, 60, 60), bool), Box((40, 180, 180), (100, 240, 240)))
    client = Prepared(itertools.cycle(list(itertools.islice(blobs(), CLICKS))))
    made: list[Bench] = []

    def listen(outcome: Any) -> None:
        if isinstance(outcome, SegmentEdited):
            made[0].edits = [Edit({key: change}) for key, changes in outcome.changes.items() for change in changes]

    options = Options(ModelChoice("prepared", in_3d=True), ask_above=None)
    prompts = SessionPrompts(nodes[0], volume_node) if with_prompts else None
    session = Session(volume, store, client, options, listen, client.answer, prompt_store=prompts)
    session.listeners += [store.describe, session.history.keep_steps]
    if prompts is not None:
        prompts.follow(session)
    organs = next_segment(session, "Organ"), twin, twin.add_segment("Organ")
    made.append(Bench(headless, *organs, _editor_logic(headless.scene), prompts))
    return made[0]


def _editor_logic(scene: Any) -> Any:
    """Slicer's way to write a segment: the logic of the Segment Editor, which masks and overwrites nothing."""
    logic, node = slicer.vtkSlicerSegmentEditorLogic(), scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    logic.SetMRMLApplicationLogic(slicer.modules.segmentations.logic().GetMRMLApplicationLogic())
    logic.SetMRMLScene(scene)
    node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
    logic.SetSegmentEditorNode(node)
    return logic


def session() -> list[Comparison | str]:
    """Clicks, undo and redo, each beside the bare calls on the same boxes in the same run."""
    it, drawn = bench(), bench(with_prompts=True)
    first = timed_s(it.click)
    it.bare()
    try:
        found = [*_in_both(it), *_in_both(drawn, ", prompts in the scene")]
    finally:
        drawn.stop()
    return [*found, f"the first write, which opens a layer: {first * 1000:.0f} ms", *_masked(it)]


def _in_both(it: Bench, note: str = "") -> list[Comparison]:
    """In a segment that the session alone wrote, and in a large one."""
    it.click()
    it.bare()
    lone = list(_compared(it, f"in a segment of its own{note}"))
    it.grow()
    it.click()
    it.bare()
    return [*_compared(it, f"in a large segment{note}"), *lone]


def _compared(it: Bench, where: str) -> Iterator[Comparison]:
    session, segment_id = it.segment.session, it.segment.segment_id
    works = {
        "a click": it.click,
        "undo": lambda: session.undo(segment_id),
        "redo": lambda: session.redo(segment_id),
    }
    for what, work in works.items():
        ours, theirs = [], []
        it.calls = []
        for _ in range(CLICKS):
            ours.append(timed_s(work))
            it.calls.append(0.0)
            theirs.append(it.bare())
        calls = statistics.median(it.calls) * 1000
        note = f"; without making their images {calls:.1f} ms"
        medians = statistics.median(ours), statistics.median(theirs)
        yardstick = "bare Remove and Add"
        yield Comparison(f"{what} {where}", medians[0], yardstick, medians[1], note)


def _masked(it: Bench) -> list[str]:
    """The Segment Editor's own settings, which are kept to on request."""
    store = it.segment.session.store
    editor = it.headless.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(-10, 10)
    store.masking_node = editor
    it.click()
    taken = statistics.median(timed_s(it.click) for _ in range(5))
    return [f"a click with the Segment Editor's editable area and intensity range: {taken * 1000:.0f} ms"]
