"""Merlin's adapter with small random weights against MONAI, transformers and, where it is, its authors' package."""

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LongformerConfig, LongformerModel

from FoundationSegLib.catalog.label_sets import Label, label_set_of, labels_of
from FoundationSegLib.commands.classify import answer_lines
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import Cancelled, CheckpointError, InputError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume, towards_ras
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.models.classification import merlin
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.requests.classification import ClassifyRequest, EvidenceWish
from FoundationSegLib.requests.classification_answer import EvidenceMap
from FoundationSegLib.requests.scoring import Scoring
from Testing.models.small_image_text import TEXTS
from Testing.models.small_models import CATALOGUE, load_small, stock
from Testing.models.small_volume_text import MERLIN_FILE, MERLIN_SIZE, merlin_shapes, write_merlin
from Testing.models.stored_volumes import FILES, HEADERS, MATRICES, noise, under
from Testing.unit.requests.classification_cases import import_phenotypes


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_merlin(tmp_path_factory.mktemp("merlin"))


@pytest.fixture(scope="module")
def model(files):
    return merlin.load(CATALOGUE["merlin"], files, "cpu", MERLIN_SIZE)


def assert_prepared_alike(volume, size):
    """As by the package's ``ImageTransforms``, which are MONAI's; and its voxels are where MONAI says they are."""
    pytest.importorskip("monai", reason="the package monai is absent")
    from monai import transforms
    from monai.data import MetaTensor

    steps = transforms.Compose([
        transforms.Orientation("RAS"),
        transforms.Spacing((1.5, 1.5, 3), mode="bilinear"),
        transforms.ScaleIntensityRange(-1000, 1000, 0.0, 1.0, clip=True),
        transforms.SpatialPad(size),
        transforms.CenterSpatialCrop(size),
    ])  # fmt: skip
    array = torch.from_numpy(np.ascontiguousarray(volume.array_kji.transpose(2, 1, 0), np.float32))
    other = steps(MetaTensor(array[None], affine=torch.tensor(volume.geometry.ijk_to_ras)))
    mine = merlin.prepare(volume, size)
    assert np.array_equal(mine.voxels[0].numpy(), other.numpy())
    middle = other.affine.numpy() @ [*((n - 1) / 2 for n in size), 1]
    spans = np.array(mine.spans_kji)
    assert np.allclose(volume.geometry.to_ras(spans.mean(axis=1)[::-1] - 0.5), middle[:3], atol=1e-6)
    lengths = (spans[:, 1] - spans[:, 0]) * volume.geometry.spacing_mm[::-1]
    steps_mm = np.linalg.norm(other.affine.numpy()[:3, :3], axis=0) * size
    assert np.allclose(np.sort(lengths), np.sort(steps_mm), rtol=0.1)


@pytest.mark.parametrize("name", MATRICES)
def test_images_are_prepared_as_by_the_authors(name):
    volume = noise(name)
    for dtype, size in ((np.int16, (16, 24, 16)), (np.uint16, (24, 22, 20)), (np.float64, MERLIN_SIZE)):
        array = np.abs(volume.array_kji) if dtype == np.uint16 else volume.array_kji
        assert_prepared_alike(Volume(array.astype(dtype) / dtype(1), volume.geometry, "CT"), size)
    assert_prepared_alike(Volume(volume.array_kji[:1], Geometry(MATRICES[name], (1, 36, 40)), "CT"), (16, 24, 16))


@pytest.mark.parametrize("name", FILES)
def test_real_images_are_prepared_as_by_the_authors(shared_data, name, full):
    assert_prepared_alike(read_volume(shared_data(name)), merlin.SIZE if full else MERLIN_SIZE)


@pytest.mark.usefixtures("only_in_the_full_run")
def test_a_phantom_of_600_slices_is_prepared_as_by_the_authors():
    array = np.random.default_rng(0).integers(-1100, 2000, (600, 512, 512), dtype=np.int16)
    assert_prepared_alike(Volume(array, Geometry(np.diag([-0.7, -0.7, 1.0, 1.0]), array.shape), "CT"), merlin.SIZE)


def reference(i3res, state):
    """The authors' picture tower, inflated from blocks of torchvision as narrow as the small checkpoint's."""
    from torchvision.models.resnet import Bottleneck

    def layer(width, inner, stride, depth):
        across = nn.Sequential(nn.Conv2d(width, 4 * inner, 1, stride, bias=False), nn.BatchNorm2d(4 * inner))
        rest = (Bottleneck(4 * inner, inner) for _ in range(depth - 1))
        return nn.Sequential(Bottleneck(width, inner, stride, across), *rest)

    flat = SimpleNamespace(
        conv1=nn.Conv2d(3, 4, 7, 2, 3, bias=False), bn1=nn.BatchNorm2d(4), maxpool=nn.MaxPool2d(3, 2, 1),
        layer1=layer(4, 4, 1, 1), layer2=layer(16, 8, 2, 2), layer3=layer(32, 16, 2, 2), layer4=layer(64, 32, 2, 1),
        avgpool=nn.AdaptiveAvgPool2d(1),
    )  # fmt: skip
    network = i3res.I3ResNet(flat, conv_class=True)
    network.classifier, network.contrastive_head = nn.Conv3d(128, 1692, 1), nn.Conv3d(128, 40, 1)
    prefix = "encode_image.i3_resnet."
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    network.load_state_dict(own, strict=True)
    return network.eval()


@pytest.mark.filterwarnings("ignore::UserWarning")
@torch.inference_mode()
@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint", "ignore:None of the inputs")  # of the package
def test_vectors_of_images_are_those_of_the_authors(model, files, tmp_path, monkeypatch):
    import_phenotypes(tmp_path, monkeypatch)
    package = pytest.importorskip("merlin.models", reason="merlin-vlm is absent: see CONTRIBUTING.md, 'Prove it'")
    network, volume = reference(package.i3res, torch.load(files[MERLIN_FILE])), noise("oblique", (60, 50, 70))
    mine = model.encode_volume(volume, Progress())
    whole, phenotypes = (output[0] for output in network(merlin.prepare(volume, MERLIN_SIZE).voxels))
    whole = (whole / whole.norm()).numpy()
    mine_scores = model.labels.scores(mine.trained.vector[None].astype(np.float64))[0]
    assert np.abs(mine_scores - phenotypes.sigmoid().numpy()).max() < 1e-5
    assert np.abs(mine.vector - whole).max() < 1e-5 * np.abs(whole).max()
    lengths = mine.cells_kji.shape
    assert sorted(lengths[:3]) == [2, 3, 3] and lengths[3] == 40


@torch.inference_mode()
@pytest.mark.parametrize("most", [1, 10**5, 10**9])
def test_parts_of_the_work_make_the_whole(model, most):
    """However few planes are computed at once; against the layers one by one."""
    tower, voxels = model.network.encode_image["i3_resnet"], torch.rand(1, 1, *MERLIN_SIZE)
    image = voxels.permute(0, 1, 4, 2, 3).expand(-1, 3, -1, -1, -1)
    image = nn.functional.max_pool3d(tower.bn1(tower.conv1(image)).relu(), 3, 2, 1)
    for block in (*tower.layer1, *tower.layer2, *tower.layer3, *tower.layer4):
        inner = block.bn2(block.conv2(block.bn1(block.conv1(image)).relu())).relu()
        image = block.downsample(image) if hasattr(block, "downsample") else image
        image = (block.bn3(block.conv3(inner)) + image).relu()
    parts = tower(voxels, Progress(), most)
    expected = image[0].permute(1, 2, 3, 0)
    assert parts.shape == (3, 2, 3, 128) and (expected.std(dim=(0, 1, 2)) > 0).float().mean() > 0.5, "not all rectified"
    assert (parts - expected).abs().max() < 1e-5 * expected.abs().max()


def test_phenotypes_are_the_sigmoids_of_the_networks_own_layer(model, tmp_path, monkeypatch):
    """Each by its name, beside the words of any other set; the map of one is the layer's own."""
    card, store = stock(CATALOGUE["merlin"], tmp_path)
    import_phenotypes(tmp_path, monkeypatch)
    engine, volume, labels = Engine({card.id: card}, store, "cpu", load_model=load_small), planted(), labels_of(card)
    engine.add_volume(volume)
    request = ClassifyRequest(1, card.id, volume.key, labels, any_domain=True)
    answer = engine.classify(replace(request, evidence=EvidenceWish("Phenotype 7")), Progress())
    tower = model.network.encode_image["i3_resnet"]
    with torch.inference_mode():
        features = tower(merlin.prepare(volume, MERLIN_SIZE).voxels, Progress()).permute(3, 0, 1, 2)[None]
        logits = tower.classifier(features).mean(dim=(2, 3, 4))[0].double()
    assert tuple(score.name for score in answer.scores) == labels.names and logits.std() > 0.1
    assert np.allclose([score.score for score in answer.scores], logits.sigmoid().numpy(), atol=1e-5)
    number = labels.names.index(answer.evidence[0].label)
    assert answer.evidence[0].values.mean() == pytest.approx(float(logits[number]), abs=0.3)
    assert answer.rule == "trained" and not answer.wording and any("diagnosis codes" in note for note in answer.notes)
    assert answer.verdict_text.endswith(f" and {len(answer.verdict) - 10} more") and len(answer_lines(answer)) == 103
    words = engine.classify(replace(request, labels=label_set_of(["Phenotype 7", "air"])), Progress())
    assert words.rule == "softmax" and words.wording
    for wrong in (
        replace(request, scoring=Scoring("pairs")),
        replace(request, labels=replace(labels, labels=(Label("x"),))),
    ):
        with pytest.raises(InputError, match="reads no words for the set merlin-phenotypes"):
            engine.classify(wrong, Progress())


@torch.inference_mode()
def test_vectors_of_texts_are_those_of_the_authors(model, files):
    """Against Longformer's own code, texts shorter and longer than its window, in one batch."""
    state = torch.load(files[MERLIN_FILE])
    prefix = "encode_text.text_encoder."
    network = LongformerModel(
        LongformerConfig(
            vocab_size=300, hidden_size=48, num_hidden_layers=2, num_attention_heads=12, intermediate_size=192,
            max_position_embeddings=1030, type_vocab_size=1, layer_norm_eps=1e-5, attention_window=512,
        )
    ).eval()  # fmt: skip
    network.load_state_dict({name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)})
    texts = (*TEXTS, "Liver: 2.5cm (segment-VI) lesion!", "liver " * 300, "over " * 60)
    assert merlin.sanitised(texts[-3]) == "liver : 2 . 5cm ( segment - vi ) lesion !"
    tokens = model.reader.tokens([merlin.sanitised(text) for text in texts])
    assert tokens["input_ids"].shape[1] == 1024
    hidden = network(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state[:, 0]
    expected = hidden @ state["encode_text.linear_layer.weight"].T + state["encode_text.linear_layer.bias"]
    mine = model.encode_texts(texts)
    assert np.abs(mine.vectors - (expected / expected.norm(dim=1, keepdim=True)).numpy()).max() < 1e-6
    assert mine.truncated == tuple(text.startswith("a very long") for text in texts)
    assert np.allclose(mine.vectors[0], model.encode_texts(texts[:1]).vectors[0], atol=1e-6)


def planted():
    """A bright cube on the patient's right, in front and below, in air."""
    array = np.full((40, 44, 48), -1000, np.int16)
    array[6:12, 28:36, 36:44] = 900
    return Volume(array, Geometry(np.diag([2.03, 3.1, 3.3, 1.0]), array.shape), "CT")


@pytest.mark.parametrize("name", HEADERS)
def test_right_is_right_however_an_image_is_stored(model, name):
    header = under(name, planted())
    voxels = merlin.prepare(header.volume, MERLIN_SIZE).voxels[0, 0].numpy()
    ends = [np.flatnonzero((voxels > 0.6).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    assert ends[0].min() > MERLIN_SIZE[0] / 2 and ends[1].min() > MERLIN_SIZE[1] / 2
    assert ends[2].max() < MERLIN_SIZE[2] / 2
    plain, turned = (model.encode_volume(volume, Progress()) for volume in (planted(), header.volume))
    assert np.allclose(plain.vector, turned.vector, atol=1e-5)
    turn = towards_ras(header.volume.geometry)
    assert np.allclose(turn.turn(turned.cells_kji.transpose(3, 0, 1, 2)[0]), plain.cells_kji[..., 0], atol=1e-4)
    # The part of the image that holds the cube, shown as evidence, lies about the cube.
    blocks = voxels.reshape(2, 32, 3, 32, 3, 16).sum(axis=(1, 3, 5)).transpose(2, 1, 0)
    cells = turn.turn_back((blocks == blocks.max()).astype(float))
    evidence = EvidenceMap.of_cells("cube", "k", cells, turned.spans_kji, header.volume.geometry)
    box, inside = evidence.mask(header.volume.geometry)
    shown = header.volume.geometry.to_ras((np.argwhere(inside).mean(axis=0) + box.start_kji)[::-1])
    cube = header.volume.geometry.to_ras(np.argwhere(header.volume.array_kji == 900).mean(axis=0)[::-1])
    assert np.abs(shown - cube).max() < 24, "half a part"


def test_work_is_reported_and_stops(model):
    reports, token = [], CancelToken()

    def stop(report):
        reports.append(report)
        if 3 * report.done > report.total > 0:
            token.cancel()

    with pytest.raises(Cancelled):
        model.encode_volume(planted(), Progress(stop, token))
    assert reports[0].done == 0 and reports == sorted(reports, key=lambda report: report.done)
    assert {(report.stage, report.total) for report in reports} == {("encode", 0), ("classify", reports[-1].total)}
    with pytest.raises(Cancelled):
        merlin.prepare(planted(), MERLIN_SIZE, Progress(token=token).check)
    with pytest.raises(Cancelled):
        model.encode_texts(["liver"], Progress(token=token).check)


def test_what_cannot_be_read_is_said(files, tmp_path, monkeypatch):
    card, state, name = CATALOGUE["merlin"], torch.load(files[MERLIN_FILE]), MERLIN_FILE
    torch.save(state | {"encode_image.i3_resnet.conv1.weight": torch.zeros(4, 3, 3, 7, 6)}, tmp_path / "shape.pt")
    torch.save(state | {"logit_scale": torch.tensor(1e4)}, tmp_path / "scale.pt")
    torch.save({"state": SimpleNamespace()}, tmp_path / "code.pt")
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe")
    right = dict(files)
    assert merlin.load(card, right, "cpu", MERLIN_SIZE).nbytes > 10**5
    wrong = [{name: tmp_path / f"{kind}.pt"} for kind in ("shape", "scale", "code", "absent")]
    for changed in (*wrong, {name: files["vocab.json"]}, {"merges.txt": tmp_path / "merges.txt"}):
        with pytest.raises(CheckpointError):
            merlin.load(card, right | changed, "cpu", MERLIN_SIZE)
    layer = {key: value[:12] for key, value in state.items() if ".classifier." in key}
    torch.save(state | layer, tmp_path / "fewer.pt")
    fewer = right | {name: tmp_path / "fewer.pt"}
    assert merlin.load(card, fewer, "cpu", MERLIN_SIZE).labels is None
    import_phenotypes(tmp_path, monkeypatch)
    assert len(merlin.load(card, right, "cpu", MERLIN_SIZE).labels.names) == 1692
    with pytest.raises(CheckpointError, match="names 1692 labels, and the checkpoint scores 12; import"):
        _ = merlin.load(card, fewer, "cpu", MERLIN_SIZE).labels
    right.pop("vocab.json")
    with pytest.raises(CheckpointError, match=r"vocab\.json"):
        merlin.load(card, right, "cpu", MERLIN_SIZE)


def test_names_and_shapes_are_those_of_the_authors_network():
    """Made once with the package's own ``MerlinArchitecture`` at its true size."""
    sizes = merlin_shapes((3, 8, 36, 3), 64, (50265, 4098, 768, 12), (1692, 512))
    with torch.device("meta"):
        network = merlin.MerlinNetwork(sizes)
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in network.state_dict().items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest().startswith("e47500c453e895a4b4527799aceb9eb4")
