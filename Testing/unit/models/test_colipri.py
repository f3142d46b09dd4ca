"""COLIPRI's adapter with small random weights against the package of its authors, where that is there."""

import numpy as np
import pytest
import torch

from FoundationSegLib.errors import Cancelled, CheckpointError, InputError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.models.classification import colipri
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.requests.classification_answer import EvidenceMap
from Testing.models.small_image_text import TEXTS
from Testing.models.small_models import CATALOGUE
from Testing.models.small_volume_text import COLIPRI_SIZE, write_colipri
from Testing.models.stored_volumes import FILES, HEADERS, MATRICES, noise, under

SIDE = COLIPRI_SIZE // 8


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_colipri(tmp_path_factory.mktemp("colipri"))


@pytest.fixture(scope="module")
def model(files):
    return colipri.load(CATALOGUE["colipri"], files, "cpu", COLIPRI_SIZE)


@pytest.fixture(scope="module")
def package():
    pytest.importorskip("torchio", reason="the package torchio is absent: see CONTRIBUTING.md, 'Prove it'")
    return pytest.importorskip("colipri", reason="the package colipri is absent: see CONTRIBUTING.md, 'Prove it'")


def theirs(volume, size):
    import torchio
    from colipri.checkpoint import load_processor_config
    from hydra.utils import instantiate

    array = volume.array_kji.transpose(2, 1, 0)[None]
    array = array.astype(np.int32) if array.dtype == np.uint16 else np.ascontiguousarray(array)
    image = torchio.ScalarImage(tensor=torch.from_numpy(array), affine=volume.geometry.ijk_to_ras)
    config = load_processor_config(overrides=[f"input_size={size}"])
    return instantiate(config["image_transform"])(image)


def assert_prepared_alike(volume, size):
    cube, other = colipri.prepare(volume, size), theirs(volume, size)
    assert np.array_equal(cube.voxels[0].numpy(), other.data.numpy())
    # The first and the last voxel of the cube are where torchio says they are.
    corners = np.array([[0, 0, 0, 1], [size - 1] * 3 + [1]]) @ other.affine.T
    edges = np.array([[span[end] for span in cube.spans_kji[::-1]] for end in (0, 1)])
    inset = (edges[1] - edges[0]) / size / 2
    mine = [volume.geometry.to_ras(edge) for edge in (edges[0] + inset - 0.5, edges[1] - inset - 0.5)]
    boxes = [
        np.sort(np.linalg.inv(volume.geometry.ijk_to_ras)[:3] @ np.c_[points, np.ones(2)].T)
        for points in (corners[:, :3], np.array(mine))
    ]
    assert np.allclose(*boxes, atol=1e-6)


@pytest.mark.parametrize("name", MATRICES)
def test_images_are_prepared_as_by_the_authors(package, name):
    volume = noise(name)
    for dtype, size in ((np.int16, 32), (np.uint16, 24), (np.float32, 16), (np.float64, 48), (np.int32, 40)):
        array = np.abs(volume.array_kji) if dtype == np.uint16 else volume.array_kji
        assert_prepared_alike(Volume(array.astype(dtype), volume.geometry, "CT"), size)
    assert_prepared_alike(Volume(volume.array_kji[:1], Geometry(MATRICES[name], (1, 36, 40)), "CT"), 24)


@pytest.mark.parametrize("name", FILES)
def test_real_images_are_prepared_as_by_the_authors(package, shared_data, name, full):
    assert_prepared_alike(read_volume(shared_data(name)), 192 if full else 64)


@pytest.mark.usefixtures("only_in_the_full_run")
def test_a_phantom_of_600_slices_is_prepared_as_by_the_authors(package):
    array = np.random.default_rng(0).integers(-1100, 2000, (600, 512, 512), dtype=np.int16)
    assert_prepared_alike(Volume(array, Geometry(np.diag([-0.7, -0.7, 1.0, 1.0]), array.shape), "CT"), 192)


def reference(package, files):
    from colipri.model.image import ImageEncoder
    from colipri.model.multimodal import Model
    from colipri.model.text import TextEncoder
    from colipri.pooling import AttentionPool1D
    from dynamic_network_architectures.architectures.primus import Primus
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    primus = Primus(
        *(1, 72, (8, 8, 8), 1), eva_depth=2, eva_numheads=12, input_shape=(COLIPRI_SIZE,) * 3, init_values=0.1,
        use_abs_pos_embed=False, scale_attn_inner=True, drop_path_rate=0.2,
    )  # fmt: skip
    config = BertConfig(
        vocab_size=3000, hidden_size=48, num_hidden_layers=2, num_attention_heads=12, intermediate_size=96
    )
    bert = BertModel(config, add_pooling_layer=False)
    image = ImageEncoder(primus, torch.nn.Conv3d(72, 48, 1), AttentionPool1D(48, 12))
    model = Model(image, TextEncoder(bert, AttentionPool1D(48, 12)), temperature=1.0)
    model.load_state_dict(load_file(files["model.safetensors"]), strict=True)
    return model.eval()


@torch.inference_mode()
def test_vectors_are_those_of_the_authors(package, model, files):
    from transformers import BertTokenizer

    other, volume = reference(package, files), noise("oblique", (60, 50, 70))
    mine, images = model.encode_volume(volume, Progress()), theirs(volume, COLIPRI_SIZE).data[None]
    pooled = other.encode_image(images, project=True, pool=True, normalize=True)[0].numpy()
    assert np.abs(mine.vector - pooled).max() < 1e-5 * np.abs(pooled).max()
    dense = other.encode_image(images, project=True, normalize=True)[0].numpy().transpose(3, 2, 1, 0)
    turned = colipri.towards_ras(volume.geometry).turn_back(dense)
    assert np.abs(mine.cells_kji - turned).max() < 1e-5 * np.abs(turned).max()
    tokens = BertTokenizer(str(files["vocab.txt"]), do_lower_case=True)(
        list(TEXTS), padding="max_length", max_length=512, truncation=True, return_tensors="pt"
    )
    texts = other.encode_text(tokens["input_ids"], tokens["attention_mask"]).numpy()
    assert np.abs(model.encode_texts(TEXTS).vectors - texts).max() < 1e-6
    softmax = other.classify(torch.from_numpy(pooled[None]), torch.from_numpy(texts))[0].numpy()
    logits = model.head.scale * mine.vector @ model.encode_texts(TEXTS).vectors.T
    assert np.allclose(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum(), softmax, atol=1e-5)


def planted():
    """A bright cube on the patient's right, in front and below, in air."""
    array = np.full((40, 44, 48), -1000, np.int16)
    array[6:12, 28:36, 32:40] = 900
    return Volume(array, Geometry(np.diag([2.03, 2.03, 2.03, 1.0]), array.shape), "CT")


@pytest.mark.parametrize("name", HEADERS)
def test_right_is_right_however_an_image_is_stored(model, name):
    header = under(name, planted())
    cube = colipri.prepare(header.volume, COLIPRI_SIZE)
    x, y, z = (np.flatnonzero((cube.voxels[0, 0].numpy() > 0).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    assert x.min() > COLIPRI_SIZE / 2 and y.min() > COLIPRI_SIZE / 2 and z.max() < COLIPRI_SIZE / 2
    plain, turned = (model.encode_volume(volume, Progress()) for volume in (planted(), header.volume))
    assert np.allclose(plain.vector, turned.vector, atol=1e-5)
    # The part of the image that holds the cube, shown as evidence, lies on the cube.
    values = np.zeros((SIDE,) * 3)
    values[np.unravel_index(np.argmax(_brightness(cube)), values.shape)] = 1
    cells = colipri.towards_ras(header.volume.geometry).turn_back(values)
    evidence = EvidenceMap.of_cells("cube", "k", cells, turned.spans_kji, header.volume.geometry)
    box, inside = evidence.mask(header.volume.geometry)
    shown = np.argwhere(inside).mean(axis=0) + box.start_kji
    assert np.abs(shown - np.argwhere(header.volume.array_kji == 900).mean(axis=0)).max() < 5


def _brightness(cube):
    blocks = cube.voxels[0, 0].numpy().reshape(SIDE, 8, SIDE, 8, SIDE, 8).sum(axis=(1, 3, 5))
    return blocks.transpose(2, 1, 0)


def test_work_is_reported_and_stops(model):
    reports, token = [], CancelToken()

    def stop(report):
        reports.append((report.stage, report.done, report.total))
        if report.done == 1:
            token.cancel()

    with pytest.raises(Cancelled):
        model.encode_volume(planted(), Progress(stop, token))
    total = 6 + (2 * 3 + 4) * 3  # slabs, layers of three rounds, four more, and 96 of 216 parts at once
    assert {*reports[:-2]} == {("encode", 0, 0)} and reports[-2:] == [("classify", n, total) for n in (0, 1)]
    with pytest.raises(Cancelled):
        colipri.prepare(planted(), COLIPRI_SIZE, Progress(token=token).check)
    reports.clear()
    model.encode_volume(planted(), Progress(reports.append))
    assert [report.done for report in reports if report.total] == list(range(total))


def test_what_cannot_be_read_or_seen_is_said(files, tmp_path):
    card = CATALOGUE["colipri"]
    for name, content in (("vocab.txt", b"\xff\xfe"), ("model.safetensors", b"none"), ("vocab.txt", None)):
        damaged = dict(files) | {name: tmp_path / name}
        (tmp_path / name).write_bytes(content) if content else damaged.pop(name)
        with pytest.raises(CheckpointError):
            colipri.load(card, damaged, "cpu", COLIPRI_SIZE)
    thin = Volume(np.zeros((2, 30, 30), np.int16), Geometry(np.diag([1.0, 1.0, 0.5, 1.0]), (2, 30, 30)), "CT")
    with pytest.raises(InputError, match="thinner"):
        colipri.prepare(thin)
