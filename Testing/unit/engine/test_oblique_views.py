"""Prompts in planes at an angle to the image's axes, answered by the engine and put together by a session."""

import numpy as np
import pytest

from FoundationSegLib.api import open_session
from FoundationSegLib.errors import InputError, PromptError
from FoundationSegLib.imaging.geometry import AXES, Box, Geometry, as_vector
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import (
    BoxPrompt,
    LassoPrompt,
    ObliquePlane,
    PointPrompt,
    Polarity,
    ScribblePrompt,
)
from FoundationSegLib.prompts.oblique import view_grid
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.session.segment_store import ArrayStore
from FoundationSegLib.session.segments import new_segment
from FoundationSegLib.session.steps import ModelChoice
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.engine.engine_cases import new_engine, predict, request
from Testing.unit.fakes import FakeModel, FakeVolumeModel, fake_card
from Testing.unit.strategies import rotation

SHAPE, RADIUS_MM = (26, 28, 30), 8.5
CLICKS = {"prompts": ["box", "point"], "negative": ["point"]}


def ball(turn=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 1.0), colours=None):
    """A bright ball in the dark, and where it is."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(turn) * spacing
    matrix[:3, 3] = (-30, 12, 7)
    geometry = Geometry(matrix, SHAPE)
    distance = np.linalg.norm(positions(geometry) - centre_of(geometry), axis=-1)
    inside = distance <= RADIUS_MM
    array = np.where(inside, 200, 0).astype(np.int16)
    if colours is not None:
        array = np.where(inside[..., None], colours, 0).astype(np.uint8)
    return Volume(array, geometry), inside


def positions(geometry):
    """The positions of all voxels, (K, J, I, 3)."""
    return geometry.to_ras(np.moveaxis(np.indices(SHAPE)[::-1], 0, -1))


def centre_of(geometry):
    return geometry.to_ras((np.array(geometry.shape_kji[::-1]) - 1) / 2)


class View:
    """A view through the middle of an image, or some millimetres in front of it."""

    def __init__(self, geometry, turn, aside_mm=0.0):
        self.right, self.up, self.normal = rotation(turn).T
        self.centre = centre_of(geometry) + aside_mm * self.normal
        self.plane = ObliquePlane(*map(as_vector, (self.centre, self.normal, self.up)))
        self.grid = view_grid(self.plane, geometry)

    def at(self, right_mm, up_mm):
        return as_vector(self.centre + right_mm * self.right + up_mm * self.up)

    def box(self, right_mm=10.0, up_mm=10.0):
        return BoxPrompt((self.at(-right_mm, -up_mm), self.at(right_mm, up_mm)), plane=self.plane)

    def cut(self, volume):
        """The voxels that the view goes through."""
        return self.grid.near(self.plane, volume.geometry.box)


def mask_of(prediction, volume, n=0):
    return prediction.segments[n].mask.expand(volume.geometry.shape_kji)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


TURN = (0.5, -0.4, 0.3)


@pytest.mark.parametrize("seed", range(6))
def test_a_ball_is_found_along_any_normal(engine, seed):
    rng = np.random.default_rng(seed)
    volume, inside = ball(rng.uniform(-3, 3, 3), rng.uniform(1.0, 1.6, 3))
    view = View(volume.geometry, rng.uniform(-3, 3, 3), aside_mm=rng.uniform(-3, 3))
    prediction = predict(engine, volume, view.box(), propagation=Propagation())
    assert dice(mask_of(prediction, volume), inside) >= 0.9 and prediction.segments[0].score == 0.75
    assert any("in an oblique view" in note for note in prediction.notes)


@pytest.mark.parametrize("axis", AXES)
def test_a_plane_along_the_image_is_its_slice_by_name(engine, model, axis):
    volume, _ = ball(TURN, (1.0, 1.3, 1.6))
    n = AXES.index(axis)
    columns = volume.geometry.ijk_to_ras[:3, :3].T
    centre = np.rint((np.array(SHAPE[::-1]) - 1) / 2)
    low, high = centre - 8, centre + 7
    low[n] = high[n] = centre[n]
    corners = tuple(as_vector(corner) for corner in volume.geometry.to_ras((low, high)))
    plane = ObliquePlane(corners[0], as_vector(-columns[n]), as_vector(columns[n - 1]))
    for propagation in (None, Propagation()):
        named = predict(engine, volume, BoxPrompt(corners, plane=axis), propagation=propagation)
        encoded, cached = len(model.encoded), set(engine.slice_cache.answers)
        turned = predict(engine, volume, BoxPrompt(corners, plane=plane), propagation=propagation)
        assert (turned.segments, turned.counts, turned.notes) == (
            named.segments,
            {"encodes": 0, "decodes": 0},
            named.notes,
        )
        assert len(model.encoded) == encoded and set(engine.slice_cache.answers) == cached


def test_a_view_is_encoded_once_and_forgotten_with_its_image(engine, model):
    volume, inside = ball()
    view, beside = View(volume.geometry, TURN), View(volume.geometry, TURN, 4.0)
    prediction = predict(engine, volume, view.box())
    mask = mask_of(prediction, volume)
    assert not (mask & ~view.cut(volume)).any() and dice(mask, inside & view.cut(volume)) > 0.93
    predict(engine, volume, view.box(5.0, 6.0))
    assert len(model.encoded) == 1 and predict(engine, volume, view.box()).counts["decodes"] == 0
    assert engine.encode_ahead(Progress()), "the next plane along the normal"
    predict(engine, volume, beside.box())
    assert len(model.encoded) == 3 and {key.volume_key[:32] for key in engine.slice_cache.embeddings} == {volume.key}
    engine.remove_volume(volume.key)
    assert (
        not len(engine.slice_cache.embeddings)
        and not engine.slice_cache.encoded
        and not engine.encode_ahead(Progress())
    )


@pytest.mark.parametrize(
    ("kind", "card"),
    [
        ("click", CLICKS),
        ("scribble", CLICKS | {"translations": {"scribble": "points"}}),
        ("lasso", CLICKS | {"translations": {"lasso": "box+points"}}),
        ("lasso", {"translations": {"lasso": "box"}}),
        ("two clicks", {"translations": {"point": "box"}}),
    ],
)
def test_every_kind_is_answered_in_its_plane(tmp_path, kind, card):
    volume, inside = ball(TURN, (1.0, 1.3, 1.6))
    view = View(volume.geometry, (-0.7, 0.2, 0.9))
    path = tuple(view.at(x, y) for x, y in ((-9, -9), (9, -8), (9, 9), (-8, 9)))
    prompts = {
        "click": (
            PointPrompt(view.at(0, 0), plane=view.plane),
            PointPrompt(view.at(3, 0), Polarity.NEGATIVE, view.plane),
        ),
        "scribble": (ScribblePrompt((view.at(-5, 0), view.at(5, 0)), plane=view.plane),),
        "lasso": (LassoPrompt(path, plane=view.plane),),
        "two clicks": tuple(PointPrompt(corner, plane=view.plane) for corner in (path[0], path[2])),
    }[kind]
    engine = new_engine(tmp_path / "other", FakeModel(), fake_card(**card))
    mask = mask_of(predict(engine, volume, *prompts), volume)
    assert mask.any() and not (mask & ~view.cut(volume)).any()
    if len(prompts) == 2 and kind == "click":
        across = (positions(volume.geometry)[mask] - view.centre) @ view.right
        assert -4 < across.min() < -1 and across.max() < 1.5, "around the one click, and not around the other"
    elif kind != "scribble":
        assert dice(mask, view.cut(volume) & inside) > 0.93


def test_colour_and_a_region_and_another_view_of_the_same_segment(tmp_path, engine):
    volume, inside = ball(colours=(250, 30, 60))
    view = View(volume.geometry, TURN)
    assert dice(mask_of(predict(engine, volume, view.box()), volume), inside & view.cut(volume)) > 0.93
    volume, inside = ball()
    region = Box((5, 5, 5), (16, 25, 25))
    told = []
    engine.add_volume(volume)
    asked = request(volume, view.box(), propagation=Propagation(), region=region)
    prediction = engine.predict(asked, Progress(partial=told.append, part_s=0.0))
    limited = np.zeros_like(inside)
    limited[region.slices] = inside[region.slices]
    assert dice(mask_of(prediction, volume), limited) > 0.9
    parts = [part.masks[0].expand(SHAPE) for part in told]
    assert parts and all((part & limited).any() for part in parts)
    straight = BoxPrompt(tuple(as_vector(volume.geometry.to_ras(corner)) for corner in ((5, 4, 12), (24, 23, 12))))
    alone = [mask_of(predict(engine, volume, prompt), volume) for prompt in (straight, view.box())]
    both = predict(engine, volume, straight, view.box())
    assert np.array_equal(mask_of(both, volume), alone[0] | alone[1]) and both.counts["decodes"] == 0


def test_messages_have_the_numbers_of_the_request(tmp_path):
    volume, _ = ball()
    view = View(volume.geometry, TURN)
    engine = new_engine(tmp_path / "other", FakeModel(), fake_card(**CLICKS))
    negative = PointPrompt(view.at(0, 0), Polarity.NEGATIVE, view.plane)
    straight = PointPrompt(as_vector(view.centre))
    with pytest.raises(PromptError, match=r"^segments\[0\].prompts\[1\]: a negative point alone"):
        predict(engine, volume, straight, negative)
    for propagation in (Propagation(start=3), Propagation(hand_over="interpolate")):
        with pytest.raises((InputError, PromptError), match="these prompts lie in an oblique view"):
            predict(engine, volume, view.box(), propagation=propagation)
    with pytest.raises(PromptError, match="narrow strip"):
        corner = View(volume.geometry, TURN, np.abs(view.normal) @ SHAPE[::-1] / 2 - 1.5)
        predict(engine, volume, BoxPrompt((corner.at(-20, -20), corner.at(20, 20)), plane=corner.plane))


def test_a_model_of_volumes_gets_the_box_around_a_rectangle(tmp_path):
    volume, _ = ball()
    view, model = View(volume.geometry, TURN), FakeVolumeModel()
    engine = new_engine(tmp_path / "other", model, fake_card(dimensions=[3], channels=[1], intensity="raw"))
    predict(engine, volume, view.box(5.0, 4.0))
    corners = [view.at(x, y) for x in (-5, 5) for y in (-4, 4)]
    assert model.asked[0][0].parts[0].box == Box.around(volume.geometry.to_ijk(corners))


def test_a_session_replaces_in_the_plane_undoes_and_replays(engine):
    volume, inside = ball()
    store, view = ArrayStore(volume.geometry), View(volume.geometry, TURN)
    session = open_session(volume, InlineClient(engine), ModelChoice.of(engine.catalogue["fake"]), store)
    segment = new_segment(session, "Ball")

    def now():
        return store.read(segment.segment_id, volume.geometry.box).astype(bool)

    by_hand = np.zeros(SHAPE, bool)
    by_hand[10:22, 4:24, 4:26] = True
    store.put(segment.segment_id, by_hand)
    segment.add(view.box(7.0, 6.0))
    across, along = (np.abs((positions(volume.geometry) - view.centre) @ axis) for axis in (view.right, view.up))
    for where, expected in (
        (view.cut(volume) & (across < 6) & (along < 5), inside),
        (~view.cut(volume) | (across > 8) | (along > 7), by_hand),
    ):
        assert np.array_equal(now()[where], expected[where]), "the answer counts in its rectangle, and there alone"
    boxed = now()
    (key,) = segment.prompts
    segment.move(key, view.box(9.5, 9.5))
    moved = now()
    assert not np.array_equal(moved, boxed)
    with pytest.raises(InputError, match="oblique view"):
        segment.propagate(Propagation(stop=9))
    segment.propagate()
    carried, steps = now(), segment.steps
    assert np.array_equal(carried[10:22], moved[10:22]), "what was drawn by hand stays"
    assert dice(carried[:10], inside[:10]) > 0.85, "the rest is found"
    for before in (moved, boxed, by_hand):
        assert session.undo(segment.segment_id) and np.array_equal(now(), before)
    segment.replay(steps)
    assert np.array_equal(now(), carried)
    with pytest.raises(PromptError, match="wholly outside"):
        segment.add(PointPrompt((500.0, 0.0, 0.0), plane=view.plane))
