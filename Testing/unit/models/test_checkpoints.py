"""Files of checkpoints: loaded strictly, under either name of a weight, and whatever poses as one is refused.

Those of nnInteractive and VoxTell, which their packages load, are in their own files.
"""

import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam2VideoConfig, Sam2VideoModel, SamConfig

from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.models.preprocessing import read_normalisation
from FoundationSegLib.models.protocols import load_model
from FoundationSegLib.models.segmentation import medsam2, sam
from FoundationSegLib.models.weights import read_pickle
from Testing.models import small_sam, small_sam2
from Testing.models.small_models import CATALOGUE, LIGHTEST, WRITERS, load_small
from Testing.models.small_volume_text import MERLIN_FILE

FAMILIES = [family for family in LIGHTEST if family not in ("nninteractive", "voxtell")]
WEIGHTS = {
    "medsam2": "MedSAM2_latest.pt",
    "mobile-sam": "mobile_sam.pt",
    "clip": "pytorch_model.bin",
    "biomedclip": "open_clip_pytorch_model.bin",
    "merlin": MERLIN_FILE,
    "torchxrayvision": LIGHTEST["torchxrayvision"].source.files[0].name,
}
SHARED = "prompt_encoder.shared_embedding.positional_embedding"
OTHER_NAME = "shared_image_embedding.positional_embedding"
CONFIG, PREPARATION = "config.json", "preprocessor_config.json"


class Checkpoint:
    """The files of a small checkpoint of a family; a test may put others in their place."""

    def __init__(self, family, files, folder):
        self.card, self.files, self._folder = LIGHTEST[family], dict(files), folder
        self.weights = WEIGHTS.get(family, "model.safetensors")

    def put(self, name, content):
        self.files[name] = self._folder / f"changed-{os.urandom(4).hex()}" / name
        self.files[name].parent.mkdir()
        self.files[name].write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def change_json(self, name, changes):
        """Change values; of a section those that are named."""
        document = json.loads(self.files[name].read_text())
        for key, value in changes.items():
            merges = isinstance(value, dict) and isinstance(document.get(key), dict)
            document[key] = document[key] | value if merges else value
        self.put(name, document)

    def change_weights(self, change):
        path, is_safe = self.files[self.weights], self.weights.endswith(".safetensors")
        content = load_file(path) if is_safe else torch.load(path, weights_only=True)
        state = content.get("model", content)
        change(state)
        self.put(self.weights, b"")
        if is_safe:
            save_file({name: value.clone() for name, value in state.items()}, self.files[self.weights])
        else:
            torch.save(content, self.files[self.weights])

    def load(self):
        files = {file.path: self.files[file.name] for file in self.card.source.files if file.name in self.files}
        return load_small(self.card, files or self.files, "cpu")

    def refused(self, match=None):
        with pytest.raises(CheckpointError, match=match) as caught:
            self.load()
        assert self.card.title in str(caught.value)
        assert str(self._folder) not in str(caught.value), "a message names files, not folders"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Each family's files, written once."""
    made = {}

    def write(family):
        if family not in made:
            made[family] = WRITERS[family](tmp_path_factory.mktemp(family))
        return made[family]

    return write


@pytest.fixture
def checkpoint(written, tmp_path):
    return lambda family: Checkpoint(family, written(family), tmp_path)


class Harmful:
    """Runs code where a file is read without care."""

    def __reduce__(self):
        return print, ("code was run",)


def lying_header() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def of_torch(path, content) -> bytes:
    torch.save(content, path)
    return path.read_bytes()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_files_are_refused_with_the_models_name(checkpoint, family, capsys, tmp_path):
    whole = checkpoint(family)
    harmful = (pickle.dumps({"a": Harmful()}), of_torch(tmp_path / "harm", {"model": {"a": Harmful()}, "a": Harmful()}))
    of_weights = (
        *harmful,
        lying_header(),
        struct.pack("<Q", 2**62) + b"{}",
        of_torch(tmp_path / "a", {"a": torch.zeros(3)}),
    )
    documents = {CONFIG, PREPARATION, "open_clip_config.json", "tokenizer_config.json"} & whole.files.keys()
    documents -= {PREPARATION} if family == "medsam" else set()  # SAM's, which is never read
    for name in (whole.weights, *sorted(documents)):
        content = whole.files[name].read_bytes()
        damages = (b"", b"[]", b"{", b"\xff\xfe\x00", content[: len(content) // 2])
        for damage in (*damages, *(of_weights if name == whole.weights else ())):
            damaged = checkpoint(family)
            damaged.put(name, damage)
            damaged.refused()
        damaged.files[name].unlink()
        damaged.refused()
    if whole.weights.endswith((".pt", ".bin")) and family != "torchxrayvision":  # of which test_specialists.py has more
        damaged.put(whole.weights, harmful[1])
        damaged.refused(match="cannot be read: it names .*print, which")
    for name in {whole.weights, *documents} - {PREPARATION}:
        missing = checkpoint(family)
        if len(missing.card.source.files) > 1:
            del missing.files[name]
            missing.refused(match="card names no")
    assert "code was run" not in capsys.readouterr().out


CHANGES = {
    "missing": lambda state: state.pop(max(state)),
    "another shape": lambda state: state.update({max(state): torch.zeros(3, 1)}),
    "left over": lambda state: state.update({"of.another.model": torch.zeros(1)}),
    "another model's": lambda state: state.clear() or state.update(weights=torch.zeros(3)),
}


# TorchXRayVision's file is no dictionary: test_specialists.py changes it.
DICTIONARIES = [family for family in FAMILIES if family != "torchxrayvision"]
# Files of each kind: safetensors, a pickle, a pickle with sections.
OTHERS = [(family, "another model's") for family in ("sam", "clip", "medsam2")]


@pytest.mark.parametrize(
    ("family", "change"),
    [*((family, change) for family in DICTIONARIES for change in list(CHANGES)[:3]), *OTHERS],
)
def test_other_weights_are_refused(checkpoint, family, change, full):
    """One loader finds out about all of them: the reduced run takes one change of each family, in turn."""
    in_turn = list(CHANGES)[FAMILIES.index(family) % 3]
    if not full and change not in (in_turn, "another model's"):
        pytest.skip("one change of each family is enough: run with --full")
    changed = checkpoint(family)
    changed.change_weights(CHANGES[change])
    changed.refused(match="does not hold the weights")


CONFIGURATIONS = [
    ("sam", {"model_type": None}),
    ("sam", {"model_type": "sam2_video"}),
    ("sam", {"vision_config": 3}),
    ("sam", {"vision_config": {"hidden_size": "32"}}),
    ("sam", {"vision_config": {"hidden_size": 0}}),
    ("sam", {"vision_config": {"num_attention_heads": True}}),
    ("sam", {"vision_config": {"patch_size": 0}}),
    ("sam", {"vision_config": {"image_size": [256, 256]}}),
    ("sam", {"vision_config": {"global_attn_indexes": ["1"]}}),
    ("sam", {"vision_config": {"hidden_act": "no such thing"}}),
    ("sam", {"vision_config": {"use_rel_pos": "yes"}}),
    ("sam", {"prompt_encoder_config": {"image_size": 1024}}),
    ("sam", {"mask_decoder_config": {"num_attention_heads": 5}}),
    ("sam", {"mask_decoder_config": {"layer_norm_eps": "1e-6"}}),
    ("sam", {"vision_config": {"num_hidden_layers": 3}}),  # from here on, the weights do not fit
    ("sam", {"vision_config": {"hidden_size": 64}}),
    ("sam", {"vision_config": {"window_size": 7}}),
    ("sam", {"mask_decoder_config": {"num_multimask_outputs": 4}}),
    ("sam2", {"model_type": "sam2"}),
    ("sam2", {"image_size": 512}),
    ("sam2", {"image_size": "large"}),
    ("sam2", {"memory_attention_rope_feat_sizes": [64, 64]}),
    ("sam2", {"prompt_encoder_config": {"image_size": 1024}}),
    ("sam2", {"vision_config": {"backbone_config": None}}),
    ("sam2", {"vision_config": 3}),
    ("sam2", {"num_maskmem": "seven"}),
    ("sam2", {"mask_decoder_config": {"mlp_dim": 32}}),
    ("sam2", {"memory_fuser_num_layers": -1, "mask_downsampler_stride": 0}),
    ("edgetam", {"model_type": "sam2_video"}),
    ("edgetam", {"image_size": 512}),
    ("edgetam", {"vision_config": {"backbone_config": None}}),
    ("edgetam", {"memory_attention_rope_k_sizes": [16, 16]}),
    ("clip", {"model_type": "bert"}),
    ("clip", {"text_config": {"hidden_size": "wide"}}),
    ("clip", {"text_config": {"hidden_size": 50, "num_attention_heads": 3}}),
    ("clip", {"projection_dim": 0}),
    ("siglip", {"model_type": "siglip2"}),
    ("biomedclip", {"model_cfg": 3}),
    ("biomedclip", {"model_cfg": {"vision_cfg": {}}}),
    ("biomedclip", {"vision_cfg": {"timm_model_name": "vit_large_patch16_224"}}),
    ("biomedclip", {"vision_cfg": {"timm_pool": "avg"}}),
    ("biomedclip", {"vision_cfg": {"image_size": 0}}),
    ("biomedclip", {"text_cfg": {"hf_pooler_type": "mean_pooler"}}),
    ("biomedclip", {"text_cfg": {"hf_proj_type": "linear"}}),
    ("biomedclip", {"text_cfg": {"context_length": 1000}}),
]


@pytest.mark.parametrize(("family", "changes"), CONFIGURATIONS, ids=str)
def test_a_configuration_that_does_not_fit_is_refused(checkpoint, family, changes):
    changed = checkpoint(family)
    if family == "biomedclip":
        model = json.loads(changed.files["open_clip_config.json"].read_text())["model_cfg"]
        (section,) = changes
        changes = changes if section == "model_cfg" else {"model_cfg": {section: model[section] | changes[section]}}
    changed.change_json("open_clip_config.json" if family == "biomedclip" else CONFIG, changes)
    changed.refused()


PREPARATIONS = [
    *(("sam", {name: False}) for name in ("do_normalize", "do_rescale", "do_resize", "do_pad")),
    *(("sam", {"image_mean": value}) for value in ([0.5], 0.5, "grey")),
    *(("sam", {"image_std": value}) for value in (["a", "b", "c"], [[1.0]], [0.2, 0.2, 0])),
    *(("sam", {"rescale_factor": value}) for value in (0, "1/255")),
    *(("sam", {"size": size}) for size in ({"longest_edge": 1024}, {"longest_edge": 256, "shortest_edge": 256})),
    ("sam", {"resample": 3}),
    ("sam", {"pad_size": {"height": 256, "width": 512}}),
    ("sam2", {"size": {"height": 512, "width": 512}}),
    ("clip", {"size": 336}),
    ("siglip", {"size": {"height": 336}}),
    *((family, {"do_rescale": False}) for family in ("clip", "siglip")),
    *((family, {"image_mean": "grey"}) for family in ("clip", "siglip")),
    *((family, {"image_std": [0, 1, 1]}) for family in ("clip", "siglip")),
]


SHAPE_OF_SAM = {"size": {"longest_edge": 256}, "do_pad": True, "pad_size": {"height": 256, "width": 256}}


@pytest.mark.parametrize(("family", "changes"), PREPARATIONS, ids=str)
def test_a_preparation_that_is_not_the_familys_is_refused(checkpoint, family, changes):
    changed = checkpoint(family)
    assert family != "sam" or read_normalisation(changed.files, changed.card, SHAPE_OF_SAM)
    changed.change_json(PREPARATION, changes)
    message = r"preprocessor_config\.json asks for"
    if family == "sam" and "size" not in changes:  # without the network, which takes long
        with pytest.raises(CheckpointError, match=message):
            read_normalisation(changed.files, changed.card, SHAPE_OF_SAM)
    else:
        changed.refused(match=message)


def network_of(model):
    """The weights; on the CPU, an attention of SAM without windows stands inside one that works in strips."""
    network = model.network.model if hasattr(model.network, "model") else model.network
    return {name.replace(".attn.module.", ".attn."): value for name, value in network.state_dict().items()}


def assert_same_weights(model, expected):
    state = network_of(model)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


EXPECTED = {
    "sam": lambda: small_sam.random_model(small_sam.small_config()),
    "sam2": lambda: small_sam2.small_network(size=128),
    "medsam2": lambda: small_sam2.small_network(size=128),
}


@pytest.mark.parametrize("family", EXPECTED)
def test_holds_what_was_saved(checkpoint, family):
    model = checkpoint(family).load()
    assert_same_weights(model, EXPECTED[family]().state_dict())
    assert (model.device, model.precision) == ("cpu", "float32")
    network = getattr(model.network, "model", model.network)
    assert not network.training and not any(weight.requires_grad for weight in network.parameters())


@pytest.mark.parametrize("names", [(SHARED,), (OTHER_NAME,), (SHARED, OTHER_NAME)], ids=["one", "other", "both"])
@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_the_table_of_positions_may_come_under_either_name_or_both(checkpoint, family, names):
    changed, expected = checkpoint(family), EXPECTED[family]().state_dict()

    def change(state):
        for name in (SHARED, OTHER_NAME):
            state.pop(name, None)
        state.update({name: expected[SHARED].clone() for name in names})

    changed.change_weights(change)
    assert_same_weights(changed.load(), expected)
    changed.change_weights(lambda state: [state.pop(name) for name in names])
    changed.refused(match="does not hold the weights")


def test_weights_in_half_precision_become_float32_and_the_file_may_go_once_it_is_loaded(checkpoint):
    changed = checkpoint("sam")
    changed.change_weights(lambda state: state.update({name: value.half() for name, value in state.items()}))
    state, path = network_of(changed.load()), changed.files[changed.weights]
    before = {name: value.clone() for name, value in state.items()}
    path.write_bytes(b"\0" * path.stat().st_size)
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_files_are_found_in_a_folder_of_their_repository(written):
    files = {f"sub/folder/{name}": path for name, path in written("sam").items()}
    assert sam.load(LIGHTEST["sam"], files, "cpu")


def test_old_configurations_with_much_beside_the_network_are_read(checkpoint):
    """Those of 2023 hold all that generation of text ever needed; transformers 4 wrote SAM 2's otherwise than 5."""
    old = {"_name_or_path": "", "torch_dtype": None, "top_k": 50, "bad_words_ids": None, "id2label": {"0": "LABEL_0"}}
    before = checkpoint("sam")
    sections = {f"{name}_config": {**old, "model_type": ""} for name in ("vision", "prompt_encoder", "mask_decoder")}
    before.change_json(CONFIG, {"torch_dtype": "float32", "transformers_version": None, **sections})
    assert_same_weights(before.load(), EXPECTED["sam"]().state_dict())
    video = checkpoint("sam2")
    values = json.loads(video.files[CONFIG].read_text())
    del values["rope_parameters"]
    video.put(CONFIG, values | {"memory_attention_rope_theta": 10000})
    assert_same_weights(video.load(), EXPECTED["sam2"]().state_dict())


@pytest.mark.parametrize("model_id", ["sam-vit-base", "medsam", "sam2.1-hiera-tiny", "medsam2"])
def test_a_network_of_the_true_size_is_loaded_strictly(tmp_path, model_id, full, bar):
    if not full:
        pytest.skip("networks of the true size are written with --full")
    card = CATALOGUE[model_id]
    if card.family in ("sam", "medsam"):
        files = small_sam.write_checkpoint(tmp_path, SamConfig())
    else:
        network = Sam2VideoModel(Sam2VideoConfig() if card.family == "sam2" else medsam2.configuration())
        small_sam2.enliven(network, 0)
        write = small_sam2.write_checkpoint if card.family == "sam2" else small_sam2.write_medsam2
        files = write(tmp_path if card.family == "sam2" else tmp_path / "MedSAM2_latest.pt", network)
    model = load_model(card, files, "cpu")
    weights = sum(value.numel() for name, value in network_of(model).items() if name not in (SHARED, OTHER_NAME))
    bar(f"{card.title}, weights in millions", weights / 1e6, "93.7 of SAM, 39.0 of SAM 2, as published")
    assert weights == pytest.approx(93_735_472 if card.family in ("sam", "medsam") else 38.96e6, rel=1e-3)
    if card.family in ("sam2", "medsam2"):
        assert_same_weights(model, network.state_dict())
        assert model.encode(small_sam2.slice_of((512, 512))).nbytes == (16 if card.family == "sam2" else 4) * 2**20


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("under", [None, "model"])
def test_whatever_is_damaged_of_a_pickle_nothing_else_is_raised(tmp_path, under, zipped, full):
    """Bytes at random places become others, or the file ends too early; where it can still be read, so be it."""
    weights, path = {"one": torch.arange(6.0).view(2, 3), "two": torch.ones(1).half()}, tmp_path / "weights.pt"
    torch.save(weights if under is None else {under: weights, "step": 3}, path, _use_new_zipfile_serialization=zipped)
    assert all(torch.equal(value, weights[name]) for name, value in read_pickle(path, LIGHTEST["sam"], under).items())
    whole, random, refusals = np.frombuffer(path.read_bytes(), np.uint8), np.random.default_rng(0), 0
    for turn in range(1500 if full else 150):
        damaged = whole.copy()
        damaged[random.integers(0, whole.size, random.integers(1, 4))] = random.integers(0, 256)
        path.write_bytes(damaged[: random.integers(whole.size) if turn % 5 == 0 else None].tobytes())
        try:
            read_pickle(path, LIGHTEST["sam"], under)
        except CheckpointError:
            refusals += 1
    assert refusals > 30


@pytest.mark.parametrize("content", [3, {"a": 3}, {1: torch.zeros(1)}, [torch.zeros(1)], torch.zeros(1)], ids=str)
@pytest.mark.parametrize("under", [None, "model"])
def test_a_pickle_of_another_layout_is_refused(tmp_path, under, content):
    for value in (content, {under: content}):
        torch.save(value, tmp_path / "weights.pt")
        with pytest.raises(CheckpointError, match=r"weights\.pt"):
            read_pickle(tmp_path / "weights.pt", LIGHTEST["sam"], under)
