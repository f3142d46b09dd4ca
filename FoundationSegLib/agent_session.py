"""Calls of agents on images in a scene: begun one at a time, done by the controller, and undone like a click.

The command line (:mod:`.commands.mcp`) has a scene of its own and waits, Slicer has the user's and polls.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from .api import choose_labels, describe, model_document
from .catalog.model_cards import ModelCard, find_card
from .controller import SegmentationController
from .errors import FoundationSegError, InferenceError, InputError
from .hub.store import Store
from .mrml.rendering.overview import overview_pixels
from .mrml.rendering.stage import encoded
from .prompts.capabilities import require_task, require_understood, segments_by_name
from .prompts.kinds import MaskPrompt, PromptSet
from .prompts.prompts_file import parse_prompts
from .requests import agent_calls as calls
from .requests.agent_calls import AgentAnswer, AgentCall
from .requests.classification import ClassifyRequest, Subject
from .requests.heads import LearnedHead
from .session.measures import MeasuresTable
from .session.segment_store import Confirmation, Refused, SegmentEdited
from .worker.protocol import Answered, Event, Failed

_LARGEST_PICTURE = 2000  # pixels of a side
Segmenting = calls.SegmentByPrompts | calls.SegmentByWords | calls.SegmentByClasses
_UNCHANGED = "nothing was changed: the answer was taken back"


class AgentImages(Protocol):
    """The images that an agent may name, and the place where results go."""

    def names(self) -> Sequence[str]:
        """List them."""

    def use(self, name: str, card: ModelCard | None, intensity: str) -> None:
        """Have the controller work on an image, with its segmentation, and with a model where one is given.

        Raises:
            InputError, GeometryError: there is no such image, or it cannot be used.
        """

    def export(self, file: str) -> str:
        """Write the segmentation that is worked on to a file; returns the name that it has now.

        Raises:
            InputError, OutputError: the file may not be written there, or cannot be.
        """


@dataclass(slots=True)
class AgentSession:
    """Does calls, one after the other.

    Attributes:
        controller: the work on the images.
        images: those that may be named.
        store: the checkpoints.
    """

    controller: SegmentationController
    images: AgentImages
    store: Store
    _under_way: Callable[[], AgentAnswer] | None = None
    _failure: FoundationSegError | None = None
    _document: Mapping[str, Any] | None = None
    _measures: MeasuresTable = field(default_factory=MeasuresTable)

    @property
    def is_busy(self) -> bool:
        """True while a call that was begun is not answered."""
        return self._under_way is not None

    def begin(self, call: AgentCall) -> AgentAnswer | None:
        """Begin a call; the answer, where it is there at once. Otherwise :meth:`poll` has it.

        Raises:
            InputError: the user, or another call, is at work: it can be tried again.
            FoundationSegError: the call makes no sense, or fails.
        """
        if self.is_busy or self.controller.is_busy:
            raise InputError("another prompt is being answered; call again when it is done")
        if isinstance(call, calls.ListImages):
            return AgentAnswer({"images": list(self.images.names())})
        if isinstance(call, calls.ListModels):
            cards = [card for card in self.controller.catalogue.values() if call.task in ("any", card.task)]
            return AgentAnswer({"models": [describe(card, self.store) for card in cards]})
        if isinstance(call, calls.ShowModel):
            return AgentAnswer(model_document(find_card(self.controller.catalogue, call.model), self.store))
        if isinstance(call, calls.ClassifyImage):
            self._classify(call)
        elif isinstance(call, Segmenting):
            self._segment(call)
        else:
            return self._do_at_once(call)
        return self.poll()

    def poll(self) -> AgentAnswer | None:
        """The answer to the call that was begun; None while it is under way, and while there is none.

        Raises:
            FoundationSegError: it failed; nothing of it was written then.
        """
        if self._under_way is None or self.controller.is_busy:
            return None
        finish, self._under_way = self._under_way, None
        return finish()

    def stop(self) -> None:
        """Stop the call that is under way, if there is one."""
        if self._under_way is not None:
            self._under_way = None
            self.controller.drop_request()
            self.controller.discard()

    def _do_at_once(
        self, call: calls.UndoChange | calls.MeasureSegments | calls.RenderPicture | calls.ExportSegments
    ) -> AgentAnswer:
        self.images.use(call.image, None, "auto")
        if isinstance(call, calls.RenderPicture):
            return self._render(call)
        if isinstance(call, calls.UndoChange):
            return self._undo(call.segment)
        if isinstance(call, calls.ExportSegments):
            if not self.controller.open().segment_ids:
                raise InputError("the image has no segments to export")
            return AgentAnswer({"file": self.images.export(call.file)})
        return AgentAnswer({"segments": self._rows()})

    def _segment(self, call: Segmenting) -> None:
        card = find_card(self.controller.catalogue, call.model)
        require_task(card, "segment")
        prompts = _prompts(call, card)
        for n, segment in enumerate(prompts.segments):
            require_understood(card, segment, f"segments[{n}]")
        self.images.use(call.image, card, call.intensity)
        self.controller.outcome = None
        self.controller.import_prompts(prompts)
        self._under_way = lambda: self._segmented([segment.name for segment in prompts.segments])

    def _segmented(self, names: Sequence[str]) -> AgentAnswer:
        """Answer with what became of prompts for segments of these names."""
        controller, outcome = self.controller, self.controller.outcome
        if isinstance(outcome, Refused):
            if controller.session is not None:
                controller.discard()
            raise outcome.error
        if isinstance(outcome, Confirmation):
            share = f"{outcome.lost_share:.0%} of a segment and {outcome.by_hand} voxels drawn by hand"
            return AgentAnswer({"status": f"waits for the user in Slicer: it would take away {share}", "segments": []})
        if not isinstance(outcome, SegmentEdited):
            raise InferenceError(_UNCHANGED)
        rows = [row for row in self._rows() if row["name"] in names]
        return AgentAnswer({"status": "done", "segments": rows, "notes": list(outcome.notes)})

    def _classify(self, call: calls.ClassifyImage) -> None:
        card = find_card(self.controller.catalogue, call.model)
        labels = choose_labels(call.labels)
        head = labels if isinstance(labels, LearnedHead) else None
        if head is None or head.checkpoint.model_id != card.id:
            require_task(card, "classify")
        self.images.use(call.image, None, "auto")
        volume = self.controller.send_image()
        self._failure = self._document = None
        request = ClassifyRequest(
            0,
            card.id,
            volume.key,
            head.label_set() if head is not None else labels,
            Subject(head.axis if head is not None else "k"),
            head.intensity if head is not None else call.intensity,
            head=head,
        )
        self.controller.submit(request, self._take)
        self._under_way = self._classified

    def _take(self, event: Event) -> None:
        if isinstance(event, Failed):
            self._failure = event.error
        elif isinstance(event, Answered):
            self._document = event.answer.to_document()

    def _classified(self) -> AgentAnswer:
        if self._failure is not None:
            raise self._failure
        if self._document is None:
            raise InferenceError("the classification was stopped")
        return AgentAnswer(self._document)

    def _undo(self, name: str) -> AgentAnswer:
        controller, session = self.controller, self.controller.open()
        named = [key for key in session.segment_ids if session.segment_name(key) == name]
        if name and not named:
            raise InputError(f"the image has no segment {name[:60]!r}")
        controller.select(named[0] if named else session.last_changed)
        is_undone = bool(controller.segment_id) and controller.undo()
        return AgentAnswer({"undone": is_undone, "segments": self._rows()})

    def _render(self, call: calls.RenderPicture) -> AgentAnswer:
        size, controller = (call.width, call.height), self.controller
        if max(size) > _LARGEST_PICTURE:
            raise InputError(f"a picture of {size[0]} x {size[1]} pixels is too large; at most {_LARGEST_PICTURE}")
        volume = controller.open().volume
        options: dict[str, Any] = {"size": size, "in_pixels": volume.in_pixels, "sides": volume.sides}
        pixels = overview_pixels(controller.volume_node, controller.segmentation_node, **options)
        return AgentAnswer({"width": size[0], "height": size[1]}, encoded(pixels))

    def _rows(self) -> list[dict[str, Any]]:
        """Measure every segment of the image that is worked on."""
        session = self.controller.open()
        while self._measures.measure_next(session):
            pass
        rows = []
        for key in session.segment_ids:
            measures = self._measures.measures.get(key)
            origin = {"locked": session.is_locked(key), "model": session.provenance(key).get("Model", "")}
            rows.append({"name": session.segment_name(key), **(asdict(measures) if measures else {}), **origin})
        return rows


def _prompts(call: Segmenting, card: ModelCard) -> PromptSet:
    if isinstance(call, calls.SegmentByWords):
        return PromptSet(segments_by_name(card, (), call.phrases))
    if isinstance(call, calls.SegmentByClasses):
        return PromptSet(segments_by_name(card, call.classes, ()))
    prompts = parse_prompts({"version": 1, "space": call.space, "segments": list(call.segments)})
    if any(isinstance(prompt, MaskPrompt) for segment in prompts.segments for prompt in segment.prompts):
        raise InputError("masks in files are no prompts for agents: use boxes, points, scribbles or outlines")
    return prompts
