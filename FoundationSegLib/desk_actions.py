"""What a user can do at a desk: give prompts, go back and forth, judge, propagate; and what is shown of a segment."""

from collections.abc import Sequence
from dataclasses import dataclass

from .desk import Desk
from .errors import InputError
from .mrml import segment_tags
from .prompts.kinds import Polarity, Prompt, PromptSet
from .requests.segmentation import Propagation
from .session.segments import SegmentSession, add_named, add_objects, free_segment, import_prompts, next_segment
from .session.steps import PromptAdded, RegionStep, state_of


@dataclass(frozen=True, slots=True)
class SegmentSummary:
    """What a panel shows of a segment.

    Attributes:
        name: what the user calls it.
        voxels, volume_ml: how many it has, and their volume in millilitres.
        is_locked: nothing that FoundationSeg does changes it.
        prompts: how many it has.
        model: the title of the model that it came from last; empty where it came from none.
    """

    name: str
    voxels: int
    volume_ml: float
    is_locked: bool
    prompts: int
    model: str


@dataclass(frozen=True, slots=True)
class Possible:
    """What can be done to the selected segment, also where its making was undone."""

    undo: bool = False
    redo: bool = False
    judge: bool = False


def summary(desk: Desk) -> SegmentSummary | None:
    """The selected segment as it stands; None while there is none, or no session yet."""
    session, key = desk.session, desk.segment_id
    if session is None or not session.can_read(key):
        return None
    voxels, model_id = session.voxels(key), session.provenance(key).get("Model", "")
    card = desk.catalogue.get(model_id)
    return SegmentSummary(
        session.segment_name(key),
        voxels,
        voxels * session.volume.geometry.voxel_volume_mm3 / 1000,
        session.is_locked(key),
        len(SegmentSession(session, key).prompts),
        card.title if card is not None else model_id,
    )


def possible(desk: Desk) -> Possible:
    """What can be undone, redone, accepted or rejected now."""
    session, key = desk.session, desk.segment_id
    if session is None or not key:
        return Possible()
    return Possible(session.can_undo(key), session.can_redo(key), session.can_reject(key))


def select(desk: Desk, segment_id: str) -> None:
    """Work on this segment from now on; each keeps its own steps and history."""
    if segment_id != desk.segment_id:
        desk.segment_id = segment_id
        desk.on_told("segments")


def has_selected(desk: Desk) -> bool:
    """True where the selected segment is there, also while there is no session yet."""
    node = desk.segmentation_node
    return node is not None and bool(desk.segment_id) and node.GetSegmentation().GetSegment(desk.segment_id) is not None


def selected(desk: Desk) -> SegmentSession:
    """The selected segment.

    Raises:
        InputError, GeometryError: none is, or as :meth:`.desk.Desk.opened`.
    """
    session = desk.opened()
    if desk.segment_id not in session.segment_ids:
        raise InputError("select a segment first")
    return SegmentSession(session, desk.segment_id)


def add_segment(desk: Desk, numbered: bool = False) -> str:
    """A new, empty segment of the wished kind, selected; numbered if asked for, or where its name is taken.

    Raises:
        InputError, GeometryError: as :meth:`.desk.Desk.opened`.
    """
    session, kind = desk.opened(), _kind(desk)
    made = next_segment(session, kind).segment_id if numbered else session.create(free_segment(session, kind))
    select(desk, made)
    return made


def give(desk: Desk, prompt: Prompt) -> None:
    """A prompt for the selected segment; for a new one where none is selected or each is to have its own.

    Raises:
        FoundationSegError: it makes no sense; nothing has happened then.
    """
    session = desk.opened()
    if session.options.choice is None:
        raise InputError("choose a model first")
    if desk.wishes.many_objects and prompt.polarity is Polarity.POSITIVE:
        select(desk, add_objects(session, (prompt,), _kind(desk), desk.wishes.region)[0])
    elif desk.segment_id in session.segment_ids:
        segment = SegmentSession(session, desk.segment_id)
        _limit(desk, segment)
        segment.add(prompt)
    else:
        region = (RegionStep(desk.wishes.region),) if desk.wishes.region is not None else ()
        steps = (*region, PromptAdded("1", prompt))
        select(desk, session.add_to_segments([(free_segment(session, _kind(desk)), steps)])[0])
    desk.on_told("segments")


def give_words(desk: Desk, words: Sequence[str]) -> None:
    """Segments of these names, from a model that understands class names or texts; all in one request.

    Raises:
        FoundationSegError: the model understands no words, or not these.
    """
    session = desk.opened()
    choice = session.options.choice
    card = desk.catalogue.get(choice.model_id) if choice is not None else None
    if card is None or not (card.takes("class") or card.takes("text")):
        raise InputError("this model understands no words: choose one that does, or draw")
    wanted = tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
    if not wanted:
        raise InputError("write what to segment first")
    if card.understands("class") or not card.takes("text"):
        made = add_named(session, card, classes=wanted, region=desk.wishes.region)
    else:
        made = add_named(session, card, texts=wanted, region=desk.wishes.region)
    _took(desk, made)


def take_prompts(desk: Desk, prompts: PromptSet) -> None:
    """The prompts of a file, to segments of the names in it, the last of which is selected then.

    Raises:
        FoundationSegError: they make no sense here; nothing has happened then.
    """
    _took(desk, import_prompts(desk.opened(), prompts, desk.wishes.region))


def lock(desk: Desk, is_locked: bool) -> None:
    """Keep the selected segment from being changed by anything that FoundationSeg does, or allow it again."""
    segment = desk.segmentation_node.GetSegmentation().GetSegment(desk.segment_id) if desk.segmentation_node else None
    if segment is None:
        raise InputError("select a segment first")
    segment_tags.lock(segment, is_locked)
    desk.on_told("segments")


def undo(desk: Desk) -> bool:
    """Take back the last change of the selected segment; False if there is none."""
    is_undone = desk.session is not None and bool(desk.segment_id) and desk.opened().undo(desk.segment_id)
    desk.on_told("outcome")  # what was discarded leaves no outcome
    return is_undone


def redo(desk: Desk) -> bool:
    """Do it again; False if there is nothing."""
    return desk.session is not None and bool(desk.segment_id) and desk.opened().redo(desk.segment_id)


def accept(desk: Desk) -> None:
    """The last change of the selected segment is right."""
    desk.opened().accept(selected(desk).segment_id)


def reject(desk: Desk) -> None:
    """The last change of the selected segment is wrong."""
    desk.opened().reject(selected(desk).segment_id)
    desk.on_told("outcome")


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


def _took(desk: Desk, segment_ids: Sequence[str]) -> None:
    if segment_ids:
        desk.segment_id = segment_ids[-1]
    desk.on_told("segments")


def _kind(desk: Desk) -> str:
    return desk.wishes.kind.strip() or "Segment"


def _limit(desk: Desk, segment: SegmentSession) -> None:
    if state_of(segment.steps).region != desk.wishes.region:
        segment.limit(desk.wishes.region)
