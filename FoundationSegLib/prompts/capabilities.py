"""Capabilities: prompts held against what a model understands, put into others that it does, and made from words.

Which kinds are translated, and into what, stands on the model's card; what was done is told in notes.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..catalog.label_sets import EVERYTHING, ClassList, classes_of, expand_classes, name_key
from ..catalog.model_cards import TRANSLATIONS, ModelCard, PromptKind
from ..codec import frozen
from ..errors import InputError, PromptError
from ..imaging.geometry import AXES, Axis, Geometry, Vector, as_vector
from . import placement
from .kinds import (
    BoxPrompt,
    ClassPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Polarity,
    Prompt,
    ScribblePrompt,
    SegmentPrompts,
    TextPrompt,
)
from .prompts_file import join_location


def _plural(kind: str) -> str:
    return {"box": "boxes", "class": "class names"}.get(kind, f"{kind}s")


def require_task(card: ModelCard, task: Literal["segment", "classify"]) -> None:
    """Make sure that a model is one for a task.

    Raises:
        InputError: it is for another.
    """
    if card.task != task:
        raise InputError(
            f"{card.id} is a model to {card.task} with, not to {task} with; see 'foundationseg models list'"
        )


def require_understood(card: ModelCard, segment: SegmentPrompts, location: str = "segment") -> None:
    """Make sure that a model takes every prompt of a segment, itself or translated, polarity and class names included.

    Raises:
        PromptError: it does not; the message names the kinds, or some of the classes, that can be given.
    """
    for n, prompt in enumerate(segment.prompts):
        kind = prompt.kind
        if not card.takes(kind):
            kinds = ", ".join(_plural(name) for name in (*card.prompts, *card.translations))
            message = f"{card.title} does not understand {_plural(kind)}; it understands: {kinds}"
            raise PromptError(message, f"{location}.prompts[{n}].type")
        if prompt.polarity is Polarity.NEGATIVE and kind not in (negative := negative_kinds(card)):
            kinds = ", ".join(_plural(name) for name in negative) or "none"
            message = f"{card.title} does not understand negative {_plural(kind)}; negative kinds it understands"
            raise PromptError(f"{message}: {kinds}", f"{location}.prompts[{n}].polarity")
    if card.classes:
        require_classes(card, segment, location)


def negative_kinds(card: ModelCard) -> tuple[str, ...]:
    """The kinds that may say "not this": the model's own, and those that come to one of these.

    Two clicks that make a box cannot, since nobody could tell a corner from a correction.
    """
    translated = (
        kind
        for kind, words in card.translations.items()
        if kind != "point" and set(TRANSLATIONS[kind][words]) & set(card.negative)
    )
    return (*card.negative, *translated)


def class_numbers(classes: ClassList, prompts: Sequence[ClassPrompt], location: str = "segment") -> tuple[int, ...]:
    """The numbers that the class prompts of one segment mean together, each once.

    Raises:
        PromptError: a name is of no class.
    """
    entries = (classes.find(prompt.name, f"{location}: {prompt.name}") for prompt in prompts)
    return tuple(dict.fromkeys(part.number for entry in entries for part in classes.parts_of(entry)))


def require_classes(card: ModelCard, segment: SegmentPrompts, location: str = "segment") -> None:
    """Make sure that the class prompts of a segment name classes of a model that has some, and go with its points.

    With points, a segment is of one class at most, and that a whole one.

    Raises:
        PromptError: they do not.
    """
    classes = classes_of(card)
    with_points = any(isinstance(prompt, PointPrompt) for prompt in segment.prompts)
    named = 0
    for n, prompt in enumerate(segment.prompts):
        if not isinstance(prompt, ClassPrompt):
            continue
        here, named = f"{location}.prompts[{n}].name", named + 1
        if name_key(prompt.name) == name_key(EVERYTHING):
            raise PromptError("everything is many segments, and this is one; name a class", here)
        entry = classes.find(prompt.name, here)
        if entry.needs_points and not with_points:
            raise PromptError(f"{entry.name!r} means nothing without a point", here)
        if with_points and named > 1:
            raise PromptError("a segment with points is of one class", here)
        if with_points and entry.parts:
            parts = ", ".join(classes.by_number[number].name for number in entry.parts[:6])
            raise PromptError(f"with points, name one part of {entry.name!r}: {parts}", here)


def segments_by_name(
    card: ModelCard, classes: Sequence[str] = (), texts: Sequence[str] = ()
) -> tuple[SegmentPrompts, ...]:
    """A segment for each class and each text; "everything" and classes with parts become what they are made of.

    Args:
        card: the model that will be asked. One that has no classes of its own takes their names as it takes texts.
        classes: names or numbers.
        texts: phrases; each once, as they are written.

    Raises:
        PromptError: a name is of no class of the model, a text is empty, or a segment comes twice.
    """
    if not card.classes and asks_for_everything(classes):
        raise PromptError(f"{card.title} has no list of classes: name them one by one", "classes")
    named = [entry.name for entry in expand_classes(card, classes)] if card.classes else classes
    segments = [SegmentPrompts(name, (ClassPrompt(name),)) for name in named]
    segments += [SegmentPrompts(text.strip(), (TextPrompt(text),)) for text in texts]
    names = [segment.name for segment in segments]
    for n, name in enumerate(names):
        if not name.strip():
            raise PromptError("a class or a text is empty")
        if name in names[:n]:
            raise PromptError(f"{name!r} is asked for twice")
    return tuple(segments)


def asks_for_everything(classes: Sequence[str]) -> bool:
    """True where one of the names stands for all classes, of which most will not be in the image."""
    return any(name_key(name) == name_key(EVERYTHING) for name in classes)


POINTS_OF_A_SCRIBBLE = 5
_FINEST_RASTER = 64  # places along each side of a lasso among which its inside point is sought


@frozen
class Translation:
    """A segment in the model's own kinds, the place of each of its prompts in the segment as given, and notes."""

    segment: SegmentPrompts
    origins: tuple[int, ...]
    notes: tuple[str, ...]


def translate(card: ModelCard, segment: SegmentPrompts, geometry: Geometry, location: str = "segment") -> Translation:
    """The prompts of a segment in the kinds that a model understands; those it does understand stay as they are.

    Args:
        card: the model; it takes every kind of the segment (:func:`require_understood`).
        segment: the prompts, RAS in mm.
        geometry: the image.
        place: where the segment stands, for messages and notes.

    Raises:
        PromptError: a prompt has no translation that would be honest, such as a single click where a box is needed, or
            a phrase that is none of the model's classes.
    """
    prompts: list[Prompt] = []
    origins: list[int] = []
    notes: list[str] = []
    clicks: list[int] = []
    for n, prompt in enumerate(segment.prompts):
        here = f"{location}.prompts[{n}]"
        kind = prompt.kind
        if kind in card.prompts:
            prompts.append(prompt)
            origins.append(n)
            continue
        if placement.require_inside(prompt, geometry, here):
            notes.append(f"{placement.positions_location(prompt, here)}: clipped to the image")
        if isinstance(prompt, PointPrompt):
            clicks.append(n)
            if len(clicks) % 2:
                continue
            translated: Sequence[Prompt] = (_box_of_clicks(segment, clicks[-2], n, geometry, location),)
            notes.append(f"{location}.prompts[{clicks[-2]}] and {here}: two clicks became the corners of a box")
        else:
            words = card.translations[kind]
            translated = _translated(prompt, TRANSLATIONS[kind][words], card, geometry, here)
            notes.append(f"{here}: the {kind} became {_description(translated)}, which {card.title} understands")
        prompts += translated
        origins += [n] * len(translated)
    if len(clicks) % 2:
        remedy = "click the opposite corner, too"
        raise PromptError(
            f"{card.title} makes a box of two clicks; {remedy}", f"{location}.prompts[{clicks[-1]}].position"
        )
    made_of = SegmentPrompts(segment.name, tuple(prompts))
    if card.classes:
        require_classes(card, made_of, location)
    return Translation(made_of, tuple(origins), tuple(notes))


def _description(translated: Sequence[Prompt]) -> str:
    points = sum(isinstance(prompt, PointPrompt) for prompt in translated)
    if isinstance(translated[0], ClassPrompt | TextPrompt):
        words = translated[0].name if isinstance(translated[0], ClassPrompt) else translated[0].text
        return f"the {translated[0].kind} {words!r}"
    parts = ["a box"] if any(isinstance(prompt, BoxPrompt) for prompt in translated) else []
    if points:
        parts.append("a point" if points == 1 else f"{points} points")
    return " and ".join(parts)


def _box_of_clicks(segment: SegmentPrompts, first: int, second: int, geometry: Geometry, location: str) -> BoxPrompt:
    corner, opposite = segment.prompts[first], segment.prompts[second]
    if not isinstance(corner, PointPrompt) or not isinstance(opposite, PointPrompt):
        raise PromptError("two clicks make a box", location)
    axis = placement.slice_axis(corner, f"{location}.prompts[{first}]")
    if placement.slice_axis(opposite, f"{location}.prompts[{second}]") != axis:
        raise PromptError("the two corners of a box lie on slices of one axis", f"{location}.prompts[{second}].plane")
    n = AXES.index(axis)
    ends = [geometry.nearest_voxel(prompt.position) for prompt in (corner, opposite)]
    if ends[0][n] != ends[1][n]:
        raise PromptError("the two corners of a box lie on one slice", f"{location}.prompts[{second}].position")
    return _flat_box(np.array(ends), axis, geometry, f"{location}.prompts[{second}].position")


def _translated(
    prompt: Prompt, kinds: Sequence[PromptKind], card: ModelCard, geometry: Geometry, location: str
) -> list[Prompt]:
    if isinstance(prompt, MaskPrompt):
        return [_box_of_mask(prompt, geometry, location)]
    if isinstance(prompt, TextPrompt):
        entry = classes_of(card).find(prompt.text, join_location(location, "text"))
        return [ClassPrompt(entry.name, prompt.polarity)]
    if isinstance(prompt, ClassPrompt):
        return [TextPrompt(prompt.name, prompt.polarity)]
    if not isinstance(prompt, ScribblePrompt | LassoPrompt):
        raise PromptError(f"nothing stands for a {prompt.kind}", f"{location}.type")
    translated: list[Prompt] = []
    negative = prompt.polarity is Polarity.NEGATIVE
    if "box" in kinds and (not negative or "box" in card.negative):
        translated.append(_box_of_outline(prompt, geometry, location))
    if "point" in kinds and (not negative or "point" in card.negative):
        translated += _points_of(prompt, geometry, location)
    if not translated:
        raise PromptError(f"{card.title} has no way to say what is not the object", f"{location}.polarity")
    return translated


def _points_of(prompt: ScribblePrompt | LassoPrompt, geometry: Geometry, location: str) -> list[Prompt]:
    plane = prompt.plane
    with np.errstate(over="ignore", invalid="ignore"):  # of what is so far away nothing is found, and that is said
        if isinstance(prompt, ScribblePrompt):
            positions = _along(prompt, geometry)
        else:
            positions = [_inside(prompt, geometry, location)]
    if not positions:
        raise PromptError("too little of the scribble lies inside the image", join_location(location, "points"))
    return [PointPrompt(position, prompt.polarity, plane) for position in positions]


def _along(scribble: ScribblePrompt, geometry: Geometry) -> list[Vector]:
    """Places that share a stroke evenly among them, at most one in a voxel and only inside the image."""
    points = np.asarray(scribble.points, np.float64)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    reached = np.concatenate([[0.0], np.cumsum(steps)])
    spaced = reached[-1] * (np.arange(POINTS_OF_A_SCRIBBLE) + 0.5) / POINTS_OF_A_SCRIBBLE
    locations = np.stack([np.interp(spaced, reached, points[:, n]) for n in range(3)], axis=1)
    voxels: dict[tuple[int, ...], Vector] = {}
    limits = geometry.shape_kji[::-1]
    for position in (*locations, *points):  # the stroke's own points where all the others lie outside
        voxel = tuple(geometry.nearest_voxel(position).tolist())
        if len(voxels) < POINTS_OF_A_SCRIBBLE and all(0 <= v < limit for v, limit in zip(voxel, limits, strict=True)):
            voxels.setdefault(voxel, as_vector(position))
    return list(voxels.values())


def _inside(lasso: LassoPrompt, geometry: Geometry, location: str) -> Vector:
    """The place inside a lasso, and inside the image, that is furthest from its line, to a 64th of its extent."""
    axis = placement.slice_axis(lasso, location)
    index = placement.slice_number(lasso.points, axis, geometry, join_location(location, "points"))
    others = [n for n in range(3) if n != AXES.index(axis)]
    outline = geometry.to_ijk(lasso.points)[:, others]
    limits = [geometry.shape_kji[::-1][n] - 1 for n in others]
    low, high = np.maximum(np.floor(outline.min(axis=0)), 0), np.minimum(np.ceil(outline.max(axis=0)), limits)
    sides = [np.unique(np.rint(np.linspace(a, b, _FINEST_RASTER))) for a, b in zip(low, high, strict=True)]
    raster = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
    within = raster[is_within(raster, outline)]
    if not within.size:
        raise PromptError("no voxel of the image lies inside the lasso", join_location(location, "points"))
    spacing = np.array(geometry.spacing_mm)[others]
    depth = _distance_to_line(within * spacing, outline * spacing)
    index_ijk = np.full(3, float(index))
    index_ijk[others] = within[int(np.argmax(depth))]
    return as_vector(geometry.to_ras(index_ijk))


def is_within(points: NDArray[np.float64], outline: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Points (n, 2) inside a closed outline of (m, 2), by the even-odd rule."""
    inside = np.zeros(len(points), np.bool_)
    for (ax, ay), (bx, by) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if ay == by:
            continue
        crosses = (ay > points[:, 1]) != (by > points[:, 1])
        inside ^= crosses & (points[:, 0] < ax + (points[:, 1] - ay) * (bx - ax) / (by - ay))
    return inside


def _distance_to_line(points: NDArray[np.float64], outline: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances of (n, 2) points from the nearest edge of a closed outline of (m, 2)."""
    nearest = np.full(len(points), np.inf)
    for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        edge = end - start
        length = float(edge @ edge)
        along = np.clip((points - start) @ edge / length, 0, 1) if length else np.zeros(len(points))
        nearest = np.minimum(nearest, np.linalg.norm(points - start - along[:, None] * edge, axis=1))
    return nearest


def _box_of_outline(prompt: ScribblePrompt | LassoPrompt, geometry: Geometry, location: str) -> BoxPrompt:
    """The flat box around a stroke, its width included, or around a lasso."""
    at = join_location(location, "points")
    axis = placement.slice_axis(prompt, location)
    placement.slice_number(prompt.points, axis, geometry, at)
    voxels = geometry.nearest_voxel(prompt.points)
    if isinstance(prompt, ScribblePrompt):
        others = [n for n in range(3) if n != AXES.index(axis)]
        radius_mm = prompt.radius_mm or min(np.array(geometry.spacing_mm)[others]) / 2
        wider = np.zeros(3, np.int64)
        wider[others] = [math.floor(radius_mm / geometry.spacing_mm[n]) for n in others]
        voxels = np.concatenate([voxels - wider, voxels + wider])
    return _flat_box(voxels, axis, geometry, at)


def _flat_box(voxels_ijk: NDArray[np.int64], axis: Axis, geometry: Geometry, location: str) -> BoxPrompt:
    low, high = voxels_ijk.min(axis=0), voxels_ijk.max(axis=0)
    thin = [opposite for n, opposite in enumerate(AXES) if opposite != axis and low[n] == high[n]]
    if thin:
        message = f"what was drawn has no extent along {' and '.join(thin)}, and a box is needed: draw it wider"
        raise PromptError(message, location)
    return BoxPrompt(_corners(low, high, geometry), plane=axis)


def _box_of_mask(prompt: MaskPrompt, geometry: Geometry, location: str) -> BoxPrompt:
    box = placement.require_voxels(prompt, geometry, location).box
    thin = placement.thin_axes(box)
    if len(thin) > 1:
        raise PromptError(f"the mask is one voxel thick along {' and '.join(thin)}, and a box is needed", location)
    return placement.box_prompt(box, geometry)


def _corners(low: NDArray[np.int64], high: NDArray[np.int64], geometry: Geometry) -> tuple[Vector, Vector]:
    return as_vector(geometry.to_ras(low)), as_vector(geometry.to_ras(high))
