"""VoxTell's adapter against the package called directly on files, on the same small network."""

import json
import pickle
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.errors import Cancelled, CheckpointError, PromptError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models.protocols import VolumePrompt, VolumeWords, load_model
from FoundationSegLib.progress import CancelToken, Progress
from Testing.models.stored_volumes import MATRICES, noise

nibabel = pytest.importorskip("nibabel", reason="the package nibabel is absent")
pytest.importorskip("voxtell", reason="the package voxtell is absent")
pytestmark = pytest.mark.filterwarnings("ignore")

from Testing.models import small_voxtell  # noqa: E402

CARD = read_catalogue()["voxtell"]
CHECKPOINT, PLANS, BANK = (file.path for file in CARD.source.files)


def said(*phrases):
    return VolumePrompt(tuple(VolumeWords("text", text, location=f"prompts[{n}]") for n, text in enumerate(phrases)))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("voxtell")


@pytest.fixture(scope="module")
def files(root):
    return small_voxtell.write_checkpoint(root)


@pytest.fixture(scope="module")
def model(files):
    with small_voxtell.small():
        return load_model(CARD, files, "cpu")


@pytest.fixture(scope="module")
def written(files, root, tmp_path_factory):
    """What the package writes of a volume, phrase by phrase, (K, J, I)."""

    def run(volume, *phrases):
        folder = tmp_path_factory.mktemp("image")
        image = nibabel.Nifti1Image(volume.array_kji.transpose(2, 1, 0), volume.geometry.ijk_to_ras)
        nibabel.save(image, folder / "image.nii.gz")
        found = small_voxtell.direct(root, folder / "image.nii.gz", list(phrases), folder / "out")
        return [one.transpose(2, 1, 0) > 0 for one in found]

    return run


def masks(model, volume, *prompts):
    found = model.view(volume, Progress()).answer(prompts, Progress())
    return [one.mask.expand(volume.geometry.shape_kji) for one in found]


@pytest.mark.parametrize("name", ["RAS", "LPS", "permuted", "oblique"])
def test_several_texts_are_the_packages_however_a_volume_is_stored(model, written, name):
    volume, phrases = noise(name, (14, 20, 40)), ("liver", "left kidney", "tumor in the left lung")
    wanted = written(volume, *phrases)
    found = masks(model, volume, *map(said, phrases))
    assert [mask.any() and not mask.all() for mask in wanted] == [True] * 3
    for phrase, one, other in zip(phrases, found, wanted, strict=True):
        assert np.array_equal(one, other), phrase


def test_a_segment_of_two_texts_is_both(model):
    volume = noise("LPS", (10, 20, 24))
    liver, spleen, both = masks(model, volume, said("liver"), said("spleen"), said("Liver", " SPLEEN"))
    assert np.array_equal(both, liver | spleen)
    assert (liver ^ spleen).any()


def test_texts_asked_in_turn_and_several_at_a_time_are_the_same(model):
    volume = noise("permuted", (10, 20, 24))
    prompts = [said(phrase) for phrase in small_voxtell.PHRASES[:3]]
    together = model.view(volume, Progress()).answer(prompts, Progress())
    alone = replace(model, phrase_bytes=1).view(volume, Progress()).answer(prompts, Progress())
    assert [one.mask for one in alone] == [one.mask for one in together]
    assert alone[0].runs == 3 * together[0].runs


@pytest.mark.parametrize("name", MATRICES)
def test_left_is_left_however_a_volume_is_stored(model, monkeypatch, name):
    """A network that finds what is bright in the left half of what it sees: columns run to the patient's right."""

    def forward(images, embeddings):
        logits = images[:, :1] - 1.0
        logits[..., images.shape[-1] // 2 :] = -1.0
        return logits.repeat(1, embeddings.shape[1], 1, 1, 1)

    monkeypatch.setattr(model.predictor.network, "forward", forward)
    monkeypatch.setattr(model.predictor, "patch_size", [40] * 3)  # one window, so that a half of it is one of the body
    geometry = Geometry(MATRICES[name], (20, 30, 34))
    middle = geometry.to_ras(np.subtract(geometry.shape_kji[::-1], 1) / 2)
    places = geometry.to_ras(np.indices(geometry.shape_kji)[::-1].reshape(3, -1).T).reshape(*geometry.shape_kji, 3)
    array = np.full(geometry.shape_kji, 10, np.int16)
    for side in (-1, 1):
        array[np.linalg.norm(places - middle - (side * 8.0, 0, 0), axis=-1) < 4] = 900
    mask = masks(model, Volume(array, geometry), said("left kidney"))[0]
    assert mask.any()
    assert places[mask][:, 0].max() < middle[0]
    assert np.array_equal(mask, (array == 900) & (places[..., 0] < middle[0]))


def test_known_phrases_need_neither_the_language_model_nor_the_network(model, monkeypatch):
    def nothing(*_, **__):
        raise AssertionError("something else was loaded or asked")

    monkeypatch.setattr(model.predictor, "_ensure_text_backbone", nothing)
    monkeypatch.setattr(socket, "socket", nothing)
    assert masks(model, noise("RAS", (8, 12, 12)), said("Left  Kidney"))[0].shape == (8, 12, 12)


def test_a_phrase_that_is_not_known_is_told_with_those_like_it_before_anything_is_asked(model):
    with pytest.raises(PromptError, match="it knows 'left kidney' and 'right kidney'") as caught:
        masks(model, noise("RAS", (8, 12, 12)), said("liver", "left kidneys"))
    assert caught.value.location == "prompts[1].text"


def test_it_tells_how_far_it_is_and_stops_in_between(model, capfd):
    volume, reports, token = noise("RAS", (14, 20, 64)), [], CancelToken()
    view = model.view(volume, Progress())
    found = view.answer([said("liver")], Progress(report=reports.append))
    assert [(one.done, one.total) for one in reports] == [(n, len(reports)) for n in range(1, len(reports) + 1)]
    assert found[0].runs == len(reports) > 1

    def stop(report):
        token.cancel()

    with pytest.raises(Cancelled):
        view.answer([said("liver")], Progress(stop, token))
    assert view.answer([said("liver")], Progress())[0].mask == found[0].mask
    assert capfd.readouterr() == ("", "")


def test_want_of_memory_on_the_device_is_answered_from_the_host(model, monkeypatch):
    volume, seen = noise("RAS", (10, 20, 24)), []
    wanted = masks(model, volume, said("liver"))[0]
    right = model.predictor.predict_single_image

    def full(*arguments, **options):
        seen.append(model.predictor.perform_everything_on_device)
        if seen[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return right(*arguments, **options)

    monkeypatch.setattr(model.predictor, "predict_single_image", full)
    monkeypatch.setattr(model.predictor, "perform_everything_on_device", True)
    assert np.array_equal(masks(model, volume, said("liver"))[0], wanted)
    assert seen == [True, False]
    monkeypatch.setattr(
        model.predictor,
        "predict_single_image",
        lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")),
    )
    with pytest.raises(torch.OutOfMemoryError):
        masks(model, volume, said("liver"))


def test_what_is_loaded_is_what_the_file_holds(model, files):
    state = torch.load(files[CHECKPOINT], weights_only=False)["network_weights"]
    found = model.predictor.network.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert (model.device, model.precision) == ("cpu", "float32")
    assert sorted(model.predictor.embedding_bank) == sorted(small_voxtell.PHRASES)
    weights = {value.data_ptr(): value.nbytes for value in found.values()}  # the decoder has the encoder, too
    assert model.nbytes == sum(weights.values()) + 2 * 2560 * len(small_voxtell.PHRASES)


class Harm:
    """What a file could run while it is read."""

    def __reduce__(self):
        return (print, ("harm",))


@pytest.mark.parametrize(
    "damage", ["code", "cut", "other weights", "no plans", "other plans", "import", "bank", "objects"]
)
def test_files_that_are_damaged_or_would_run_code_are_refused(files, tmp_path, capfd, damage):
    damaged = dict(files)

    def replaced(path, content):
        damaged[path] = tmp_path / path.rpartition("/")[2]
        damaged[path].write_bytes(content)

    checkpoint, plans = files[CHECKPOINT].read_bytes(), json.loads(files[PLANS].read_text())
    if damage == "code":
        torch.save({"network_weights": {}, "logging": Harm()}, tmp_path / "harm.pth")
        replaced(CHECKPOINT, (tmp_path / "harm.pth").read_bytes())
    elif damage == "cut":
        replaced(CHECKPOINT, checkpoint[: len(checkpoint) // 2])
    elif damage == "other weights":
        torch.save({"network_weights": {"weight": torch.zeros(1)}}, tmp_path / "other.pth")
        replaced(CHECKPOINT, (tmp_path / "other.pth").read_bytes())
    elif damage == "no plans":
        damaged.pop(PLANS)
    elif damage == "other plans":
        replaced(PLANS, b'{"configurations": {}}')
    elif damage == "import":
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["nonlin"] = "os.system"
        replaced(PLANS, json.dumps(plans).encode())
    elif damage == "bank":
        replaced(BANK, files[BANK].read_bytes()[:1000])
    else:
        with (tmp_path / "bank.npz").open("wb") as stream:
            np.savez(stream, labels=np.array([Harm()], object), embeddings=np.zeros((1, 2560), np.float16))
        replaced(BANK, (tmp_path / "bank.npz").read_bytes())
    with small_voxtell.small(), pytest.raises(CheckpointError, match="VoxTell"):
        load_model(CARD, damaged, "cpu")
    assert "harm" not in capfd.readouterr().out
    assert pickle.dumps(Harm())  # it can be written, so that what was refused is the reading


def test_nothing_of_a_model_stays_in_the_temporary_folder(files, tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with small_voxtell.small():
        load_model(CARD, files, "cpu")
    assert list(tmp_path.iterdir()) == []
