"""Checkpoints with two towers and random weights: the true names and files, small networks, small vocabularies."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import BertConfig, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from FoundationSegLib.models.classification.two_towers import CLIP_COLOURS

SIZE = 64  # pixels, of CLIP's and SigLIP's small pictures
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


def open_clip_config(size: int) -> dict[str, Any]:
    """What BiomedCLIP's repository has, but for the size of the picture."""
    vision = {"timm_model_name": "vit_base_patch16_224", "timm_model_pretrained": False, "timm_pool": ""}
    vision |= {"timm_proj": "linear", "image_size": size}
    name = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    text = {"hf_model_name": name, "hf_tokenizer_name": name, "hf_proj_type": "mlp", "context_length": 256}
    text |= {"hf_pooler_type": "cls_last_hidden_state_pooler"}
    prepared = {"mean": CLIP_COLOURS.mean, "std": CLIP_COLOURS.std}
    return {"model_cfg": {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": prepared}


def bert_config() -> BertConfig:
    """The text tower, narrower than the true one; the picture's tower can only be the true ViT-B."""
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


def write_biomedclip(folder: Path, size: int = 224) -> dict[str, Path]:
    """As BiomedCLIP's repository is stored, with the text tower's config.json from its second one."""
    from FoundationSegLib.models.classification.biomedclip import Network

    config = bert_config()
    document = {"architectures": ["BertForMaskedLM"], "model_type": "bert"} | config.to_dict()
    _write(folder, "config.json", document)
    _write(folder, "open_clip_config.json", open_clip_config(size))
    state = randomise(Network(config, 512, size), seed=2).state_dict()
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
