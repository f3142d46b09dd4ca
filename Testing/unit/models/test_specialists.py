"""TorchXRayVision: its file read without running it, its scores, and labels that nobody can choose."""

import collections
import os
import pickle
import random
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from FoundationSegLib.catalog.label_sets import label_set_of, labels_of
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import CheckpointError, InputError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models.classification import torchxrayvision
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.classification import ClassifyRequest, EvidenceWish
from FoundationSegLib.requests.scoring import Scoring
from Testing.models.small_image_text import square_pictures
from Testing.models.small_models import CATALOGUE, card_of, load_small, stock
from Testing.models.small_specialists import save_module, small_densenet

CARD = CATALOGUE["torchxrayvision-densenet121"]
LABELS = labels_of(CARD)
# What the network calls its outputs, in their order (torchxrayvision.datasets.default_pathologies).
OUTPUTS = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion"),
    *("Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture"),
    *("Lung Opacity", "Enlarged Cardiomediastinum"),
)


@torch.inference_mode()
def reference_scores(picture):
    """Scores as the package gives them: op_norm of the sigmoid, label by label."""
    levels = torch.from_numpy((picture if picture.ndim == 2 else picture[..., 0]).astype(np.float32))
    pixels = ((2 * (levels / 255.0) - 1.0) * 1024)[None, None]
    if picture.shape[0] != 224:
        pixels = functional.interpolate(pixels, size=(224, 224), mode="bilinear", antialias=True)
    scores = []
    for share, point in zip(
        small_densenet()(pixels)[0].sigmoid().tolist(), torchxrayvision._OPERATING_POINTS, strict=True
    ):
        scores.append(share / (point * 2) if share < point else 1.0 - ((1.0 - share) / ((1 - point) * 2)))
    return np.array(scores)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    card, store = stock(CARD, tmp_path_factory.mktemp("xrv"))
    return Engine({card.id: card}, store, "cpu", load_model=load_small)


def radiograph(picture, **fields):
    geometry = Geometry(np.diag([-1.0, -1.0, 1.0, 1.0]), (1, *picture.shape))  # as pictures in files are shown
    return Volume(picture[None], geometry, "DX", body_part="CHEST", **fields)


def ask(engine, volume, labels=LABELS, **fields):
    if volume.key not in engine.volumes:
        engine.add_volume(volume)
    return engine.classify(ClassifyRequest(1, CARD.id, volume.key, labels, **fields), Progress())


def test_labels_are_the_outputs_in_their_order():
    for name, output in zip(LABELS.names, OUTPUTS, strict=True):
        assert output.replace("_", " ").split()[-1].casefold() in name.casefold()


def test_scores_are_the_packages(engine):
    for picture in (picture for picture in square_pictures() if picture.ndim == 2):
        answer = ask(engine, radiograph(picture))
        expected = reference_scores(picture)
        assert np.allclose([score.score for score in answer.scores], expected, atol=1e-5)
        assert expected.std() > 0.02 and 0 < expected.min() < 0.5 < expected.max() < 1
    assert (answer.rule, answer.wording, answer.is_calibrated, answer.is_exclusive) == ("trained", {}, False, False)
    assert answer.domain.verdict == "inside" and any("operating point" in note for note in answer.notes)
    assert all(score.stands_out == (score.score >= 0.55) and score.spread == 0 for score in answer.scores)


def test_the_middle_is_seen_of_a_picture_that_is_not_square(engine):
    picture = np.random.default_rng(2).integers(0, 256, (50, 81), dtype=np.uint8)
    middle = picture[:, 81 // 2 - 25 : 81 // 2 + 25]
    answer = ask(engine, radiograph(picture), evidence=EvidenceWish("Fracture"))
    assert np.allclose([score.score for score in answer.scores], reference_scores(middle), atol=1e-5)
    assert answer.evidence[0].frame.columns == (15, 65) and answer.evidence[0].values.shape == (1, 7, 7)


def test_some_of_the_labels_can_be_asked_for_and_no_others(engine):
    volume = radiograph(square_pictures()[0])
    some = ask(engine, volume, label_set_of(["Pneumonia", "Atelectasis"], "findings"))
    every = {score.name: score for score in ask(engine, volume).scores}
    assert [score.score for score in some.scores] == [every[name].score for name in ("Pneumonia", "Atelectasis")]
    for labels, rule, words in (
        (
            label_set_of(["Pneumonia", "a broken rib"]),
            Scoring(),
            "reads no words for the set torchx.*'a broken rib'.*its 18 labels",
        ),
        (LABELS, Scoring("pairs"), "leave out the rule"),
        (LABELS, Scoring(temperature=2.0), "leave out the rule"),
    ):
        with pytest.raises(InputError, match=words):
            ask(engine, volume, labels, scoring=rule)


@pytest.mark.parametrize("method", ["similarity", "occlusion"])
def test_evidence_shows_where_the_logit_comes_from(engine, method):
    """By parts the logit is their mean, so that a map of one label is the layer's own."""
    volume = radiograph(square_pictures()[2])
    answer = ask(engine, volume, evidence=EvidenceWish("Lung mass", method, parts=4))
    values = answer.evidence[0].values
    assert answer.evidence[0].label == "Lung mass" and values.std() > 0
    if method == "similarity":
        with torch.inference_mode():
            logits = small_densenet()(torchxrayvision.prepare(square_pictures()[2]))[0]
        assert values.mean() == pytest.approx(float(logits[LABELS.names.index("Lung mass")]), abs=1e-4)


def read_back(path):
    return torchxrayvision.read_module(path, card_of(CARD, {CARD.source.files[0].name: path}))


def test_a_whole_module_is_read_in_the_form_of_its_release(tmp_path):
    save_module(small_densenet(), tmp_path / "module.pt")
    state, expected = read_back(tmp_path / "module.pt"), small_densenet().state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)


class Evil:
    """Runs a command where it is unpickled in the usual way."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["alone", "in a module", "in a list"])
def test_a_file_cannot_run_code(tmp_path, where):
    path, mark = tmp_path / "evil.pt", tmp_path / "it-ran"
    evil, network = Evil(f"touch {mark}"), small_densenet()
    network.evil = evil
    if where == "in a module":
        save_module(network, path)
    else:
        torch.save(evil if where == "alone" else [evil], path, _use_new_zipfile_serialization=False)
    with pytest.raises(
        CheckpointError, match=r"cannot be read: it names (posix|nt).system, which .* download it again"
    ):
        read_back(path)
    assert not mark.exists()


NETWORK, REBUILD = b"ctorchxrayvision.models\nDenseNet\n", b"ctorch._utils\n_rebuild_tensor_v2\n"
WITH_SOURCE = (
    b"(X\x06\0\0\0module" + NETWORK + b"X\x01\0\0\0aX\x01\0\0\0btQ"
)  # torch compares it, and may write a patch
HOSTILE = {
    "an attribute of an allowed name": b"ccollections\nOrderedDict.__init__.__globals__\n.",
    "the same, in the newer way": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    "a state for the class": NETWORK + b"(N(U\x0cdump_patchesI01\ndtb0" + WITH_SOURCE + b".",
    "a state for a function": REBUILD + b"(N(U\x0c__defaults__)dtb.",
    "a state of another's": b"ccollections\nCounter\n)\x81}b.",
    "much memory": b"\x96\0\0\0\0\0\x01\0\0.",
    "a number far out": b"Nr\xff\xff\xff\x7f.",
}


def in_old_form(code):
    """A file of torch before 1.6 with this in place of its object."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    begins = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, system)
    return b"".join(pickle.dumps(part, 2) for part in begins) + code + pickle.dumps([], 2)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_changes_nothing(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    defaults, path = torch._utils._rebuild_tensor_v2.__defaults__, tmp_path / "evil.pt"
    path.write_bytes(in_old_form(HOSTILE[kind]))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_back(path)
    assert list(tmp_path.iterdir()) == [path] and torch._utils._rebuild_tensor_v2.__defaults__ == defaults


def test_other_archives_of_torch_are_refused_before_torch_opens_them(tmp_path, monkeypatch):
    """Torch runs TorchScript, and unpacks the oldest form of all."""
    monkeypatch.chdir(tmp_path)
    network, path = torch.nn.Linear(3, 2), tmp_path / "module.pt"
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3)), path)
    scripted = path.read_bytes()
    save_module(network, path, is_zip=True)
    zipped = path.read_bytes()
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    for content in (scripted, zipped, path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_back(path)


def test_damaged_pickles_are_read_or_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, rng = tmp_path / "module.pt", random.Random(0)
    save_module(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), path)
    whole, before, kinds = path.read_bytes(), read_back(path), collections.Counter()
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 8])):
            start = rng.randrange(len(content))
            length, other = rng.randrange(20), rng.randrange(len(content))
            content[start : start + rng.choice([0, length])] = rng.choice(
                [rng.randbytes(1), b"", content[other : other + length], *HOSTILE.values()]
            )
        path.write_bytes(content)
        try:
            kinds[all(isinstance(value, torch.Tensor) for value in read_back(path).values())] += 1
        except CheckpointError:
            kinds["refused"] += 1
    assert kinds.keys() == {True, "refused"} and list(tmp_path.iterdir()) == [path]
    path.write_bytes(whole)
    assert all(torch.equal(value, before[name]) for name, value in read_back(path).items())


def test_other_files_and_cards_without_a_hash_are_refused(tmp_path):
    path = tmp_path / "module.pt"
    save_module(small_densenet(), path)
    whole = path.read_bytes()
    unknown = replace(CARD, source=replace(CARD.source, files=(replace(CARD.source.files[0], sha256=""),)))
    with pytest.raises(CheckpointError, match="names no hash"):
        torchxrayvision.read_module(path, unknown)
    for content in (b"", whole[:5000], whole[:-5000], b"PK" + whole, pickle.dumps(collections.OrderedDict(a=1))):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            torchxrayvision.read_module(path, CARD)
    network = small_densenet()
    network.classifier = torch.nn.Linear(3, 2)
    save_module(network, path)
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_small(CARD, {CARD.source.files[0].path: path}, "cpu")
