"""VISTA3D's adapter against MONAI's own transforms and inferers, on the same small network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("monai", reason="the package monai is absent")

from safetensors.torch import save_file

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.catalog.label_sets import classes_of
from FoundationSegLib.engine.memory_planning import crop_request
from FoundationSegLib.errors import Cancelled, CheckpointError, PromptError
from FoundationSegLib.imaging.geometry import Geometry, geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models.protocols import VolumePoint, VolumePrompt, VolumeWords
from FoundationSegLib.models.segmentation import vista3d
from FoundationSegLib.models.segmentation.vista3d import network_grid
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.requests.segmentation import PredictRequest
from Testing.models.small_vista3d import NAME, PATCH, small_network, write_checkpoint
from Testing.models.stored_volumes import MATRICES, noise

CARD = read_catalogue()["vista3d"]
FILE = CARD.source.files[0].path
CLICKS = (((20, 10, 10), True), ((22, 25, 50), False), ((18, 20, 30), True))
PARTS = {2: [14, 5], 20: [28, 29, 30, 31, 32]}
STORED = ("RAS", "LPS", "permuted", "oblique")


def named(*names):
    return VolumePrompt(
        tuple(VolumeWords("class", str(name), location=f"prompts[{n}]") for n, name in enumerate(names))
    )


def clicked(*names, clicks=CLICKS):
    return VolumePrompt((*named(*names).parts, *(VolumePoint(at, positive, f"{at}") for at, positive in clicks)))


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def model(network):
    return vista3d.Vista3d(network, classes_of(CARD), "cpu", PATCH)


@pytest.fixture(scope="module")
def bundle():
    pytest.importorskip("nibabel", reason="MONAI turns volumes by the package nibabel, which is absent")
    pytest.importorskip("skimage", reason="MONAI finds connected parts by the package scikit-image, which is absent")
    from Testing.models import bundle_vista3d

    return bundle_vista3d


@pytest.fixture(scope="module")
def labels_of(bundle, network):
    """What the bundle says of a volume, (K, J, I)."""

    def run(volume, **asked):
        array, affine = volume.array_kji.transpose(2, 1, 0), np.array(volume.geometry.ijk_to_ras)
        if isinstance(number := asked.get("previous"), int):
            asked["previous"] = bundle.automatic_logits(network, array, affine, PATCH, number)
        return bundle.run_bundle(network, array, affine, PATCH, **asked).transpose(2, 1, 0)

    return run


def of_bundle(clicks=CLICKS):
    return {"points": [list(at[::-1]) for at, _ in clicks], "point_labels": [int(positive) for _, positive in clicks]}


def masks(model, volume, *prompts, progress=None):
    found = model.view(volume, progress or Progress()).answer(prompts, progress or Progress())
    return [one.mask.expand(volume.geometry.shape_kji) for one in found]


def case(name):
    """Longer than what a window around a point sees."""
    return noise(name, (26, 30, 104))


def stored(full):
    """The ways in which volumes are stored that a test goes through: with points every window is asked twice."""
    return STORED if full else STORED[1::2]


@pytest.mark.parametrize(("name", "slices"), [*((name, 26) for name in MATRICES), ("oblique", 1)])
def test_classes_asked_together_are_the_bundles(labels_of, model, name, slices):
    """Voxel by voxel, on every grid: also a single slice."""
    volume, numbers = noise(name, (slices, 30, 64 if slices > 1 else 34)), [1, 3, 26, 20]
    expected = labels_of(volume, label_prompt=numbers)
    answers = masks(model, volume, *map(named, numbers))
    for number, mask in zip(numbers, answers, strict=True):
        assert np.array_equal(mask, np.isin(expected, PARTS.get(number, [number]))), number
    assert sum(mask.any() for mask in answers) >= 2
    assert np.max(np.sum(answers, axis=0)) == 1


def test_everything_is_the_bundles(bundle, labels_of, model):
    volume = noise("LPS")
    asked = [one.number for one in model.class_list.everything]
    assert asked == bundle.EVERYTHING
    wanted = labels_of(volume, label_prompt=bundle.EVERYTHING)
    found = masks(model, volume, *map(named, asked))
    assert all(np.array_equal(mask, wanted == number) for number, mask in zip(asked, found, strict=True))
    assert sum(mask.any() for mask in found) > 10


@pytest.mark.parametrize("asked", [[3], [2]])
def test_one_class_alone_is_the_bundles(labels_of, model, asked):
    volume = noise("oblique")
    wanted = labels_of(volume, label_prompt=asked) > 0
    assert 0 < wanted.mean() < 1
    assert np.array_equal(masks(model, volume, named(*asked))[0], wanted)


def test_points_alone_are_the_bundles_where_it_looked(labels_of, model, full):
    for name in stored(full):
        volume = case(name)
        wanted = labels_of(volume, **of_bundle())
        assert (wanted == 255).any()
        assert 0 < (wanted == 1).mean() < 1
        assert np.array_equal(masks(model, volume, clicked())[0], wanted == 1), name


def test_an_unlisted_structure_is_the_bundles(labels_of, model):
    volume = noise("permuted", (26, 30, 64))
    wanted = labels_of(volume, label_prompt=[133], **of_bundle())
    assert np.array_equal(masks(model, volume, clicked("unlisted structure"))[0], wanted == 133)
    assert not np.array_equal(wanted == 133, labels_of(volume, **of_bundle()) == 1)


def test_a_class_corrected_by_points_is_the_bundles(labels_of, model, full):
    """In the windows as from its inferer, beyond them as without points: what it takes as the mask before."""
    for name, number in zip(stored(full)[: 4 if full else 1], (26, 3, 1, 26), strict=False):
        volume = case(name)
        wanted = labels_of(volume, label_prompt=[number], previous=number, **of_bundle())
        found = masks(model, volume, clicked(number))[0]
        assert np.array_equal(found, wanted == number), (name, number)
        in_windows = labels_of(volume, label_prompt=[number], **of_bundle())
        looked_at = in_windows != 255
        assert not looked_at.all()
        assert np.array_equal(found[looked_at], in_windows[looked_at] == number), (name, number)
        assert not np.array_equal(found, masks(model, volume, named(number))[0])


def test_segments_of_one_request_do_not_disturb_each_other(model):
    pytest.importorskip("skimage", reason="the package scikit-image is absent")
    volume = noise("LPS", (20, 24, 30))
    together = masks(model, volume, clicked(3), named(1), clicked(), named(14, 1), named(3))
    assert np.array_equal(together[0], masks(model, volume, clicked(3))[0])
    assert np.array_equal(together[2], masks(model, volume, clicked())[0])
    alone = masks(model, volume, named(1), named(14, 1), named(3))
    assert all(np.array_equal(a, b) for a, b in zip(together[1::2] + together[4:], [alone[0], *alone[1:]], strict=True))


def test_what_is_remembered_changes_nothing(model, full):
    pytest.importorskip("skimage", reason="the package scikit-image is absent")
    volume, clicks = noise("RAS", (30, 30, 54) if full else (30, 30, 24)), CLICKS if full else CLICKS[:1]
    view = model.view(volume, Progress())
    first = [view.answer([clicked(number, clicks=clicks)], Progress())[0] for number in (3, 1)]
    again = [view.answer([clicked(number, clicks=clicks)], Progress())[0] for number in (1, 3, 3)]
    assert [one.mask for one in again] == [first[1].mask, first[0].mask, first[0].mask]
    assert again[0].runs == len(clicks) < first[1].runs
    assert view.nbytes == 2 * view.grid.image.nbytes


def test_classes_asked_in_several_passes_are_the_same(model):
    volume = noise("oblique")
    prompts = [named(number) for number in (1, 3, 14, 5, 26)]
    view = model.view(volume, Progress())
    whole = view.answer(prompts, Progress())
    small = replace(model, logit_bytes=2 * view.nbytes)
    parts = small.view(volume, Progress()).answer(prompts, Progress())
    assert [one.mask for one in parts] == [one.mask for one in whole]
    assert sum(one.runs for one in parts) > sum(one.runs for one in whole)


def test_a_point_at_the_very_end_of_anothers_window_is_no_end_to_it(bundle, labels_of, model):
    """MONAI rounds it out of the window, and fails."""
    pytest.importorskip("skimage", reason="the package scikit-image is absent")
    volume = Volume(np.full((40, 40, 80), 100, np.int16), Geometry(np.diag([0.8, 1.5, 1.5, 1.0]), (40, 40, 80)))
    volume.array_kji[:, :, 40:] = 300
    clicks = (((20, 20, 34), True), ((20, 20, 64), True))  # 18.13 and 34.13 on the grid: the first's window ends at 34
    grid = model.view(volume, Progress()).grid
    first, second = grid.to_grid([at[::-1] for at, _ in clicks])[:, 0]
    clicks = ((clicks[0][0], True), ((20, 20, 63), True))
    end = int(first) + PATCH[0] // 2
    assert end - 0.5 < grid.to_grid([clicks[1][0][::-1]])[0, 0] < end < second
    with pytest.raises(IndexError):
        labels_of(volume, label_prompt=[3], **of_bundle(clicks))
    assert masks(model, volume, clicked(3, clicks=clicks))[0].shape == (40, 40, 80)


def test_points_in_the_air_are_told_and_left_out(model):
    pytest.importorskip("skimage", reason="the package scikit-image is absent")
    volume = noise("RAS", (40, 30, 30))
    air = ((2, 5, 5), True)
    view = model.view(volume, Progress())
    found = view.answer([clicked(clicks=(air,)), clicked(3, clicks=(air,)), named(3)], Progress())
    assert found[0].mask.voxels == 0
    assert found[1].mask == found[2].mask
    assert [len([note for note in one.notes if "air" in note]) for one in found] == [1, 1, 0]
    inside = ((30, 12, 12), True)
    both, one = (view.answer([clicked(clicks=some)], Progress())[0] for some in ((inside, air), (inside,)))
    assert both.mask == one.mask
    assert one.mask.voxels


def test_a_name_that_is_no_class_is_told(model):
    with pytest.raises(PromptError, match="no class called 'livr'"):
        masks(model, noise("RAS", (10, 12, 12)), named("livr"))


def test_progress_is_reported_window_by_window(model):
    reports = []
    volume = noise("RAS", (26, 20, 64))
    view = model.view(volume, Progress())
    found = view.answer([named(1), named(3)], Progress(report=reports.append))
    assert [(one.done, one.total) for one in reports] == [(n, len(reports)) for n in range(len(reports))]
    assert [one.runs for one in found] == [len(reports), 0]
    x, y, z = view.grid.image.shape[2:]
    assert [one.notes for one in found] == [(f"looked at as {x} x {y} x {z} voxels of 1.5 mm",), ()]


def test_it_stops_in_the_midst_of_a_window_and_answers_later(model):
    volume, token = noise("RAS", (10, 14, 14)), CancelToken()
    view = model.view(volume, Progress())
    wanted = view.answer([named(3)], Progress())[0]
    calls = []
    hook = model.network.image_encoder.encoder.conv_init.register_forward_hook(
        lambda *_: (calls.append(1), token.cancel())
    )
    try:
        with pytest.raises(Cancelled):
            view.answer([named(3)], Progress(token=token))
    finally:
        hook.remove()
    assert calls == [1]
    assert view.answer([named(3)], Progress())[0].mask == wanted.mask


@pytest.mark.parametrize("name", MATRICES)
def test_a_mask_is_where_the_network_saw_it(name):
    """Bright voxels on the patient's left: a network that knows left from right, and volumes stored in every way."""

    class Brightness(torch.nn.Module):
        def forward(self, images, windows=None, class_vector=None, transpose=False, **_):
            logits = (images[0, 0] - 0.65).repeat(len(class_vector), 1, 1, 1)
            for n, number in enumerate(class_vector[:, 0].tolist()):
                half = images.shape[2] // 2
                side = slice(half, None) if number == 14 else slice(None, half)  # x runs to the right
                logits[n, side] = -1.0
            return logits[None]

    geometry = Geometry(MATRICES[name], (24, 30, 34))
    array = np.zeros(geometry.shape_kji, np.int16)
    middle = geometry.to_ras(np.subtract(geometry.shape_kji[::-1], 1) / 2)
    places = geometry.to_ras(np.indices(geometry.shape_kji)[::-1].reshape(3, -1).T).reshape(*geometry.shape_kji, 3)
    for side in (-1, 1):
        array[np.linalg.norm(places - middle - (side * 8.0, 0, 0), axis=-1) < 5] = 900
    model = vista3d.Vista3d(Brightness(), classes_of(CARD), "cpu", (64, 64, 64))
    left, right, both = masks(model, Volume(array, geometry), named("left kidney"), named("right kidney"), named(2))
    assert places[left][:, 0].max() < middle[0] < places[right][:, 0].min()
    assert np.array_equal(both, left | right)
    assert np.count_nonzero(both ^ (array > 0)) < 0.35 * np.count_nonzero(array)


def test_the_weights_are_read_as_the_hub_has_them(tmp_path, network):
    files = write_checkpoint(tmp_path, network)
    loaded = vista3d.load(CARD, {FILE: files[NAME]}, "cpu")
    assert (loaded.device, loaded.precision, loaded.patch) == ("cpu", "float32", (128, 128, 128))
    assert all(torch.equal(a, b) for a, b in zip(loaded.network.parameters(), network.parameters(), strict=True))
    assert loaded.nbytes == sum(value.nbytes for value in network.state_dict().values())
    assert not loaded.network.training


def test_another_width_of_the_network_is_refused(tmp_path, network):
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    state["network.class_head.class_embeddings.weight"] = torch.zeros(512, 7)
    save_file(state, tmp_path / NAME)
    with pytest.raises(CheckpointError):
        vista3d.load(CARD, {FILE: tmp_path / NAME}, "cpu")


def test_an_image_that_is_nowhere_above_0_hu_is_seen_whole(model):
    array = np.random.default_rng(0).integers(-1000, -600, (6, 8, 9)).astype(np.int16)
    view = model.view(Volume(array, Geometry(np.diag([1.5, 1.5, 1.5, 1.0]), array.shape)), Progress())
    (answer,) = view.answer([named(3)], Progress())
    assert answer.notes[0].startswith("looked at as 9 x 8 x 6 voxels")


@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5, 1.5), (0.7, 0.8, 5.0), (15.0, 4.0, 0.2), (1.0, 1.0, 300.0)])
def test_the_card_forecasts_the_grid_that_the_network_sees(spacing_mm):
    array = np.random.default_rng(0).integers(-1000, -600, (6, 8, 9)).astype(np.int16)
    volume = Volume(array, geometry_from_spacing(array.shape, spacing_mm))
    request = PredictRequest(1, CARD.id, volume.key, ())
    assert crop_request(CARD, request, volume, None).visible_kji == network_grid(volume).image.shape[:1:-1]
