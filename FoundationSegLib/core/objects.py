"""Many segments at once: one click for each lesion, whole prompts files, names with numbers."""

from collections.abc import Collection, Sequence

from .card_values import ModelCard
from .named_prompts import segments_by_name
from .placement import prompts_in_ras
from .prompts import Prompt, PromptSet, SegmentPrompts
from .regions import AroundPrompt, Region
from .segment_store import NewSegment
from .session import Session
from .session_segment import SegmentSession
from .steps import PromptAdded, RegionStep, standing


def new_segment(session: Session, name: str) -> SegmentSession:
    """A new, empty segment; its term and colour go by its name. Undoing takes it away again."""
    return SegmentSession(session, session.create(NewSegment(name, name)))


def next_segment(session: Session, kind: str = "Segment") -> SegmentSession:
    """A new, empty segment with the next free number behind its name: ``Lesion 1``, ``Lesion 2``, ..."""
    new = _numbered(session, kind, 1)[0]
    return SegmentSession(session, session.create(new))


def free_segment(session: Session, kind: str) -> NewSegment:
    """A segment to be made that is called as it is, or that has the next free number where that name is taken."""
    store = session.ledger.store
    is_taken = kind in {store.name(segment_id) for segment_id in store.segment_ids}
    return _numbered(session, kind, 1)[0] if is_taken else NewSegment(kind, kind)


def add_objects(
    session: Session, prompts: Sequence[Prompt], kind: str = "Lesion", region: Region | None = None
) -> tuple[str, ...]:
    """One prompt for each object makes one numbered segment each, in one request: slices are encoded once.

    The segments are there at once, empty, with their prompts, and keep to a region if one is given; undoing takes all
    of them away again. Returns their ids. Raises as :meth:`.session.Session.act`.
    """
    new, limit = _numbered(session, kind, len(prompts)), _limit(None, region)
    given = ((*limit, PromptAdded("1", prompt)) for prompt in prompts)
    return session.act_on_new(list(zip(new, given, strict=True)))


def import_prompts(session: Session, prompts: PromptSet, region: Region | None = None) -> tuple[str, ...]:
    """Give all prompts of a prompts file, together: to segments of these names, which are made where there are none.

    The segments keep to a region if one is given. One segment after the other where the model sees what is around the
    prompts of each. Returns the ids of the segments, in order. Raises as :meth:`.session.Session.act`.
    """
    ledger, intents = session.ledger, []
    known = {ledger.store.name(key): key for key in reversed(ledger.store.segment_ids)}
    for segment in prompts_in_ras(prompts, session.volume.geometry).segments:
        target = known.get(segment.name) or NewSegment(segment.name, segment.name)
        first, before = 1, None
        if isinstance(target, str):
            known_segment = SegmentSession(session, target)
            first, before = known_segment.next_key, standing(known_segment.steps).region
        limit = _limit(before, region)
        steps = tuple(PromptAdded(str(first + n), prompt) for n, prompt in enumerate(segment.prompts))
        intents.append((target, (*limit, *steps)))
    choice = session.options.choice
    if choice is not None and isinstance(choice.region, AroundPrompt):
        return tuple(segment_id for one in intents for segment_id in session.act_on_new([one]))
    return session.act_on_new(intents)


def add_named(
    session: Session,
    card: ModelCard,
    classes: Sequence[str] = (),
    texts: Sequence[str] = (),
    region: Region | None = None,
) -> tuple[str, ...]:
    """A segment for each class and each text, all in one request: the model looks at the image once.

    Segments of these names are used where there are any. Returns their ids, in order. Raises as
    :func:`.named_prompts.segments_by_name` and
    :meth:`.session.Session.act`.
    """
    named = segments_by_name(card, classes, texts)
    return import_prompts(session, PromptSet(named), region) if named else ()


def export_prompts(session: Session) -> PromptSet:
    """The prompts of all segments that have any, as a prompts file holds them; names that come again are numbered.

    Masks go by file and segment: their voxels are no part of a prompts file.
    """
    found: dict[str, SegmentPrompts] = {}
    for segment_id in session.ledger.store.segment_ids:
        held = standing(session.ledger.record(segment_id).state.steps).prompts
        if held:
            name = _free_name(session.ledger.store.name(segment_id).strip() or "Segment", found)
            found[name] = SegmentPrompts(name, tuple(one.prompt for one in held))
    return PromptSet(tuple(found.values()))


def _limit(before: Region | None, region: Region | None) -> tuple[RegionStep, ...]:
    """The step that limits a segment to a region, if one is given and it does not keep to it already."""
    return (RegionStep(region),) if region is not None and region != before else ()


def _free_name(name: str, taken: Collection[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _numbered(session: Session, kind: str, count: int) -> tuple[NewSegment, ...]:
    store = session.ledger.store
    taken = {store.name(segment_id) for segment_id in store.segment_ids}
    found: list[NewSegment] = []
    number = 0
    while len(found) < count:
        number += 1
        if f"{kind} {number}" not in taken:
            found.append(NewSegment(f"{kind} {number}", kind, number))
    return tuple(found)
