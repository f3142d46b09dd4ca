"""What the adapters for classification by words share: pictures to batches, texts to tokens, vectors of unit length."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2.functional import InterpolationMode, resize

from ...catalog.model_cards import ModelCard
from ...errors import CheckpointError
from ...installation.packages import missing_packages, requirement_name
from ..preprocessing import Normalisation
from ..protocols import Check, TextVectors
from ..weights import file_called, load_strictly, read_json, read_pickle, read_safetensors, required_file, unusable

# What one step of a text tower computes at most, in tokens: some 300 MB of activations in a network of usual width, and
# a hundred texts of SigLIP, each of 64, at once.
_TOKENS = 2**13


def unit(vectors: Tensor) -> NDArray[np.float32]:
    """Vectors brought to length 1 along the last axis, as an array."""
    return functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def grid(parts: Tensor) -> Tensor:
    """(pictures, parts, D), the parts of a square row by row, as (pictures, rows, columns, D)."""
    side = round(parts.shape[1] ** 0.5)
    return parts.reshape(parts.shape[0], side, side, parts.shape[2])


@dataclass(frozen=True, slots=True)
class Preparation:
    """How pictures become a batch.

    Attributes:
        size: the side of the model's square, in pixels.
        normalisation: mean and deviation.
        resample: the kernel, by Pillow's number: 2 is linear, 3 cubic; both smooth where they shrink.
        by_pillow: whether Pillow resizes, as in open_clip, or torchvision, as in transformers: they differ by one grey
            level here and there.
    """

    size: int
    normalisation: Normalisation
    resample: int = 3
    by_pillow: bool = False

    def __call__(self, images: Sequence[NDArray[np.uint8]], device: str) -> Tensor:
        """(pictures, 3, size, size) float32 on the device."""
        resized = [self._by_pillow(image) if self.by_pillow else self._by_torch(image) for image in images]
        return torch.cat([self.normalisation(one) for one in resized]).to(device)

    def _by_torch(self, image: NDArray[np.uint8]) -> Tensor:
        channels = torch.from_numpy(np.ascontiguousarray(_channels_first(image)))[None]
        mode = InterpolationMode.BICUBIC if self.resample == 3 else InterpolationMode.BILINEAR
        return resize(channels, [self.size, self.size], interpolation=mode, antialias=True)

    def _by_pillow(self, image: NDArray[np.uint8]) -> Tensor:
        resized = Image.fromarray(image).resize((self.size, self.size), Image.Resampling(self.resample))
        return torch.from_numpy(np.ascontiguousarray(_channels_first(np.array(resized))))[None]


def _channels_first(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)


@dataclass(frozen=True, slots=True)
class TextReader:
    """Texts to tokens.

    Attributes:
        tokenizer: of transformers.
        length: how many tokens the model reads.
        is_padded: whether every text is padded to that length, because the model was trained so; otherwise only to the
            longest of its batch, which changes nothing where padding is masked.
    """

    tokenizer: Any
    length: int
    is_padded: bool

    def encode(self, texts: Sequence[str], tower: Callable[[Any], Tensor], check: Check) -> TextVectors:
        """Encode texts by a tower that takes tokens and gives (texts, D), short texts with short ones.

        The vectors are in the order of the texts.
        """
        lengths = [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]
        order = sorted(range(len(texts)), key=lambda n: lengths[n])
        vectors: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
        for numbers in self._batches(order, lengths):
            check()
            tokens = self.tokens([texts[n] for n in numbers])
            for n, vector in zip(numbers, unit(tower(tokens)), strict=True):
                vectors[n] = vector
        return TextVectors(np.stack(vectors), tuple(length > self.length for length in lengths))

    def tokens(self, texts: Sequence[str]) -> Any:
        """The tokens of texts, cut to the model's length, and padded."""
        padding = "max_length" if self.is_padded else True
        return self.tokenizer(
            list(texts), padding=padding, max_length=self.length, truncation=True, return_tensors="pt"
        )

    def _batches(self, order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of texts, those of one batch together: no more than so many tokens, padding included."""
        batch: list[int] = []
        for n in order:
            longest = self.length if self.is_padded else min(lengths[n], self.length)
            if batch and (len(batch) + 1) * longest > _TOKENS:
                yield batch
                batch = []
            batch.append(n)
        if batch:
            yield batch


# Counted up in every network, and in old checkpoints none the less.
_COUNTED = ("position_ids", "token_type_ids")
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def read_weights(card: ModelCard, files: Mapping[str, Path]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, whichever of the two formats it is in, without those that are counted up.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = file_called("model.safetensors", files)
    if path is not None:
        state = read_safetensors(path, card)
    else:
        names = ("pytorch_model.bin", "open_clip_pytorch_model.bin")
        name = next((name for name in names if file_called(name, files)), names[0])
        state = read_pickle(required_file(name, files, card), card)
    return {name: value for name, value in state.items() if not name.endswith(_COUNTED)}


def build_network(
    make: Callable[[], nn.Module], state: Mapping[str, Tensor], card: ModelCard, device: str, name: str
) -> nn.Module:
    """A network with its weights, float32, for inference.

    Args:
        make: makes it, with whatever weights.
        state: the weights, all of them and no others.
        card: for the messages.
        device: where it shall compute.
        name: the file that described it, for the messages.

    Raises:
        CheckpointError: there is no such network, or the weights are another's.
    """
    try:
        # Without memory at first: random weights would take seconds, and be thrown away.
        with torch.device("meta"):
            network = make()
    except (ValueError, KeyError, TypeError) as error:
        raise unusable(name, card) from error
    load_strictly(network, {key: value.float() for key, value in state.items()}, card, as_they_are=True)
    for module in network.modules():
        for key, kept in module.named_buffers(recurse=False):
            if key not in _COUNTED:
                raise CheckpointError(f"{card.title}: this version of the packages builds another network: {key}")
            counted = torch.arange(kept.shape[-1]) if key == "position_ids" else torch.zeros(1, dtype=torch.long)
            setattr(module, key, counted.expand(kept.shape).clone())
    return network.to(device).eval().requires_grad_(False)


def read_tokenizer(card: ModelCard, files: Mapping[str, Path]) -> Any:
    """The tokenizer of a checkpoint's folder; nothing is looked up elsewhere, and no code of the folder is run.

    Raises:
        CheckpointError: its files are missing or damaged.
        ModuleNotFoundError: a package that its format needs is not installed.
    """
    path = required_file("tokenizer_config.json", files, card)
    read_json(path, card)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path.parent), local_files_only=True, trust_remote_code=False)
    except ImportError as error:  # transformers says so at length, and not as Python does
        name = next(map(requirement_name, missing_packages(card.packages)), "that its tokenizer asks for")
        raise ModuleNotFoundError(str(error), name=name) from error
    except Exception as error:  # the parsers of three formats, one of them in Rust, raise what they like
        raise CheckpointError(f"{card.title}: its tokenizer cannot be read; download it again") from error


def read_preparation(path: Path | None, card: ModelCard, size: int, usual: Preparation) -> Preparation:
    """How a preprocessor_config.json has pictures prepared; the usual where it is silent or missing.

    Raises:
        CheckpointError: the file is unreadable, or asks for another size, or for what is not done here.
    """
    if path is None:
        return usual
    document = read_json(path, card)
    wanted = document.get("size", size)
    sides = set(wanted.values()) if isinstance(wanted, dict) else {wanted}
    mean, std = document.get("image_mean", usual.normalisation.mean), document.get("image_std", usual.normalisation.std)
    factor = document.get("rescale_factor", usual.normalisation.factor)
    resample = document.get("resample", usual.resample)
    numbers = [*mean, *std, factor] if isinstance(mean, list | tuple) and isinstance(std, list | tuple) else []
    steps = all(document.get(key, True) is True for key in ("do_resize", "do_rescale", "do_normalize"))
    fits = sides == {size} and steps and resample in (2, 3) and len(numbers) == 7
    if not (fits and all(type(n) in (int, float) for n in numbers) and min(*std, factor) > 0):
        raise CheckpointError(f"{card.title}: {path.name} asks for a preparation of pictures that is not this model's")
    return Preparation(size, Normalisation(tuple(mean), tuple(std), factor), resample, usual.by_pillow)


def load_towers(
    card: ModelCard,
    files: Mapping[str, Path],
    device: str,
    read_config: Callable[[Path, ModelCard], Any],
    make: Callable[[Any], nn.Module],
    usual: Normalisation,
    is_padded: bool,
) -> tuple[Any, Preparation, TextReader]:
    """The network, the preparation of pictures and the reader of texts in a folder of transformers.

    Args:
        card, files, device: as every adapter's ``load`` gets them.
        read_config: the network's sizes, out of config.json.
        make: the network of these sizes, with whatever weights.
        usual: how pictures are prepared where the folder does not say.
        is_padded: texts are filled up to the longest that the network takes.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold the network.
    """
    path = required_file("config.json", files, card)
    config = read_config(path, card)
    network = build_network(lambda: make(config), read_weights(card, files), card, device, path.name)
    size = config.vision_config.image_size
    kept = file_called("preprocessor_config.json", files)
    preparation = read_preparation(kept, card, size, Preparation(size, usual))
    reader = TextReader(read_tokenizer(card, files), config.text_config.max_position_embeddings, is_padded=is_padded)
    return network, preparation, reader
