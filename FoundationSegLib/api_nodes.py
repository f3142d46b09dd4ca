"""Segmentation for scripts in Slicer, on nodes of the scene. Every function returns when its answer is in the scene."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from secrets import randbits
from typing import Any

from . import __version__
from .api import Model, Prompts, choose, find_segment, ignore, load_prompts, map_uncertainty, open_session, propagate
from .codec import frozen
from .errors import InputError, OutputError
from .imaging.volume import Volume
from .mrml.classification import show_uncertainty
from .mrml.scene import remove_node
from .mrml.scene_prompts import SessionPrompts
from .mrml.segment_store import SceneStore, SegmentationSequence
from .mrml.volumes import frames_from_node, plot_over_frames, remove_plot, require_own, volume_from_node
from .progress import ProgressReport
from .prompts.prompts_file import prompts_to_document
from .requests.segmentation import CheckpointRecord, Prediction, PredictRequest, Propagation, SegmentPrediction
from .requests.uncertainty import ANSWERS
from .session import frames_in_time
from .session.segment_store import Outcome
from .session.segments import SegmentSession, import_prompts
from .session.session import Session
from .worker.client import Client, OnProgress, ask


def make_segmentation(volume_node: Any) -> Any:
    """Add a segmentation node on a volume's grid, shown like Slicer's own.

    Example::

        segmentation_node = make_segmentation(slicer.util.getNode("CTChest"))
    """
    scene, name = volume_node.GetScene(), f"{volume_node.GetName()} segmentation"
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    return node


class NodeSession:
    """A session on nodes for the length of a ``with`` block: prompts are markups, and every method waits.

    Example::

        with NodeSession(volume_node, segmentation_node, client, "lite-medsam") as session:
            new_segment(session, "Liver").add(PointPrompt((5.0, 4.0, 3.0)))

    Args:
        volume_node: the image.
        segmentation_node: the segments; existing ones are gone on with.
        client: answers the requests.
        model: a model's id, its card, or a choice by :func:`choose`.
        on_outcome: called with everything that happens.
        allow_foreign: go on with a segmentation that belongs to another image; it belongs to this one from then on.

    Raises:
        ForeignSegmentationError: it belongs to another image, and that was not allowed; an InputError.
    """

    def __init__(
        self,
        volume_node: Any,
        segmentation_node: Any,
        client: Client,
        model: Model,
        on_outcome: Callable[[Outcome], None] = ignore,
        allow_foreign: bool = False,
    ) -> None:
        if not allow_foreign:
            require_own(segmentation_node, volume_node)
        self._client = client
        store = SceneStore(segmentation_node, volume_node)
        self._prompts = SessionPrompts(segmentation_node, volume_node)
        try:
            volume = volume_from_node(volume_node)
            self.session = open_session(volume, client, model, store, self._prompts, on_outcome)
        except BaseException:
            self._prompts.stop()
            raise
        self._prompts.follow(self.session)

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, *_: object) -> None:
        self.close()

    def segment(self, name: str) -> SegmentSession:
        """Find the segment of a name, as :func:`find_segment`."""
        return find_segment(self.session, name)

    def close(self) -> None:
        """End the session and drop the image; segments and prompts stay."""
        self._prompts.stop()
        self._client.remove_volume(self.session.volume.key)


def segment_node(
    volume_node: Any,
    prompts: Prompts,
    client: Client,
    model: Model,
    segmentation_node: Any = None,
    allow_foreign: bool = False,
) -> Any:
    """Segment an image by prompts. Returns the segmentation node, a new one unless one is given.

    Example::

        segmentation_node = segment_node(volume_node, "prompts.json", client, "lite-medsam")

    Raises:
        ForeignSegmentationError: the segmentation belongs to another image (:class:`NodeSession`).
        FoundationSegError: whatever the request failed with; a new node is removed again then.
    """
    prompt_set = load_prompts(prompts)
    node = segmentation_node or make_segmentation(volume_node)
    try:
        with NodeSession(volume_node, node, client, model, allow_foreign=allow_foreign) as session:
            import_prompts(session, prompt_set)
    except BaseException:
        if segmentation_node is None:
            remove_node(node)
        raise
    return node


def propagate_node(
    volume_node: Any,
    segmentation_node: Any,
    name: str,
    client: Client,
    model: Model,
    propagation: Propagation | None = None,
    allow_foreign: bool = False,
) -> None:
    """Carry a segment of a node on through the volume, as :func:`propagate`.

    Example::

        propagate_node(volume_node, segmentation_node, "Liver", client, "lite-medsam", Propagation(10, 40))
    """
    with NodeSession(volume_node, segmentation_node, client, model, allow_foreign=allow_foreign) as session:
        propagate(session, name, propagation)


def uncertainty_node(
    volume_node: Any,
    segmentation_node: Any,
    name: str,
    client: Client,
    model: Model,
    answers: int = ANSWERS,
    allow_foreign: bool = False,
) -> Any:
    """Map how far the answers to jittered prompts of a segment disagree. Returns a new scalar volume node, 0 to 1 bit.

    Example::

        map_node = uncertainty_node(volume_node, segmentation_node, "Liver", client, "lite-medsam")

    Raises:
        InputError, PromptError: there is no such segment, it has no prompt with a position, or nothing was found.
        FoundationSegError: whatever the request failed with.
    """
    with NodeSession(volume_node, segmentation_node, client, model, allow_foreign=allow_foreign) as session:
        found = map_uncertainty(session, name, client, answers)
    return show_uncertainty(volume_node.GetScene(), found, name, volume_node)


@frozen
class SegmentedSequence:
    """The segments of all frames.

    Attributes:
        segmentation_node: shows those of the frame that the browser shows, and keeps corrections of it.
        chart_node: draws the volume of each segment over the frames, from a table node (``GetTableNodeID``).
        consistency: by the names of segments: ``volumes_ml`` (or ``pixels``), ``flicker`` and ``largest_step``.
        corrected: the numbers of the frames that were corrected before, which stayed as they were.
        undo: takes all of it back, where nobody has changed it since (:meth:`.SegmentationSequence.write`).
    """

    segmentation_node: Any
    chart_node: Any
    consistency: Mapping[str, Mapping[str, Any]]
    corrected: tuple[int, ...]
    undo: Callable[[], None]


class SequenceRun:
    """One run through all frames of a sequence, a request after the other, for those who cannot wait.

    Args:
        volume_node, prompts, model, segmentation_node, frame_prompts: see :func:`segment_sequence`.

    Raises:
        InputError, GeometryError: the image shows no sequence of images on one grid, or the prompts make no sense.
    """

    def __init__(
        self,
        volume_node: Any,
        prompts: Prompts,
        model: Model,
        segmentation_node: Any = None,
        frame_prompts: Mapping[int, Prompts] | None = None,
    ) -> None:
        self._frames, self._choice, self._asked = frames_from_node(volume_node), choose(model), 0
        if self._choice.region is not None:
            raise InputError("segments are followed through time in the whole image: choose the model without a region")
        self._sequence = SegmentationSequence(volume_node, segmentation_node)
        number, others = self._sequence.shown_frame, frame_prompts or {}
        prompted = {number: load_prompts(prompts)} | {n: load_prompts(other) for n, other in others.items()}
        self._names = [segment.name for segment in prompted[number].segments]
        self._prompts = json.dumps(prompts_to_document(prompted[number]), ensure_ascii=False)
        self._corrected = self._sequence.read(self._names, only_corrected=True)
        placed = frames_in_time.place_prompts(prompted, self._frames)
        self._questions = frames_in_time.questions_in_time(self._frames, placed, self._corrected)
        self._answers: list[frames_in_time.FrameAnswer] = []

    @property
    def report(self) -> ProgressReport:
        """How many frames were asked about before the last one."""
        return ProgressReport("frames", max(0, self._asked - 1), len(self._frames))

    def next_request(self, answer: Prediction | None = None) -> tuple[Volume, PredictRequest] | None:
        """Take in the answer to the request before, and return the next one with its image; None after the last."""
        while True:
            try:
                n, moved = self._questions.send(answer)
            except StopIteration as end:
                self._answers = end.value
                return None
            self._asked += 1
            if n not in self._corrected:
                key, choice = self._frames[n].key, self._choice
                request = PredictRequest(randbits(48), choice.model_id, key, moved.segments, choice.intensity)
                return self._frames[n], request
            masks = tuple(SegmentPrediction(mask, None) for mask in self._corrected[n])
            answer = Prediction(0, masks, {}, CheckpointRecord("", "", "", ""), "", "")

    def write(self) -> SegmentedSequence:
        """Write the answers into the scene, after the last one.

        Raises:
            InputError: image, frames or segments were changed meanwhile; nothing is written then.
        """
        sequence, names = self._sequence, self._names
        if sequence.read(names, only_corrected=True) != self._corrected:
            raise InputError("segments were changed meanwhile: nothing was written, run it again")
        new = {n: answer for n, answer in enumerate(self._answers) if n not in self._corrected}
        origins = {n: (answer.masks, _origin(answer.prediction, self._prompts)) for n, answer in new.items()}
        written, take_back = sequence.write(names, origins)
        consistency = frames_in_time.consistency(names, list(written.values()), self._frames[0])
        curves = {name: row.get("volumes_ml") or row["pixels"] for name, row in consistency.items()}
        chart = plot_over_frames(sequence.node, curves)

        def undo() -> None:
            take_back()
            remove_plot(chart)

        return SegmentedSequence(sequence.node, chart, consistency, tuple(self._corrected), undo)


def segment_sequence(
    volume_node: Any,
    prompts: Prompts,
    client: Client,
    model: Model,
    segmentation_node: Any = None,
    frame_prompts: Mapping[int, Prompts] | None = None,
    on_progress: OnProgress = ignore,
) -> SegmentedSequence:
    """Segment all frames of a sequence by prompts of the one that is shown, followed through time and back.

    Frames that were corrected since an earlier run stay as they are. All is written at the end; what is raised before,
    be it by ``on_progress`` to cancel, changes nothing.

    Example::

        answer = segment_sequence(volume_node, "prompts.json", client, "lite-medsam")
        print(answer.consistency["Liver"]["flicker"])

    Args:
        volume_node: the image in which a sequence browser shows its frames.
        prompts: of the frame that is shown.
        client: answers the requests.
        model: a model's id, its card, or a choice by :func:`choose`.
        segmentation_node: of an earlier run, to go on with; a new one unless given.
        frame_prompts: prompts of other frames, by their numbers from 0; the same segments in all.
        on_progress: called with a report before each request.

    Raises:
        InputError, GeometryError: the image shows no sequence of images on one grid, or the prompts make no sense.
        FoundationSegError: whatever the request failed with.
    """
    run = SequenceRun(volume_node, prompts, model, segmentation_node, frame_prompts)
    following = run.next_request()
    while following is not None:
        frame, request = following
        on_progress(run.report)
        client.send_volume(frame)
        try:
            answer = ask(client, request)
        finally:
            client.remove_volume(frame.key)
        following = run.next_request(answer)
    return run.write()


def _origin(prediction: Prediction, prompts: str) -> dict[str, str]:
    options = {"device": prediction.device, "precision": prediction.precision, "frames": "all"}
    texts = {"Intensity": dict(prediction.intensity), "Options": options | prediction.checkpoint.base_document()}
    origin = {"Prompts": prompts, "Version": __version__, **{name: json.dumps(value) for name, value in texts.items()}}
    return prediction.checkpoint.provenance | origin


def report_nodes(
    path: Path | str, segmentation_nodes: Sequence[Any] | None = None, *, with_patient: bool = False
) -> None:
    """Write a page about segmentations: pictures, sizes, codes, prompts, corrections, model and licence.

    Example::

        report_nodes("report.html", [segmentation_node])

    Args:
        path: of the page; one that is there is replaced.
        segmentation_nodes: the segmentations; all of Slicer's scene that have an image unless given.
        with_patient: name the patient, where the subject hierarchy does.

    Raises:
        InputError, GeometryError: there is nothing to report, or it cannot be drawn.
        OutputError: the page cannot be written.
    """
    from .catalog.catalogue import read_catalogue
    from .folders import replace_text
    from .mrml.rendering.report import report_page, scene_cases

    path = Path(path)
    if not path.parent.is_dir():
        raise OutputError(f"{path.name} cannot be written: make the folder first")
    cases = scene_cases(segmentation_nodes, with_patient=with_patient)
    replace_text(path, report_page(cases, read_catalogue(), __version__))
