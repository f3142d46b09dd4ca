"""Small checkpoints with two towers and random weights in the true layout, and how adapters are held against others."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import BertConfig, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from FoundationSegLib.models.classification.two_towers import CLIP_COLOURS

SIZE = 64  # pixels, of CLIP's and SigLIP's small pictures
SMALL_TRUNK = "vit_tiny_patch16_224"  # of timm; BiomedCLIP has a ViT-B
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights under which every term counts: fresh ones have zeros for biases, and next to no differences."""
    torch.manual_seed(seed)
    for name, value in network.named_parameters():
        if "norm" in name.lower() and name.endswith("weight"):
            value.data.uniform_(0.5, 1.5)
        elif name.endswith("logit_scale"):
            value.data.fill_(2.5)
        elif name.endswith("logit_bias"):
            value.data.fill_(-3.0)
        else:
            value.data.normal_(0, 0.2 if name.endswith("bias") or "embed" in name else 0.12)
    return network.eval().requires_grad_(False)


def _files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir() if path.is_file()}


def _write(folder: Path, name: str, document: Any) -> None:
    (folder / name).write_text(json.dumps(document), encoding="utf-8")


def clip_config() -> CLIPConfig:
    tower = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLIPConfig(
        text_config=tower | {"vocab_size": 514, "max_position_embeddings": 77, "bos_token_id": 512, "eos_token_id": 2},
        vision_config=tower | {"image_size": SIZE, "patch_size": 8},
        projection_dim=32,
    )


def write_clip(folder: Path, *, preprocessor: Mapping[str, Any] | None = None) -> dict[str, Path]:
    """As `openai/clip-vit-base-patch32` is stored at its pinned commit: pytorch_model.bin, vocab.json, merges.txt."""
    config = clip_config()
    state = randomise(CLIPModel(config)).state_dict()
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]  # old checkpoints have them
    torch.save(state, folder / "pytorch_model.bin")
    document = config.to_dict() | {"architectures": ["CLIPModel"], "text_config_dict": None}
    _write(folder, "config.json", document)
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    _write(folder, "vocab.json", {word: n for n, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokens = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    tokens["pad_token"] = "<|endoftext|>"
    _write(folder, "special_tokens_map.json", tokens)
    _write(folder, "tokenizer_config.json", tokens | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    usual = {"crop_size": SIZE, "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3}
    usual |= {
        "image_mean": CLIP_COLOURS.mean,
        "image_std": CLIP_COLOURS.std,
        "size": SIZE,
    }
    _write(folder, "preprocessor_config.json", usual | dict(preprocessor or {}))
    return _files(folder)


def siglip_config() -> SiglipConfig:
    tower = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return SiglipConfig(
        text_config=tower | {"vocab_size": 64, "max_position_embeddings": 64},
        vision_config=tower | {"image_size": SIZE, "patch_size": 8},
    )


def write_siglip(folder: Path, *, resample: int = 2) -> dict[str, Path]:
    """As `google/siglip2-base-patch16-224` is stored: model.safetensors, tokenizer.json."""
    config = siglip_config()
    save_file(randomise(SiglipModel(config), seed=1).state_dict(), folder / "model.safetensors")
    _write(folder, "config.json", config.to_dict() | {"architectures": ["SiglipModel"]})
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS, *"0123456789-,."]
    tokenizer = Siglip2Tokenizer({word: n for n, word in enumerate(words)}, model_max_length=64)
    tokenizer.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    size = {"height": SIZE, "width": SIZE}
    usual = {"do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": half}
    usual |= {"image_processor_type": "SiglipImageProcessor", "image_std": half, "processor_class": "SiglipProcessor"}
    _write(folder, "preprocessor_config.json", usual | {"resample": resample, "rescale_factor": 1 / 255, "size": size})
    return _files(folder)


def open_clip_config(trunk: str = SMALL_TRUNK) -> dict[str, Any]:
    """What BiomedCLIP's repository has, but for the picture's tower."""
    vision = {"timm_model_name": trunk, "timm_model_pretrained": False, "timm_pool": ""}
    vision |= {"timm_proj": "linear", "image_size": 224}
    name = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    text = {"hf_model_name": name, "hf_tokenizer_name": name, "hf_proj_type": "mlp", "context_length": 256}
    text |= {"hf_pooler_type": "cls_last_hidden_state_pooler"}
    prepared = {"mean": CLIP_COLOURS.mean, "std": CLIP_COLOURS.std}
    return {"model_cfg": {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": prepared}


def bert_config() -> BertConfig:
    """The text tower, narrower than the true one."""
    return BertConfig(
        vocab_size=3000,
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        max_position_embeddings=512,
    )


def bert_words() -> list[str]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*LETTERS, *(f"##{letter}" for letter in LETTERS), *"0123456789-,.!?()", "photo", "this", "chest", "ray"]
    words = special + pieces
    return words + [f"[unused{n}]" for n in range(3000 - len(words))]


def write_biomedclip(folder: Path, trunk: str = SMALL_TRUNK) -> dict[str, Path]:
    """As BiomedCLIP's repository is stored, with the text tower's config.json from its second one."""
    from FoundationSegLib.models.classification.biomedclip import Network

    config = bert_config()
    document = {"architectures": ["BertForMaskedLM"], "model_type": "bert"} | config.to_dict()
    _write(folder, "config.json", document)
    _write(folder, "open_clip_config.json", open_clip_config(trunk))
    state = randomise(Network(config, 512, 224, trunk), seed=2).state_dict()
    state = {name: value for name, value in state.items() if not name.endswith(("position_ids", "token_type_ids"))}
    state["text.transformer.embeddings.position_ids"] = torch.arange(512)[None]  # as in the published file
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    (folder / "vocab.txt").write_text("\n".join(bert_words()) + "\n", encoding="utf-8")
    tokens = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    tokens["mask_token"] = "[MASK]"
    _write(folder, "special_tokens_map.json", tokens)
    wanted = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": 1000000000000000019884624838656,
    }
    _write(folder, "tokenizer_config.json", tokens | wanted)
    return _files(folder)


TEXTS = (
    "a photo of a cat",
    "chest x-ray, frontal (PA) view.",
    "x",
    "Ünïcode: 肝臓, печень & <b>bold</b>",
    "  many   spaces\tand tabs  ",
    "a very long finding, " * 60,
)
SIDES = (17, 64, 90, 333)


def square_pictures() -> list[NDArray[np.uint8]]:
    """Grey and colour; smaller, as large, and larger than the model's; smooth and noisy."""
    rng = np.random.default_rng(3)
    pictures = []
    for side in SIDES:
        ramp = np.add.outer(np.arange(side), 2 * np.arange(side)) % 256
        pictures.append(ramp.astype(np.uint8))
        pictures.append(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return pictures


def in_colour(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture


def padded(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture in the middle of a black square."""
    rows, columns = picture.shape[:2]
    side = max(rows, columns)
    square = np.zeros((side, side, *picture.shape[2:]), np.uint8)
    top, left = (side - rows) // 2, (side - columns) // 2
    square[top : top + rows, left : left + columns] = picture
    return square


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each vector with its counterpart."""
    a, b = (vectors.astype(np.float64) for vectors in (one, other))
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def assert_same(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    """Directions equal to 1e-6."""
    assert mine.shape == theirs.shape and mine.dtype == np.float32
    assert np.allclose(np.linalg.norm(mine, axis=1), 1, atol=1e-5)
    assert (1 - cosines(mine, theirs)).max() < 1e-6


def logits_of(adapter, images, texts) -> NDArray[np.float64]:
    """(pictures, texts): as the adapter's head has them."""
    cosine = adapter.encode_images(images).astype(np.float64) @ adapter.encode_texts(texts).vectors.T
    return adapter.head.scale * cosine + adapter.head.bias
