"""Memory that is short, from the start or at any stage: an answer with less, or a clear error; the next one works."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from FoundationSegLib.engine.memory_planning import AvailableMemory, MemoryPlanner, smaller_models
from FoundationSegLib.errors import GeometryError, MemoryShortageError
from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt, SegmentPrompts, TextPrompt
from FoundationSegLib.requests.maintenance import MemoryBudget
from FoundationSegLib.requests.segmentation import PredictRequest
from Testing.unit.engine.engine_cases import new_engine
from Testing.unit.fakes import FakeModel, FakeVolumeModel, fake_card, volume_of

SHAPE = (40, 40, 40)
VOLUMES = {
    "dimensions": [3],
    "channels": [1],
    "prompts": ["box", "point", "text"],
    "intensity": "raw",
    "bytes_per_voxel": 20,
}
CLICK = PointPrompt((20.0, 20.0, 20.0))


def image():
    array = np.random.default_rng(1).integers(0, 50, SHAPE).astype(np.int16)
    array[18:23, 18:23, 18:23] += 200
    return volume_of(array)


class Free:
    """How much memory there is, in bytes, on the host and on the device each."""

    bytes = 10**12

    def measure(self, device):
        return AvailableMemory(self.bytes, self.bytes)


@pytest.fixture
def model():
    return FakeVolumeModel()


@pytest.fixture
def free():
    return Free()


def engine_with(free, folder, model, card=None, budget=None, **planning):
    engine = new_engine(folder, model, card or fake_card(**VOLUMES), budget=budget or MemoryBudget())
    engine.planner = replace(engine.planner, measure=free.measure, **planning)
    return engine


@pytest.fixture
def engine(model, tmp_path, free):
    return engine_with(free, tmp_path, model)


def ask(engine, *prompts, volume=None, **fields):
    volume = volume or image()
    engine.add_volume(volume)
    segments = (SegmentPrompts("A", prompts or (CLICK,)),)
    return engine.predict(PredictRequest(1, "fake", volume.key, segments, **fields), Progress())


def test_an_image_that_fits_is_seen_whole(engine, model, free):
    free.bytes = 40**3 * 20 * 2
    assert ask(engine).notes == ()
    assert model.viewed[-1].shape == SHAPE


def test_an_image_that_does_not_is_seen_around_the_prompts(engine, model, free):
    free.bytes = 40**3 * 20
    answer = ask(engine)
    assert np.prod(model.viewed[-1].shape) <= 40**3 * 0.8
    low, high = (20 - 15, 20 + 16)
    assert answer.notes == (
        f"the model saw the region i {low}:{high}, j {low}:{high}, k {low}:{high} only, "
        "since 1 MB of memory are free, and the whole takes more",
    )
    assert answer.segments[0].mask.box == Box((18, 18, 18), (23, 23, 23))


def test_a_little_more_or_less_memory_changes_nothing(engine, model, free):
    shapes = set()
    for free.bytes in (900_000, 1_000_000, 1_200_000):
        ask(engine)
        shapes.add(model.viewed[-1].shape)
    assert len(shapes) == 1


def test_what_is_viewed_needs_no_room_any_more(engine, model, free):
    ask(engine)
    free.bytes = 1
    assert ask(engine, CLICK, PointPrompt((19.0, 19.0, 19.0))).notes == ()
    assert len(model.viewed) == 1


def test_what_the_old_view_takes_will_be_free(engine, model, free):
    ask(engine)
    engine.views._view.nbytes = 10**9
    free.bytes = 1
    other = volume_of(image().array_kji + 1)
    assert ask(engine, volume=other).notes == ()


@pytest.mark.parametrize("prompt", [TextPrompt("liver"), BoxPrompt(((0.0, 0.0, 0.0), (39.0, 39.0, 39.0)))])
def test_where_no_part_will_do_it_is_said_what_would(engine, model, free, prompt):
    free.bytes = 40**3 * 10
    with pytest.raises(MemoryShortageError) as caught:
        ask(engine, prompt)
    assert str(caught.value) == (
        "Fake Model takes 1 MB for an image of this size, and 640 kB are free: close other programs, limit the model "
        "to a region of interest, or resample the image to larger voxels"
    )
    assert model.viewed == []
    free.bytes = 10**9
    assert ask(engine, prompt).segments[0].mask.voxels > 0


def test_a_region_of_the_users_own_stays_within_bounds(engine, model, free):
    free.bytes = 1000 * 20 * 2
    region = Box((10, 10, 10), (38, 38, 38))
    with pytest.raises(MemoryShortageError):
        ask(engine, region=region)
    free.bytes = 28**3 * 20
    answer = ask(engine, region=region)
    assert answer.notes[0].startswith("the model saw the region i 10:35, j 10:35, k 10:35 only")


def spaced(*spacing_mm):
    return Volume(image().array_kji, geometry_from_spacing(SHAPE, spacing_mm))


@pytest.fixture
def resampling(model, free, tmp_path):
    """An engine whose model brings every image to voxels of 1.5 mm."""
    return engine_with(free, tmp_path, model, fake_card(**VOLUMES | {"spacing_mm": 1.5}))


@pytest.mark.parametrize(
    ("spacing_mm", "text"),
    [
        ((1e-3, 1e-3, 1e-3), "voxels of 0.001 x 0.001 x 0.001 mm become 1 x 1 x 1 of the 1.5 mm"),
        ((0.05, 0.05, 3.0), "voxels of 0.05 x 0.05 x 3 mm become 2 x 2 x 79 of"),
        ((1.5, 1.5, 3000.0), "voxels of 1.5 x 1.5 x 3000 mm become 40 x 40 x 78001 of"),
        ((2e4, 2e4, 2e4), "become 520001 x 520001 x 520001 of"),
    ],
)
def test_an_image_that_would_be_next_to_nothing_or_endless_is_refused_by_its_spacing(
    resampling, model, spacing_mm, text
):
    with pytest.raises(GeometryError, match=rf"^Fake Model cannot see this image: .*{text}.*is its spacing in mm"):
        ask(resampling, TextPrompt("liver"), volume=spaced(*spacing_mm))
    assert model.viewed == []


def test_the_forecast_counts_the_voxels_that_the_model_sees(resampling, model, free):
    free.bytes = 40**3 * 20 * 2
    for fine in ((1.0, 1.0, 1.0), (1.5, 1.5, 1.5)):
        assert ask(resampling, TextPrompt("liver"), volume=spaced(*fine)).notes == ()
    with pytest.raises(MemoryShortageError, match=r"takes 10 MB .*3 x 3 x 3 mm become 79 x 79 x 79 of the 1.5 mm"):
        ask(resampling, TextPrompt("liver"), volume=spaced(3.0, 3.0, 3.0))
    assert "only, since 3 MB" in ask(resampling, PointPrompt((60.0, 60.0, 60.0)), volume=spaced(3.0, 3.0, 3.0)).notes[0]
    assert np.prod(2 * np.array(model.viewed[-1].shape) - 1) * 20 <= free.bytes * 0.8


def test_the_users_limit_counts_as_what_is_there(model, free, tmp_path):
    answer = ask(engine_with(free, tmp_path, model, budget=MemoryBudget(limit=40**3 * 20)))
    assert "since 1 MB of the 1 MB that it is limited to of memory are free" in answer.notes[0]
    assert MemoryBudget(10, 20, 30, 15).within_limit() == MemoryBudget(10, 15, 15, 15)
    assert MemoryBudget(10, 20, 30).within_limit() == MemoryBudget(10, 20, 30)


def patches(shape=(40, 150, 40)):
    """Noise of two values: every part of it has both."""
    return volume_of((np.random.default_rng(2).random(shape) > 0.5).astype(np.int16) * 100)


@pytest.fixture
def tiling(model, tmp_path, free):
    return engine_with(free, tmp_path, model, fake_card(**VOLUMES | {"can_be_tiled": True}), tile_overlap=4)


def test_words_are_asked_in_parts_where_the_model_allows_it(tiling, model, free):
    volume = patches()
    whole = ask(tiling, TextPrompt("liver"), volume=volume)
    tiling.views.clear()
    model.viewed.clear()
    free.bytes = 40 * 120 * 40 * 20
    answer = ask(tiling, TextPrompt("liver"), volume=volume)
    assert answer.segments[0].mask == whole.segments[0].mask
    assert len(model.viewed) > 1
    assert all(part.size * 20 <= free.bytes * 0.8 for part in model.viewed)
    assert answer.segments[0].score is None
    told = (
        f"the model saw the image in {len(model.viewed)} parts, since 4 MB of memory are free, and the whole takes more"
    )
    assert answer.notes == (told,)
    assert answer.counts == {"encodes": len(model.viewed), "decodes": len(model.viewed)}


def test_of_parts_without_anything_to_see_nothing_is_asked(tiling, model, free):
    array = patches().array_kji.copy()
    array[:, 100:] = 0
    free.bytes = 40 * 120 * 40 * 20
    answer = ask(tiling, TextPrompt("liver"), volume=volume_of(array))
    assert np.array_equal(answer.segments[0].mask.expand(array.shape), array > 0)


def test_words_beside_points_are_not_asked_in_parts(tiling, free):
    free.bytes = 40 * 120 * 40 * 20
    with pytest.raises(MemoryShortageError):
        ask(tiling, TextPrompt("liver"), CLICK, volume=patches())


FAULTS = [MemoryError("Unable to allocate"), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")]


class Failing:
    """Models of volumes and of slices that fail at one of their steps, some times; notes what was kept then."""

    def __init__(self, step, fault, times):
        self.step, self.fault, self.times = step, fault, times
        self.volumes, self.slices, self.kept, self.engine = FakeVolumeModel(), FakeModel(), [], None

    def __getattr__(self, name):
        return getattr(self.volumes if name in ("view", "viewed") else self.slices, name)

    def load(self, *arguments):
        return self.attempt("load", lambda: self)

    def view(self, volume, progress):
        view = self.attempt("view", lambda: self.volumes.view(volume, progress))
        answer = view.answer
        return SimpleNamespace(nbytes=500, answer=lambda *asked: self.attempt("answer", lambda: answer(*asked)))

    def encode(self, *arguments):
        return self.attempt("encode", lambda: self.slices.encode(*arguments))

    def decode(self, *arguments):
        return self.attempt("decode", lambda: self.slices.decode(*arguments))

    def attempt(self, step, act):
        if step == self.step:
            self.kept.append((self.engine.views.nbytes, list(self.engine.models)))
            if self.times:
                self.times -= 1
                raise self.fault
        return act()


def failing_engine(free, folder, step, fault=FAULTS[1], times=0, **card):
    model = Failing(step, fault, times)
    model.engine = engine_with(free, folder, model.load, fake_card(**card), tile_overlap=4)
    return model.engine, model


def test_where_memory_runs_out_words_are_asked_in_parts(tmp_path, free):
    engine, model = failing_engine(free, tmp_path, "answer", **VOLUMES | {"can_be_tiled": True})
    volume = patches()
    whole = ask(engine, TextPrompt("liver"), volume=volume)
    model.times = 1
    model.viewed.clear()
    answer = ask(engine, TextPrompt("liver"), volume=volume)
    assert answer.segments[0].mask == whole.segments[0].mask
    assert max(part.size for part in model.viewed) <= volume.array_kji.size / 4
    assert answer.notes[0] == f"the model saw the image in {len(model.viewed)} parts, since memory ran out"


@pytest.mark.parametrize("fault", FAULTS, ids=["host", "device"])
@pytest.mark.parametrize("step", ["load", "view", "answer"])
@pytest.mark.parametrize("times", [1, 2])
def test_where_memory_runs_out_less_is_asked_once(tmp_path, free, step, fault, times):
    """All of it is given back first. Once: an answer that says so. Twice: an error that does; the next one works."""
    engine, model = failing_engine(free, tmp_path, step, fault, **VOLUMES)
    ask(engine)
    if step == "load":
        engine.models.clear()
    model.times, other = times, volume_of(image().array_kji + 1)
    if times == 1:
        answer = ask(engine, volume=other)
        assert answer.notes[0].startswith("the model saw the region i ")
        assert answer.notes[0].endswith(" only, since memory ran out")
        assert answer.notes[-1].startswith("memory ran out (the model could not answer: ")
        assert np.prod(model.viewed[-1].shape) <= 40**3 / 4
        assert answer.segments[0].mask.box == Box((18, 18, 18), (23, 23, 23))
    else:
        with pytest.raises(MemoryShortageError, match="it ran out again: close other programs, limit the model"):
            ask(engine, volume=other)
        assert (engine.views.nbytes, list(engine.models)) == (0, [])
    assert model.kept[-1][0] == (500 if step == "answer" else 0)
    assert ask(engine, volume=other).notes == ()


@pytest.mark.parametrize("step", ["encode", "decode"])
def test_models_of_slices_are_asked_again_as_they_were(tmp_path, step, free):
    engine, _ = failing_engine(free, tmp_path, step, times=1)
    box = BoxPrompt(((15.0, 15.0, 18.0), (25.0, 25.0, 22.0)))
    answer = ask(engine, box, intensity="raw")
    assert answer.segments[0].mask.voxels == 125
    assert answer.notes[-1].endswith("and the model was asked again")
    assert ask(engine, box, intensity="raw").notes == ()


def test_a_model_that_may_not_fit_is_told_before_it_is_loaded(model, free, tmp_path):
    memory = {"memory_mb": {"cpu": 5000}, "memory_basis": {"cpu": "measured"}}
    engine = engine_with(free, tmp_path, model, fake_card(**VOLUMES, **memory))
    free.bytes = 4 * 10**9
    first, second = ask(engine), ask(engine)
    assert first.notes[0].startswith(
        "Fake Model takes up to 5.0 GB (measured), and 4.0 GB are free; if they do not do: "
    )
    assert second.notes == (), "it has been loaded by now"


def test_weights_that_cannot_fit_are_not_loaded(free, tmp_path):
    card = fake_card(**VOLUMES | {"bytes_per_voxel": 0})
    engine = engine_with(free, tmp_path, lambda *arguments: pytest.fail("loaded"), card)
    free.bytes = 300
    with pytest.raises(MemoryShortageError, match="the weights of Fake Model take 400 B, and 300 B are free"):
        ask(engine)


def test_smaller_models_are_those_that_understand_as_much():
    def card(name, prompts, amount):
        return fake_card(
            id=name, prompts=prompts, memory_mb={"cuda": amount}, memory_basis={"cuda": "measured"}, translations={}
        )

    cards = [card("a", ["box", "point"], 900), card("b", ["box"], 100), card("c", ["box", "point"], 500)]
    cards += [
        card("d", ["box", "point", "mask"], 700),
        card("e", ["box", "point"], 2000),
        card("f", ["box", "point"], 300),
    ]
    catalogue = {one.id: one for one in cards}
    asked = replace(cards[0], id="x", memory_mb={"cuda": 1000})
    assert smaller_models(asked, "cuda", catalogue) == ["a", "d"]
    assert smaller_models(asked, "cpu", catalogue) == []
    planner = MemoryPlanner(catalogue)
    assert "compute on the CPU, or use a smaller model (a, d)" in planner.remedies(asked, "cuda")
    assert replace(planner, limit=5).remedies(asked, "cuda").startswith("close other programs or raise the limit, ")
