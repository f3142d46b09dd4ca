"""What a user can do at a desk: give prompts, go back and forth, judge, propagate; and what is shown of a segment."""

from collections.abc import Sequence
from dataclasses import dataclass

from .core.errors import InputError
from .core.objects import add_objects, import_prompts, new_segment, next_segment
from .core.prompts import ClassPrompt, Polarity, Prompt, PromptSet, SegmentPrompts, TextPrompt
from .core.requests import Propagation
from .core.session_segment import SegmentSession
from .core.steps import standing
from .desk import Desk
from .mrml import segment_tags


@dataclass(frozen=True, slots=True)
class SegmentSummary:
    """What a panel shows of a segment.

    Attributes:
        name: what the user calls it.
        voxels, volume_ml: how many it has, and their volume in millilitres.
        is_locked: nothing that FoundationSeg does changes it.
        prompts: how many it has.
        can_undo, can_redo, can_judge: whether there is something to undo, to redo, to accept or reject.
        model: the title of the model that it came from last; empty where it came from none.
    """

    name: str
    voxels: int
    volume_ml: float
    is_locked: bool
    prompts: int
    can_undo: bool
    can_redo: bool
    can_judge: bool
    model: str


def summary(desk: Desk) -> SegmentSummary | None:
    """The selected segment as it stands; None while there is none, or no session yet."""
    session = desk.session
    if session is None or session.ledger.store.is_gone or desk.segment_id not in session.ledger.store.segment_ids:
        return None
    ledger, key = session.ledger, desk.segment_id
    record, history = ledger.record(key), ledger.history
    is_waiting = key in session.queued_targets()
    voxels = record.known.voxels
    model_id = ledger.store.provenance(key).get("Model", "")
    card = desk.catalogue.get(model_id)
    return SegmentSummary(
        ledger.store.name(key),
        voxels,
        voxels * session.volume.geometry.voxel_volume_mm3 / 1000,
        ledger.store.is_locked(key),
        len(SegmentSession(session, key).prompts),
        is_waiting or history.can_undo(key),
        not is_waiting and history.can_redo(key),
        is_waiting or ledger.last_change(key) is not None,
        card.title if card is not None else model_id,
    )


def select(desk: Desk, segment_id: str) -> None:
    """Work on this segment from now on; each keeps its own steps and history."""
    if segment_id != desk.segment_id:
        desk.segment_id = segment_id
        desk.on_told("segments")


def selected(desk: Desk) -> SegmentSession:
    """The selected segment; a new one of the wished kind where none is selected.

    Raises:
        InputError, GeometryError: as :meth:`.desk.Desk.opened`.
    """
    session = desk.opened()
    if desk.segment_id not in session.ledger.store.segment_ids:
        add_segment(desk)
    return SegmentSession(session, desk.segment_id)


def add_segment(desk: Desk, numbered: bool = False) -> str:
    """A new, empty segment of the wished kind, selected; numbered if asked for, or where its name is taken.

    Raises:
        InputError, GeometryError: as :meth:`.desk.Desk.opened`.
    """
    session = desk.opened()
    store, kind = session.ledger.store, desk.wishes.kind.strip() or "Segment"
    is_taken = kind in {store.name(key) for key in store.segment_ids}
    made = next_segment(session, kind) if numbered or is_taken else new_segment(session, kind)
    select(desk, made.segment_id)
    return made.segment_id


def give(desk: Desk, prompt: Prompt) -> None:
    """A prompt for the selected segment, or for one of its own.

    Raises:
        FoundationSegError: it makes no sense; nothing has happened then.
    """
    session = desk.opened()
    if session.options.choice is None:
        raise InputError("choose a model first")
    if desk.wishes.many_objects and prompt.polarity is Polarity.POSITIVE:
        add_objects(session, (prompt,), desk.wishes.kind.strip() or "Segment")
    else:
        segment = selected(desk)
        _limit(desk, segment)
        segment.add(prompt)
    desk.on_told("segments")


def give_words(desk: Desk, words: Sequence[str]) -> None:
    """Segments of these names, from a model that understands texts or class names; all in one request.

    Raises:
        FoundationSegError: the model understands no words, or not these.
    """
    session = desk.opened()
    choice = session.options.choice
    card = desk.catalogue.get(choice.model_id) if choice is not None else None
    kind = next(
        (made for name, made in (("class", ClassPrompt), ("text", TextPrompt)) if card and card.takes(name)), None
    )
    if kind is None:
        raise InputError("this model understands no words: choose one that does, or draw")
    wanted = dict.fromkeys(word.strip() for word in words if word.strip())
    if not wanted:
        raise InputError("write what to segment first")
    import_prompts(session, PromptSet(tuple(SegmentPrompts(word, (kind(word),)) for word in wanted)))
    desk.on_told("segments")


def lock(desk: Desk, is_locked: bool) -> None:
    """Keep the selected segment from being changed by anything that FoundationSeg does, or allow it again."""
    segment = desk.segmentation_node.GetSegmentation().GetSegment(desk.segment_id) if desk.segmentation_node else None
    if segment is None:
        raise InputError("select a segment first")
    segment_tags.lock(segment, is_locked)
    desk.on_told("segments")


def undo(desk: Desk) -> bool:
    """Take back the last change of the selected segment; False if there is none."""
    return desk.session is not None and bool(desk.segment_id) and desk.opened().undo(desk.segment_id)


def redo(desk: Desk) -> bool:
    """Do it again; False if there is nothing."""
    return desk.session is not None and bool(desk.segment_id) and desk.opened().redo(desk.segment_id)


def accept(desk: Desk) -> None:
    """The last change of the selected segment is right."""
    desk.opened().accept(selected(desk).segment_id)


def reject(desk: Desk) -> None:
    """The last change of the selected segment is wrong."""
    desk.opened().reject(selected(desk).segment_id)


def propagate(desk: Desk, propagation: Propagation) -> None:
    """Carry the selected segment on through the volume."""
    segment = selected(desk)
    _limit(desk, segment)
    segment.propagate(propagation)


def remove_prompts(desk: Desk, keys: Sequence[str]) -> None:
    """Take prompts of the selected segment back; without any, the last one."""
    segment = selected(desk)
    segment.remove(*(keys or tuple(segment.prompts)[-1:]))


def turn_prompts(desk: Desk, keys: Sequence[str]) -> None:
    """Positive prompts of the selected segment become negative, negative ones positive."""
    segment = selected(desk)
    for key in keys:
        is_positive = segment.prompts[key].polarity is Polarity.POSITIVE
        segment.set_polarity(key, Polarity.NEGATIVE if is_positive else Polarity.POSITIVE)


def ask_again(desk: Desk) -> None:
    """Ask the chosen model with the prompts of the selected segment."""
    segment = selected(desk)
    if desk.wishes.choice is None:
        raise InputError("choose a model first")
    segment.ask_again(desk.wishes.choice)


def stop(desk: Desk) -> None:
    """Stop what is under way and take back what was asked; nothing is changed."""
    desk.drop_request()
    if desk.session is not None:
        desk.session.discard()
    desk.outcome = desk.report = None
    desk.on_told("outcome")


def _limit(desk: Desk, segment: SegmentSession) -> None:
    if standing(segment.steps).region != desk.wishes.region:
        segment.limit(desk.wishes.region)
