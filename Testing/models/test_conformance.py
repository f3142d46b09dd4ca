"""What every adapter owes the engine, over every card that can be run.

With small random weights in the true layout, and with the trained ones where there are any. The reduced run takes one
card of each family, and of the trained weights what small ones cannot show.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from FoundationSegLib.catalog.catalogue import has_adapter
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.engine.slice_inference import SliceCache
from FoundationSegLib.errors import Cancelled, PromptError
from FoundationSegLib.hub.store import Store, default_store_folder
from FoundationSegLib.imaging.geometry import AXES, Geometry, array_axis, geometry_from_spacing
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.prompts import kinds
from FoundationSegLib.requests import classification
from FoundationSegLib.requests.adaptation import SimilarRequest
from FoundationSegLib.requests.segmentation import Prediction, PredictRequest, Propagation
from Testing.models.cases import SLICES, box_of, dice
from Testing.models.small_models import CATALOGUE, LIGHTEST, WRITERS, load_small, stock
from Testing.models.stored_volumes import HEADERS, under

# Models of volumes have no slices to encode; they are held against their packages instead.
RUNNABLE = [
    card.id for card in CATALOGUE.values() if card.task == "segment" and has_adapter(card) and not card.sees_volumes
]
# The trained weights: LiteMedSAM's can be had anywhere, others are taken where the developer has them already.
OWN_STORE = Store(default_store_folder())
TRAINED = [
    model_id
    for model_id in RUNNABLE
    if CATALOGUE[model_id].family == "lite-medsam" or OWN_STORE.status(CATALOGUE[model_id]) == "ready"
]
SHAPE = (5, 36, 48)
Index = tuple[float, float, float]


@dataclass(frozen=True)
class Subject:
    """A model under test."""

    card: ModelCard
    store: Store
    is_trained: bool

    def engine(self) -> Engine:
        load = {} if self.is_trained else {"load_model": load_small}
        return Engine({self.card.id: self.card}, self.store, "cpu", **load)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = metafunc.config.getoption("--full")
    if "subject" in metafunc.fixturenames:
        families = {CATALOGUE[model_id].family for model_id in RUNNABLE} & WRITERS.keys()
        small = [model_id for model_id in RUNNABLE if CATALOGUE[model_id].family in families]
        if not full:
            small = [LIGHTEST[family].id for family in sorted(families)]
        subjects = [*((model_id, False) for model_id in small), *((model_id, True) for model_id in TRAINED)]
        names = [f"{model_id}, trained" if is_trained else model_id for model_id, is_trained in subjects]
        metafunc.parametrize("subject", subjects, indirect=True, scope="module", ids=names)


def test_every_family_of_slices_has_trained_weights_or_a_writer_of_small_checkpoints():
    missing = {CATALOGUE[model_id].family for model_id in RUNNABLE} - WRITERS.keys() - {"lite-medsam"}
    assert not missing, f"add {missing} to WRITERS in Testing/models/small_models.py; see CONTRIBUTING.md"


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    model_id, is_trained = request.param
    if is_trained:
        return trained_subject(request, model_id)
    return Subject(*stock(CATALOGUE[model_id], tmp_path_factory.mktemp(model_id)), is_trained)


@pytest.fixture(scope="module", params=TRAINED)
def trained(request: pytest.FixtureRequest) -> Subject:
    """Those with trained weights alone."""
    return trained_subject(request, request.param)


def trained_subject(request: pytest.FixtureRequest, model_id: str) -> Subject:
    card = CATALOGUE[model_id]
    store = OWN_STORE if card.family in WRITERS else request.getfixturevalue("store")
    return Subject(card, store, is_trained=True)


@pytest.fixture(scope="module")
def engine(subject: Subject) -> Engine:
    """One engine for whatever does not depend on what was asked before; that nothing does is tested here, too."""
    return subject.engine()


@pytest.fixture
def needs_small(subject: Subject, full: bool) -> None:
    """Skips what takes long with trained weights, and goes by them no other way than by small ones."""
    if subject.is_trained and not full:
        pytest.skip("takes long with the trained weights: run with --full")


def picture(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Noise and a bright body that moves from slice to slice, int16; asymmetric in every axis."""
    k, j, i = np.indices(shape[:3]) / np.maximum(1, np.array(shape[:3]) - 1)[:, None, None, None]
    body = ((j - 0.35 - 0.1 * k) / 0.25) ** 2 + ((i - 0.6 + 0.1 * k) / 0.3) ** 2 < 1
    grey = 100 + 500 * body + 200 * i + np.random.default_rng(seed).normal(0, 40, shape[:3])
    return np.broadcast_to(grey[..., None], shape).astype(np.int16) if len(shape) == 4 else grey.astype(np.int16)


def volume_of(array: np.ndarray, geometry: Geometry | None = None) -> Volume:
    return Volume(array, geometry or geometry_from_spacing(array.shape[:3]))


def box(volume: Volume, low: Index, high: Index, **fields: object) -> kinds.BoxPrompt:
    """A box between two voxels (i, j, k)."""
    first, second = (tuple(volume.geometry.to_ras(corner).tolist()) for corner in (low, high))
    return kinds.BoxPrompt((first, second), **fields)


def click(volume: Volume, at: Index, polarity: str = "positive", plane: str | None = None) -> kinds.PointPrompt:
    return kinds.PointPrompt(tuple(volume.geometry.to_ras(at).tolist()), kinds.Polarity(polarity), plane)


def ask(engine: Engine, volume: Volume, *segments: tuple[kinds.Prompt, ...], **fields: object) -> Prediction:
    engine.add_volume(volume)
    (model_id,) = engine.catalogue
    named = tuple(kinds.SegmentPrompts(f"S{n}", tuple(prompts)) for n, prompts in enumerate(segments))
    return engine.predict(PredictRequest(1, model_id, volume.key, named, **fields), Progress())


def masks(prediction: Prediction, volume: Volume) -> list[np.ndarray]:
    return [segment.mask.expand(volume.geometry.shape_kji) for segment in prediction.segments]


def body_box(volume: Volume, index: int = 2) -> kinds.BoxPrompt:
    return box(volume, (14, 4, index), (42, 26, index))


def test_an_answer_is_a_mask_of_the_image_with_a_score_and_a_record(subject, engine):
    volume = volume_of(picture())
    prediction = ask(engine, volume, (body_box(volume),))
    (mask,) = masks(prediction, volume)
    assert (mask.dtype, mask.shape) == (np.bool_, SHAPE)
    assert not mask[[0, 1, 3, 4]].any(), "a flat box changes its slice"
    score = prediction.segments[0].score
    assert score is None or 0 <= score <= 1
    assert prediction.checkpoint.sha256 == subject.store.sha256(subject.card)
    assert (prediction.device, prediction.precision) == ("cpu", "float32")


@pytest.mark.usefixtures("needs_small")
def test_the_same_steps_give_the_same_mask_whatever_was_asked_before(subject, engine):
    volume = volume_of(picture())
    prompts = [(body_box(volume, n),) for n in (1, 3)]
    first = [ask(engine, volume, boxes).segments for boxes in prompts]
    other_way = subject.engine()
    assert [ask(other_way, volume, boxes).segments for boxes in reversed(prompts)][::-1] == first
    assert [ask(without_cache(subject.engine()), volume, boxes).segments for boxes in prompts] == first


def without_cache(engine: Engine) -> Engine:
    """The engine, which keeps nothing of a slice."""
    engine.slice_cache = SliceCache.within(0)
    return engine


def test_a_second_prompt_on_a_slice_never_encodes(engine):
    volume = volume_of(picture(seed=1))
    assert ask(engine, volume, (body_box(volume),)).counts["encodes"] == 1
    again = ask(engine, volume, (box(volume, (10, 3, 2), (30, 20, 2)),))
    assert (again.counts["encodes"], again.counts["decodes"]) == (0, 1)


@pytest.mark.usefixtures("needs_small")
def test_propagation_encodes_each_slice_once_for_all_segments_and_corrections(subject):
    volume, engine = volume_of(picture()), subject.engine()
    two = (body_box(volume),), (box(volume, (5, 20, 2), (20, 33, 2)),)
    everywhere = Propagation(least_agreement=0.0)
    together = ask(engine, volume, *two, propagation=everywhere)
    assert together.counts["encodes"] <= SHAPE[0]
    again = ask(engine, volume, (*two[0], box(volume, (12, 4, 4), (40, 28, 4))), propagation=everywhere)
    assert together.counts["encodes"] + again.counts["encodes"] <= SHAPE[0]
    tight = ask(without_cache(subject.engine()), volume, *two, propagation=everywhere)
    assert tight.segments == together.segments, "a cache that holds nothing changes nothing but the time"
    noted = [note for note in tight.notes if note.startswith("encoded again")]
    assert bool(noted) == (tight.counts["encodes"] > together.counts["encodes"])


def test_it_can_be_stopped_in_the_midst_of_an_encoding_and_goes_on_after(subject):
    volume, engine, token = volume_of(picture(seed=2)), subject.engine(), CancelToken()
    engine.prepare(subject.card.id, Progress())
    (loaded,) = (engine.models.get(name) for name in engine.models)
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled()

    with pytest.raises(Cancelled):
        loaded.model.encode(picture()[2].astype(np.uint8), stop)
    assert len(calls) == 3
    token.cancel()
    engine.add_volume(volume)
    request = PredictRequest(1, subject.card.id, volume.key, (kinds.SegmentPrompts("S", (body_box(volume),)),))
    with pytest.raises(Cancelled):
        engine.predict(request, Progress(token=token))
    assert engine.predict(request, Progress()).segments == ask(subject.engine(), volume, (body_box(volume),)).segments


@pytest.mark.usefixtures("needs_small")
def test_its_encoder_gives_vectors_for_heads(subject, engine):
    first, second = (volume_of(picture(seed=seed)) for seed in (1, 2))
    vectors = []
    for volume in (first, second, first):
        engine.add_volume(volume)
        request = classification.EmbedRequest(1, subject.card.id, volume.key, classification.Subject(stop=2))
        vectors.append(engine.embed(request, Progress()).vectors)
    assert np.isfinite(vectors[0]).all() and np.allclose(np.linalg.norm(vectors[0], axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2]) and not np.allclose(vectors[0], vectors[1], atol=1e-6)


@pytest.mark.usefixtures("needs_small")
def test_more_objects_like_one_are_sought_in_its_image_and_in_another(engine):
    volume, other = volume_of(picture()), volume_of(picture(seed=1))
    for image in (volume, other):
        engine.add_volume(image)
    (model_id,) = engine.catalogue
    example, targets = pack_mask(volume.array_kji > 480), (volume.key, other.key)
    answer = engine.similar(SimilarRequest(1, model_id, volume.key, example, targets), Progress())
    assert answer.checkpoint.model_id == model_id
    for proposal in answer.proposals:
        assert proposal.volume_key in targets and proposal.mask.voxels
        assert volume.geometry.box.contains(proposal.mask.box)


def test_odd_images_are_answered_in_their_own_shape(subject, engine, full):
    shapes = ((2, 501, 37), (2, 3, 2), (1, 36, 48), (2, 37, 501), (2, 36, 48, 3))
    for shape in shapes if full or not subject.is_trained else shapes[:2]:
        volume = volume_of(picture(shape))
        (mask,) = masks(ask(engine, volume, (box(volume, (0, 0, 0), (shape[2] - 1, shape[1] - 1, 0)),)), volume)
        assert mask.shape == shape[:3]
        assert not mask[1:].any()


def test_a_single_row_or_column_of_voxels_is_answered(subject, engine):
    """One voxel across an axis: its slices are lines on the two others. A box on a line would be thin in two axes."""
    for axis in AXES if "point" in subject.card.prompts else ():
        shape = [4, 30, 30]
        shape[array_axis(axis)] = 1
        volume = volume_of(picture(tuple(shape)))
        across = next(other for other in AXES if other != axis)
        (mask,) = masks(ask(engine, volume, (click(volume, (0, 0, 0), plane=across),)), volume)
        assert mask.shape == tuple(shape)


@pytest.mark.usefixtures("needs_small")
@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("axis", AXES)
def test_it_is_the_same_anatomy_however_it_is_stored(subject, engine, axis, carried, full):
    """Permuted and flipped storage of one volume: the same slice seen the same way, so the same voxels in space."""
    if not full and axis == "j":
        pytest.skip("two axes are enough: run with --full")
    base = volume_of(picture((12, 14, 16)))
    index = {"i": 9, "j": 5, "k": 5}[axis]
    low, high = [3.0, 3.0, 3.0], [12.0, 11.0, 9.0]
    low[AXES.index(axis)] = high[AXES.index(axis)] = float(index)
    prompt, old = (box(base, tuple(low), tuple(high)),), array_axis(axis)
    propagation = Propagation(start=index - 1, stop=index + 2) if carried else None
    (expected,) = masks(ask(engine, base, prompt, propagation=propagation), base)
    for name in ("LPS", "upside down", "sagittal", "coronal"):
        stored = under(name, base)
        order, reverse, _ = HEADERS[name]
        new = order.index(old)
        if carried and reverse[new]:  # the same slices, counted from the other end
            length = stored.volume.geometry.shape_kji[new]
            there = Propagation(start=length - index - 2, stop=length - index + 1)
        else:
            there = propagation
        (mask,) = masks(ask(engine, stored.volume, prompt, propagation=there), stored.volume)
        assert np.array_equal(stored.back(mask), expected), name


def test_an_oblique_volume_is_answered_where_it_was_asked(engine):
    array = picture()
    straight = volume_of(array)
    turn = np.array([[0.96, -0.28, 0.0, 7.0], [0.28, 0.96, 0.1, -3.0], [0.0, -0.1, 0.99, 5.0], [0.0, 0.0, 0.0, 1.0]])
    oblique = volume_of(array, Geometry(turn, SHAPE))
    answers = [masks(ask(engine, volume, (body_box(volume),)), volume)[0] for volume in (straight, oblique)]
    assert np.array_equal(*answers)


def examples(volume: Volume) -> dict[str, tuple[kinds.Prompt, ...]]:
    """Prompts of every kind on the body."""
    ras = lambda *at: tuple(volume.geometry.to_ras(at).tolist())  # noqa: E731
    seed = np.zeros(SHAPE, bool)
    seed[2, 8:20, 20:36] = True
    return {
        "point": (click(volume, (18, 8, 2)), click(volume, (36, 20, 2))),
        "box": (body_box(volume),),
        "scribble": (kinds.ScribblePrompt((ras(18, 8, 2), ras(30, 18, 2), ras(38, 20, 2))),),
        "lasso": (kinds.LassoPrompt((ras(14, 6, 2), ras(40, 8, 2), ras(38, 24, 2), ras(16, 22, 2))),),
        "mask": (kinds.MaskPrompt("seed.seg.nrrd", "S", voxels=pack_mask(seed)),),
        "text": (kinds.TextPrompt("liver"),),
        "class": (kinds.ClassPrompt("liver"),),
    }


def test_every_kind_is_answered_translated_with_a_note_or_refused_with_a_reason(subject, engine):
    volume = volume_of(picture())
    for kind, prompts in examples(volume).items():
        if not subject.card.takes(kind):
            with pytest.raises(PromptError, match="does not understand"):
                ask(engine, volume, prompts)
            continue
        prediction = ask(engine, volume, prompts)
        assert masks(prediction, volume)[0].shape == SHAPE
        translated = [note for note in prediction.notes if "became" in note]
        assert bool(translated) == (kind in subject.card.translations), kind


@pytest.mark.parametrize("name", ["CT liver", "heart", "brain tumour"])
def test_trained_weights_find_what_is_in_a_box_on_a_real_image(trained, shared_data, name, full):
    if name != "heart" and not full:
        pytest.skip("one image is enough: run with --full")
    case, value, index, _ = SLICES[name]
    volume, labels = case.read(shared_data)
    truth = labels == value
    truth[np.arange(len(truth)) != index] = False
    corners = box_of(truth).astype(float)
    prediction = ask(trained.engine(), volume, (box(volume, corners[:3], corners[3:]),), intensity=case.intensity)
    assert dice(masks(prediction, volume)[0], truth) > 0.8


def test_the_card_says_what_it_needs(subject):
    assert any(package.startswith("torch") for package in subject.card.packages)
    assert any(package.startswith("transformers") for package in subject.card.packages)
