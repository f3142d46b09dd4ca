"""nnInteractive with small random weights: what the package says itself, and its session derived from the prompts."""

import io
import json
import pickle
import shutil
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch

from FoundationSegLib.engine.volumes import place_in_volume
from FoundationSegLib.errors import Cancelled, CheckpointError, InputError, PromptError
from FoundationSegLib.imaging.geometry import Box, Geometry, geometry_from_spacing
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models import protocols
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, LassoPrompt, MaskPrompt, PointPrompt, Polarity, ScribblePrompt
from Testing.models.small_models import CATALOGUE, card_of
from Testing.models.stored_volumes import HEADERS, under

pytest.importorskip("nnInteractive", reason="the package nnInteractive is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

from Testing.models.small_nninteractive import FOLDER, Direct, directly, write_checkpoint  # noqa: E402

CARD = CATALOGUE["nninteractive"]
SHAPE = (20, 24, 28)
BRIGHT = (slice(6, 13), slice(7, 16), slice(8, 18))
EVERYWHERE = Progress()


def image(seed=0, dtype=np.int16):
    """Noise with a bright block."""
    array = np.random.default_rng(seed).normal(-500, 300, SHAPE)
    array[BRIGHT] += 1200
    return array.astype(dtype)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("nninteractive")


@pytest.fixture(scope="module")
def files(root):
    return write_checkpoint(root, patch=16)


@pytest.fixture(scope="module")
def card(files):
    return card_of(CARD, files)


@pytest.fixture(scope="module")
def model(card, files):
    return replace(protocols.load_model(card, files, "cpu"), autozoom=False)


def view_of(model, array):
    return model.view(Volume(array, geometry_from_spacing(array.shape)), EVERYWHERE)


def masked(view, *parts, progress=EVERYWHERE):
    (answer,) = view.answer([protocols.VolumePrompt(parts)], progress)
    return answer.mask.expand(view.array_kji.shape)


def voxels(kind, place, positive=True):
    mask = np.zeros(SHAPE, np.bool_)
    mask[place] = True
    return protocols.VolumeVoxels(kind, pack_mask(mask), positive)


POINT, NO_POINT = protocols.VolumePoint((9, 11, 12)), protocols.VolumePoint((3, 3, 3), False)
FLAT, NO_FLAT = (
    protocols.VolumeBox(Box((9, 7, 8), (10, 16, 18))),
    protocols.VolumeBox(Box((2, 3, 20), (9, 12, 21)), False),
)
STROKE, NO_STROKE = voxels("scribble", (9, 11, slice(9, 16))), voxels("scribble", (3, slice(3, 9), 4), False)
RING, NO_RING = voxels("lasso", (9, slice(8, 14), slice(9, 16))), voxels("lasso", (slice(2, 9), 20, slice(2, 9)), False)
KNOWN, MORE = voxels("mask", BRIGHT), voxels("mask", (slice(12, 15), slice(7, 16), slice(8, 18)))
PARTS = [POINT, NO_POINT, FLAT, NO_FLAT, STROKE, NO_STROKE, RING, NO_RING, KNOWN, MORE]


@pytest.mark.parametrize(
    "parts",
    [
        (POINT,),
        (FLAT,),
        (STROKE,),
        (RING,),
        (KNOWN,),
        (KNOWN, NO_POINT),
        (POINT, NO_POINT, protocols.VolumePoint((0, 0, 0)), protocols.VolumePoint((19, 23, 27), False)),
        (POINT, NO_FLAT, NO_STROKE, NO_RING),
        (FLAT, STROKE, MORE, RING, KNOWN),
    ],
    ids=lambda parts: "-".join(getattr(part, "kind", type(part).__name__[6:].lower()) for part in parts),
)
def test_it_says_what_the_package_says(model, root, parts):
    array = image()
    assert np.array_equal(masked(view_of(model, array), *parts), directly(root, array, parts))


def test_the_surroundings_are_looked_at_as_by_the_package(tmp_path, full):
    """Wider and wider, then refined in patches, some of which are placed by chance: half a minute."""
    if not full:
        pytest.skip("looking around takes half a minute: with --full only")
    array, files = image(), write_checkpoint(tmp_path, patch=64)
    wide = protocols.load_model(card_of(CARD, files), files, "cpu")
    direct = Direct(tmp_path / FOLDER, array, autozoom=True)
    np.random.seed(0)  # noqa: NPY002 - the chance that every call of ours begins with
    direct.call("point", POINT.index_kji, True)
    assert np.array_equal(masked(view_of(wide, array), POINT), direct.mask > 0)


@pytest.mark.parametrize("dtype", [np.uint8, ">i2", np.float64, np.float32])
def test_any_type_of_voxels_will_do_and_none_is_written_to(model, root, dtype):
    array = np.clip(image(), 0, 200).astype(dtype)
    array.flags.writeable = False
    before = array.copy()
    assert np.array_equal(masked(view_of(model, array), POINT, NO_POINT), directly(root, before, (POINT, NO_POINT)))
    assert np.array_equal(array, before)


@pytest.mark.parametrize("header", HEADERS)
def test_it_says_so_however_the_image_is_stored(model, root, header):
    """Prompts of every kind in RAS, on an image along other axes: the package is given what lies at the same place."""
    stored = under(header, Volume(image(), Geometry(np.diag([1.5, 2.0, 3.0, 1.0]), SHAPE)))
    array, geometry = stored.volume.array_kji, stored.volume.geometry
    start = under("as stored", Volume(image(), Geometry(np.diag([1.5, 2.0, 3.0, 1.0]), SHAPE)))

    def at(k, j, i):
        return stored.moved(tuple(start.volume.geometry.to_ras((i, j, k))))

    axis = geometry_axis(stored, 0)
    ring = tuple(at(9, j, i) for j, i in ((7.6, 8.6), (7.6, 16.4), (13.4, 16.4), (13.4, 8.6)))
    prompts = (
        BoxPrompt((at(9, 7, 8), at(9, 15, 17))),
        PointPrompt(at(3, 3, 4), Polarity.NEGATIVE),
        ScribblePrompt((at(9, 11, 9), at(9, 11, 16)), plane=axis),
        LassoPrompt(ring, plane=axis),
    )
    places = [f"segments[0].prompts[{n}]" for n in range(4)]
    placed, _ = place_in_volume(prompts, places, geometry)
    wanted = [FLAT, protocols.VolumePoint((3, 3, 4), False), voxels("scribble", (9, 11, slice(9, 17)))]
    wanted.append(voxels("lasso", (9, slice(8, 14), slice(9, 17))))
    for part, other in zip(placed.parts, wanted, strict=True):
        assert np.array_equal(stored.back(drawn(part, array.shape)), drawn(other, SHAPE))
    known = np.zeros(array.shape, np.bool_)
    known[stored_slices(stored)] = True
    seeded, _ = place_in_volume((MaskPrompt("a", "b", voxels=pack_mask(known)), *prompts), ["", *places], geometry)
    for prompt in (placed, seeded):
        assert np.array_equal(masked(view_of(model, array), *prompt.parts), directly(root, array, prompt.parts))


def geometry_axis(stored, old):
    """What the axis of that number in the array as stored is called now."""
    return "kji"[HEADERS[stored.name][0].index(old)]


def stored_slices(stored):
    block = np.zeros(SHAPE, np.bool_)
    block[BRIGHT] = True
    where = np.argwhere(stored.stored(block))
    return tuple(slice(a, b + 1) for a, b in zip(where.min(axis=0), where.max(axis=0), strict=True))


def drawn(part, shape):
    mask = np.zeros(shape, np.bool_)
    if isinstance(part, protocols.VolumePoint):
        mask[part.index_kji] = True
    elif isinstance(part, protocols.VolumeBox):
        mask[part.box.slices] = True
    else:
        mask = part.voxels.expand(shape)
    return mask


class Calls:
    """Counts what the package is asked."""

    def __init__(self, monkeypatch):
        from nnInteractive.inference.inference_session import nnInteractiveInferenceSession as Session

        self.made = []
        for name in dir(Session):
            if name in ("undo", "reset_interactions") or name.startswith("add_"):
                monkeypatch.setattr(Session, name, self.noting(name, getattr(Session, name)))

    def noting(self, name, method):
        def noted(session, *arguments, **options):
            if not options.get("_preserve_undo"):
                self.made.append(name.removeprefix("add_").removesuffix("_interaction"))
            return method(session, *arguments, **options)

        return noted

    def since(self):
        made, self.made = self.made, []
        return made


def test_one_prompt_more_is_one_call_and_the_last_one_taken_back_its_undo(model, monkeypatch):
    view, calls = view_of(model, image()), Calls(monkeypatch)
    asked = []
    for parts in (
        (POINT,),
        (POINT, NO_POINT),
        (POINT, NO_POINT),
        (POINT,),
        (POINT, FLAT),
        (POINT, FLAT, STROKE, RING),
        (POINT, FLAT, STROKE),
        (POINT, FLAT),
        (FLAT,),
        (FLAT, KNOWN),
        (KNOWN,),
    ):
        (answer,) = view.answer([protocols.VolumePrompt(parts)], EVERYWHERE)
        asked.append((calls.since(), answer.runs))
    monkeypatch.undo()
    assert asked == [
        (["point"], 1),
        (["point"], 1),
        ([], 0),
        (["undo"], 0),
        (["bbox"], 1),
        (["scribble", "lasso"], 2),
        (["undo"], 0),
        (["point", "bbox"], 2),  # the package can take back one call, and no second one
        (["bbox"], 1),
        (["initial_seg", "bbox"], 1),  # what is known comes first, whenever it was said
        (["initial_seg"], 1),
    ]


def random_part(chance):
    """A part of any kind, anywhere."""
    positive = bool(chance.random() < 0.7)
    low = chance.integers(0, np.subtract(SHAPE, 4))
    high = low + chance.integers(2, 5, 3)
    thin = chance.integers(3)
    kind = chance.choice(["point", "box", "scribble", "lasso", "mask"])
    if kind == "point":
        return protocols.VolumePoint(tuple(low.tolist()), positive)
    high[thin] = low[thin] + 1
    if kind == "box":
        return protocols.VolumeBox(Box(tuple(low.tolist()), tuple(high.tolist())), positive)
    if kind == "scribble":
        high[(thin + 1) % 3] = low[(thin + 1) % 3] + 1
    if kind == "mask":
        high, positive = low + 4, True
    return voxels(str(kind), tuple(slice(a, b) for a, b in zip(low, high, strict=True)), positive)


def test_whatever_was_done_before_the_mask_is_that_of_the_list(model, card, files, root, full, bar):
    """Prompts added, any of them removed, all of it again, stopped in the midst, and a worker that starts anew."""
    array, chance = image(), np.random.default_rng(5)
    times, same = 200 if full else 5, 0
    view = view_of(model, array)
    for _ in range(times):
        lists = [[POINT], [FLAT]]
        for _ in range(chance.integers(3, 9)):
            parts = lists[chance.integers(2)]
            action = chance.choice(["add", "add", "add", "remove", "last", "again", "stop", "restart"])
            if action == "add":
                parts.append(random_part(chance))
            elif action in ("remove", "last") and len(parts) > 1:
                parts.pop(-1 if action == "last" else chance.integers(1, len(parts)))
            elif action == "restart":
                view = view_of(replace(protocols.load_model(card, files, "cpu"), autozoom=False), array)
            elif action == "stop":
                token = CancelToken()
                reports = Progress(lambda report, token=token: token.cancel(), token)
                with pytest.raises(Cancelled):
                    masked(view, *parts, random_part(chance), progress=reports)
                continue
            asked = masked(view, *parts)
        for parts in lists:
            asked = masked(view, *parts)
            wanted = directly(root, array, tuple(parts))
        same += np.array_equal(asked, wanted)
    bar(f"nnInteractive after {times} random step lists: the mask of a fresh session", same, f"{times}")
    assert same == times


def test_a_stopped_prediction_ends_in_its_midst(model, root):
    view, token = view_of(model, image()), CancelToken()
    hooked = []
    network = model.artifacts["network"]
    hook = network.register_forward_pre_hook(lambda *_: hooked.append(token.cancel()))
    try:
        with pytest.raises(Cancelled):
            masked(view, POINT, progress=Progress(token=token))
    finally:
        hook.remove()
    assert np.array_equal(masked(view, POINT, NO_POINT), directly(root, image(), (POINT, NO_POINT)))


def test_segments_that_are_corrected_in_turn_are_not_replayed(model, root, monkeypatch):
    view, calls = view_of(model, image()), Calls(monkeypatch)
    first, second = [POINT], [FLAT]
    both = view.answer([protocols.VolumePrompt(tuple(first)), protocols.VolumePrompt(tuple(second))], EVERYWHERE)
    calls.since()
    for part in (NO_POINT, STROKE):
        for parts in (first, second):
            parts.append(part)
            view.answer([protocols.VolumePrompt(tuple(parts))], EVERYWHERE)
            assert len(calls.since()) == 1
    assert view.nbytes == 2 * image().size * 21
    monkeypatch.undo()
    for parts, answer in ((first, both[0]), (second, both[1])):
        assert np.array_equal(masked(view, *parts), directly(root, image(), tuple(parts)))
        assert np.array_equal(answer.mask.expand(SHAPE), directly(root, image(), tuple(parts[:1])))


def test_sessions_are_shared_where_memory_is_short(model, root):
    view = view_of(replace(model, session_bytes=1), image())
    for parts in ((POINT,), (FLAT,), (POINT, NO_POINT), (FLAT, NO_POINT)):
        assert np.array_equal(masked(view, *parts), directly(root, image(), parts))
    assert view.nbytes == image().size * 21


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(SHAPE, np.int16), "zero everywhere"),
        (np.full(SHAPE, 7.5), "all that is not zero is 7.5"),
        (np.pad(np.ones((4, 4, 4), np.uint8), 8), "all that is not zero is 1"),
        (np.pad(np.ones((1, 1, 1), np.uint8), 8), "all that is not zero is 1"),
        (np.linspace(16777216, 16777217, 1000).reshape(10, 10, 10), "sees no contrast"),
        (np.linspace(-1e30, 1, 1000).reshape(10, 10, 10), "values as large as 1e"),
    ],
    ids=["empty", "constant", "a constant block", "one voxel", "too alike", "too large"],
)
def test_an_image_that_would_become_nan_is_refused(model, array, message):
    with pytest.raises(InputError, match=message):
        view_of(model, array)


def test_what_is_seen_is_finite_wherever_contrast_is(model):
    array = np.pad(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), 6)
    assert masked(view_of(model, array), protocols.VolumePoint((7, 7, 7))).shape == array.shape


def test_a_box_across_slices_and_words_are_refused_with_their_place(model):
    view = view_of(model, image())
    thick = protocols.VolumeBox(Box((3, 3, 3), (6, 6, 6)), location="segments[0].prompts[1]")
    with pytest.raises(PromptError, match="boxes on a slice only") as caught:
        masked(view, POINT, thick)
    assert caught.value.location == "segments[0].prompts[1].corners"
    with pytest.raises(PromptError, match="does not understand words"):
        masked(view, protocols.VolumeWords("text", "liver"))
    assert masked(view, POINT).any()


def test_nobody_elses_chance_is_touched_and_nothing_is_printed(model, capsys):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    masked(view_of(model, image()), POINT, FLAT)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert capsys.readouterr().out == ""


def test_a_single_slice_will_do(model, root):
    array = image()[:1]
    assert np.array_equal(
        masked(view_of(model, array), protocols.VolumePoint((0, 11, 12))),
        directly(root, array, (protocols.VolumePoint((0, 11, 12)),)),
    )


def test_nothing_is_asked_of_the_network(card, files, root, monkeypatch):
    def trapped(*arguments, **options):
        pytest.fail("a connection was opened")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, trapped)
    monkeypatch.setattr(socket, "getaddrinfo", trapped)
    model = replace(protocols.load_model(card, files, "cpu"), autozoom=False)
    assert masked(view_of(model, image()), POINT).any()


@pytest.fixture
def copied(root, files, tmp_path):
    """The files, to be damaged."""
    shutil.copytree(root / FOLDER, tmp_path / FOLDER)
    return {name: tmp_path / name for name in files}


def test_another_file_than_the_cards_is_never_opened(card, copied, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("opened"))
    path = copied[f"{FOLDER}/fold_0/checkpoint_final.pth"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"checkpoint_final.pth is not the file of the card"):
        protocols.load_model(card, copied, "cpu")
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        protocols.load_model(card, copied, "cpu")


def test_a_card_without_a_hash_is_refused(card, files, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("opened"))
    plain = tuple(replace(file, sha256="") for file in card.source.files)
    with pytest.raises(CheckpointError, match="gives no hash"):
        protocols.load_model(replace(card, source=replace(card.source, files=plain)), files, "cpu")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network_class_name", "subprocess.Popen"),
        ("network_class_name", "dynamic_network_architectures.architectures.unet.np.os.system"),
        ("conv_op", "os.system"),
        ("conv_op", "torch.nn.modules.utils.collections.abc.os"),
    ],
)
def test_a_configuration_that_names_anything_but_a_network_is_refused(card, copied, field, value):
    path = copied[f"{FOLDER}/plans.json"]
    plans = json.loads(path.read_text())
    (configuration,) = plans["configurations"].values()
    part = configuration["architecture"]
    (part if field in part else part["arch_kwargs"])[field] = value
    path.write_text(json.dumps(plans))
    with pytest.raises(CheckpointError, match="names what is no part of a network"):
        protocols.load_model(card, copied, "cpu")


def test_damaged_files_and_weights_of_another_network_are_named(card, copied):
    plans = copied[f"{FOLDER}/plans.json"]
    whole = plans.read_text()
    for content in ("[]", "{", '{"configurations": 3}', '{"configurations": {}}'):
        plans.write_text(content)
        with pytest.raises(CheckpointError, match=r"nnInteractive v1\.0"):
            protocols.load_model(card, copied, "cpu")
    plans.write_text(whole)
    path = copied[f"{FOLDER}/fold_0/checkpoint_final.pth"]
    buffer = io.BytesIO()
    torch.save({"network_weights": {"a": torch.zeros(1)}, "trainer_name": "x", "init_args": {}}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="do not fit together"):
        protocols.load_model(card_of(CARD, copied), copied, "cpu")
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(CheckpointError):
        protocols.load_model(card_of(CARD, copied), copied, "cpu")
