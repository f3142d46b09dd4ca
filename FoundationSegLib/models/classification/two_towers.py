"""Networks with a tower for pictures and one for texts: the adapter that their families share, and their checkpoints.

Pictures that are not square are seen whole, where the processors of transformers and open_clip crop the middle.
"""

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
from ...requests.scoring import Head
from .. import weights
from ..preprocessing import Normalisation, channels_first, parse_normalisation, to_device
from ..protocols import Check, TextVectors, unstoppable

# Largest batch of a text tower, in tokens: some 300 MB of activations in a network of usual width, and a hundred texts
# of SigLIP, each of 64, at once.
_TOKENS = 2**13
TEXT_HEADS = 12  # of towers whose checkpoints name no sizes
# Buffers that only count up; old checkpoints hold them, newer ones do not.
_COUNTING_BUFFERS = ("position_ids", "token_type_ids")
CLIP_COLOURS = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def unit(vectors: Tensor) -> NDArray[np.float32]:
    """Vectors brought to length 1 along the last axis, as an array."""
    return functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def grid(parts: Tensor) -> Tensor:
    """(pictures, parts, D), the parts of a square row by row, as (pictures, rows, columns, D)."""
    side = round(parts.shape[1] ** 0.5)
    return parts.reshape(parts.shape[0], side, side, parts.shape[2])


@dataclass(frozen=True, slots=True)
class PicturePreparation:
    """Turns pictures into a batch.

    Attributes:
        size: the side of the model's square, in pixels.
        normalisation: mean and deviation.
        resample: the kernel, by Pillow's number: 2 is linear, 3 cubic; both smooth where they shrink.
        by_pillow: True where Pillow resizes, as in open_clip, or else torchvision, as in transformers: they differ by
            one grey level here and there.
    """

    size: int
    normalisation: Normalisation
    resample: int = 3
    by_pillow: bool = False

    def __call__(self, images: Sequence[NDArray[np.uint8]], device: str) -> Tensor:
        """(pictures, 3, size, size) float32 on the device."""
        return to_device(torch.cat([self.normalisation(self._resized(image)) for image in images]), device)

    def _resized(self, image: NDArray[np.uint8]) -> Tensor:
        square = (self.size, self.size)
        if self.by_pillow:
            return channels_first(np.array(Image.fromarray(image).resize(square, Image.Resampling(self.resample))))
        mode = InterpolationMode.BICUBIC if self.resample == 3 else InterpolationMode.BILINEAR
        return resize(channels_first(image), list(square), interpolation=mode, antialias=True)


@dataclass(frozen=True, slots=True)
class TextReader:
    """Turns texts into tokens.

    Attributes:
        tokenizer: of transformers.
        length: the longest text that the model reads, in tokens.
        is_padded: True where every text is padded to that length, because the model was trained so; otherwise only to
            the longest of its batch, which changes nothing where padding is masked.
    """

    tokenizer: Any
    length: int
    is_padded: bool

    def encode(self, texts: Sequence[str], tower: Callable[[Any], Tensor], check: Check) -> TextVectors:
        """Encode texts by ``tower``, which takes tokens, in batches that sort short texts with short ones.

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
        """Tokens of texts, cut to the model's length, and padded."""
        padding = "max_length" if self.is_padded else True
        return self.tokenizer(
            list(texts), padding=padding, max_length=self.length, truncation=True, return_tensors="pt"
        )

    def _batches(self, order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of the texts of each batch: no more than so many tokens, padding included."""
        batch: list[int] = []
        for n in order:
            longest = self.length if self.is_padded else min(lengths[n], self.length)
            if batch and (len(batch) + 1) * longest > _TOKENS:
                yield batch
                batch = []
            batch.append(n)
        if batch:
            yield batch


@dataclass(frozen=True, slots=True)
class TwoTowers:
    """The adapter of every family with two towers, in float32.

    Attributes:
        network: both towers, on the device.
        device: ``"cuda"``, ``"mps"`` or ``"cpu"``.
        head: scale and bias of the logits.
        preparation: turns pictures into a batch.
        reader: turns texts into tokens.
        blocks: the layers of the picture tower; the work can be stopped before each.
        images: from a batch of pictures to their vectors, (pictures, D).
        parts: from a batch of pictures to the vectors of their patches, (pictures, patches, D).
        texts: from tokens to the vectors of the texts, (texts, D).
        clean: prepares a text for the tokenizer.
    """

    network: nn.Module
    device: str
    head: Head
    preparation: Callable[[Sequence[NDArray[np.uint8]], str], Tensor]
    reader: TextReader
    blocks: Sequence[nn.Module]
    images: Callable[[Tensor], Tensor]
    parts: Callable[[Tensor], Tensor]
    texts: Callable[[Any], Tensor]
    clean: Callable[[str], str] = str
    precision: str = "float32"

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weights.weight_bytes(self.network)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """Encode pictures in one batch: (pictures, D), each row of unit length."""
        with weights.checked(self.blocks, check):
            return unit(self.images(self.preparation(images, self.device)))

    @torch.inference_mode()
    def encode_parts(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """Encode the patches of pictures: (pictures, rows, columns, D), vectors of unit length."""
        with weights.checked(self.blocks, check):
            return unit(grid(self.parts(self.preparation(images, self.device))))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], check: Check = unstoppable) -> TextVectors:
        """Encode texts, one vector for each."""
        return self.reader.encode([self.clean(text) for text in texts], self.texts, check)


def read_weights(card: ModelCard, files: Mapping[str, Path]) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, in either of the two formats, without buffers that only count up.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = weights.file_called("model.safetensors", files)
    if path is not None:
        state = weights.read_safetensors(path, card)
    else:
        names = ("pytorch_model.bin", "open_clip_pytorch_model.bin")
        name = next((name for name in names if weights.file_called(name, files)), names[0])
        state = weights.read_pickle(weights.required_file(name, files, card), card)
    return {name: value for name, value in state.items() if not name.endswith(_COUNTING_BUFFERS)}


def build_network(
    make: Callable[[], nn.Module], state: Mapping[str, Tensor], card: ModelCard, device: str, name: str
) -> Any:
    """Build a network with its weights, float32, for inference.

    Args:
        make: makes it, with any weights.
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
        raise weights.unusable(name, card) from error
    weights.load_strictly(network, {key: value.float() for key, value in state.items()}, card, assign=True)
    for module in network.modules():
        missing = [(key, buffer) for key, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        for key, buffer in missing:
            if key not in _COUNTING_BUFFERS:
                raise CheckpointError(f"{card.title}: this version of the packages builds another network: {key}")
            count = torch.arange(buffer.shape[-1]) if key == "position_ids" else torch.zeros(1, dtype=torch.long)
            setattr(module, key, count.expand(buffer.shape).clone())
    return network.to(device).eval().requires_grad_(False)


def count_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of the layers whose weights are called by this prefix, a dot and the number of the layer.

    Raises:
        ValueError: there is none.
    """
    return 1 + max(int(name[len(prefix) + 1 :].split(".")[0]) for name in state if name.startswith(f"{prefix}."))


def text_sizes(state: Mapping[str, Tensor], prefix: str) -> dict[str, int]:
    """Sizes of a text tower of BERT's kind by the shapes of its weights, under the names of transformers.

    Raises:
        KeyError, ValueError: they are another network's.
    """
    words, width = state[f"{prefix}.embeddings.word_embeddings.weight"].shape
    if width % TEXT_HEADS:
        raise ValueError("the width does not fit the heads")
    return {
        "vocab_size": words,
        "hidden_size": width,
        "num_hidden_layers": count_layers(state, f"{prefix}.encoder.layer"),
        "num_attention_heads": TEXT_HEADS,
        "intermediate_size": state[f"{prefix}.encoder.layer.0.intermediate.dense.bias"].shape[0],
        "max_position_embeddings": state[f"{prefix}.embeddings.position_embeddings.weight"].shape[0],
    }


def make_tokenizer(make: Callable[[], Any], path: Path, card: ModelCard) -> Any:
    """Make a tokenizer of transformers from the file of its words.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        return make()
    except Exception as error:  # the parser, in Rust, raises errors of any type
        raise CheckpointError(f"{card.title}: {path.name} cannot be read; download it again") from error


def read_tokenizer(card: ModelCard, files: Mapping[str, Path]) -> Any:
    """Read the tokenizer of a checkpoint's folder; nothing is downloaded, and no code of the folder is run.

    Raises:
        CheckpointError: its files are missing or damaged.
        ModuleNotFoundError: a package that its format needs is not installed.
    """
    path = weights.required_file("tokenizer_config.json", files, card)
    weights.read_json(path, card)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path.parent), local_files_only=True, trust_remote_code=False)
    except ImportError as error:  # transformers raises it without the name of the package
        name = next(map(requirement_name, missing_packages(card.packages)), "that its tokenizer asks for")
        raise ModuleNotFoundError(str(error), name=name) from error
    except Exception as error:  # the parsers of three formats, one of them in Rust, raise errors of any type
        raise CheckpointError(f"{card.title}: its tokenizer cannot be read; download it again") from error


def read_preparation(path: Path | None, card: ModelCard, default: PicturePreparation) -> PicturePreparation:
    """Read a preprocessor_config.json; the default where it names no value, or where there is no file.

    Raises:
        CheckpointError: the file is unreadable, or asks for another size or for steps that are not done here.
    """
    if path is None:
        return default
    document = weights.read_json(path, card)
    size = document.get("size", default.size)
    sides = set(size.values()) if isinstance(size, dict) else {size}
    normalisation = parse_normalisation(document, default.normalisation)
    resample = document.get("resample", default.resample)
    steps = all(document.get(key, True) is True for key in ("do_resize", "do_rescale", "do_normalize"))
    if normalisation is None or sides != {default.size} or not steps or resample not in (2, 3):
        raise CheckpointError(f"{card.title}: {path.name} asks for a preparation of pictures that is not this model's")
    return PicturePreparation(default.size, normalisation, resample)


def load_towers(
    card: ModelCard,
    files: Mapping[str, Path],
    device: str,
    config: Any,
    make: Callable[[Any], nn.Module],
    colours: Normalisation,
    is_padded: bool,
) -> tuple[Any, PicturePreparation, TextReader]:
    """Load the network, the preparation of pictures and the reader of texts of a folder of transformers.

    Args:
        card: the model.
        files: its files, by the path the card gives them.
        device: where it shall compute.
        config: the network's sizes.
        make: makes the network of these sizes, with any weights.
        colours: mean and deviation of pictures where the folder does not name them.
        is_padded: texts are filled up to the longest that the network takes.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold the network.
    """
    network = build_network(lambda: make(config), read_weights(card, files), card, device, "config.json")
    default = PicturePreparation(config.vision_config.image_size, colours)
    preparation = read_preparation(weights.file_called("preprocessor_config.json", files), card, default)
    reader = TextReader(read_tokenizer(card, files), config.text_config.max_position_embeddings, is_padded=is_padded)
    return network, preparation, reader
