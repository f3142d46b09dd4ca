"""Adaptation of SAM's prompt encoder and mask decoder: training on embeddings, and the file with the difference.

The difference is that to the base, whose weights are never touched.

The image encoder stays as it is, so that a slice is encoded once, whatever is tried; with a graphics card, its
attention learns, too, by matrices of low rank (Hu et al., LoRA, arXiv:2106.09685). The difference is kept in 16 bits,
half the size of the weights; what is scored and used is the base plus that rounded difference, never anything finer.
"""

import copy
import importlib.util
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ..catalog.model_cards import ModelCard
from ..errors import CheckpointError
from .protocols import SliceAnswer, SliceModel, SlicePrompt

_PARTS = ("prompt_encoder.", "mask_decoder.")
_TABLE = "shared_embedding."  # of positions, which the image encoder uses, too
_METADATA = "foundationseg"  # one key alone: the format writes several in no certain order
_VERSION = 1
_WARM_UP = 20  # steps over which the rate rises, since AdamW's first steps are as large as any
_QUALITY_WEIGHT = 0.1  # of the predicted IoU, beside the mask
_DECAY = 0.01
_USUAL_RANK = 8
_MEMORY = 0.97  # of the average of the weights over the last steps, which is less noisy than the last step's

_ENCODER = "image_encoder."  # before the names of its layers, each with two matrices
_LOW_RANK = ("lora_A", "lora_B")
_MOST_RANK = 64

State = dict[str, Tensor]


class AdaptableModel(SliceModel, Protocol):
    """A model of slices whose prompt encoder and mask decoder can be trained."""

    @property
    def decoder(self) -> nn.Module:
        """The network; its parts are called ``prompt_encoder`` and ``mask_decoder``."""

    def with_decoder(self, decoder: Any) -> SliceModel:
        """The same model with another prompt encoder and mask decoder."""

    def guess(
        self, embedding: Any, prompt: SlicePrompt, coarse: Tensor | None, decoder: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of the masks that a prompt may mean, (masks, rows, columns), and their predicted IoUs.

        ``coarse`` are the logits of the answer before. Gradients pass where another ``decoder`` is named.
        """

    def on_slice(self, logits: Tensor, embedding: Any) -> Tensor:
        """Bring logits of the network, (1, 1, rows, columns), to the slice; (rows, columns)."""


class AdaptableEncoder(AdaptableModel, Protocol):
    """A model whose image encoder can be trained, too."""

    @property
    def encoder(self) -> nn.Module:
        """The image encoder."""

    def with_encoder(self, encoder: Any) -> "AdaptableEncoder":
        """The same model with another image encoder."""

    def embed(self, image: NDArray[np.uint8], encoder: Any) -> Any:
        """Encode a slice by another encoder; gradients pass."""


def encoder_rank(model: Any, rank: int | None) -> int:
    """The rank of what the image encoder learns; 0 for nothing. Unless one is named, only a graphics card learns it."""
    can_learn = hasattr(model, "with_encoder") and importlib.util.find_spec("peft") is not None
    usual = _USUAL_RANK if model.device == "cuda" else 0
    return (usual if rank is None else rank) if can_learn else 0


def low_rank_encoder(model: Any, rank: int, seed: int) -> nn.Module:
    """Copy a model's image encoder, with matrices of low rank beside its attention; they alone are trained."""
    from peft import LoraConfig, inject_adapter_in_model

    encoder = copy.deepcopy(model.encoder)
    names = [name for name, layer in encoder.named_modules() if isinstance(layer, nn.Linear) and name.endswith("qkv")]
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
    return inject_adapter_in_model(config, encoder).requires_grad_(False)


def low_rank_weights(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices of :func:`low_rank_encoder`, by their names in the file."""
    named = ((name.removesuffix(".default.weight"), weight) for name, weight in encoder.named_parameters())
    return {_ENCODER + _on_any_device(name): weight for name, weight in named if name.endswith(_LOW_RANK)}


def _on_any_device(name: str) -> str:
    """The name of a layer without the wrapper that an attention has on the CPU alone."""
    return name.replace(".module.", ".")


def _layers(encoder: nn.Module) -> dict[str, nn.Module]:
    return {_on_any_device(name): layer for name, layer in encoder.named_modules()}


def _with_encoder(model: Any, delta: Mapping[str, Tensor]) -> Any:
    """Add the products of matrices of low rank to an image encoder."""
    encoder = copy.deepcopy(model.encoder)
    layers = _layers(encoder)
    with torch.no_grad():
        for name, first in delta.items():
            if name.startswith(_ENCODER) and name.endswith(_LOW_RANK[0]):
                layer = name.removeprefix(_ENCODER).removesuffix("." + _LOW_RANK[0])
                second = delta[f"{_ENCODER}{layer}.{_LOW_RANK[1]}"]
                layers[layer].weight.add_((second.float() @ first.float()).to(layers[layer].weight))
    return model.with_encoder(encoder)


def _fits_encoder(name: str, delta: Mapping[str, Tensor], model: Any) -> bool:
    """True for one of two matrices whose product has the shape of a layer of the model's image encoder."""
    layer, _, kind = name.removeprefix(_ENCODER).rpartition(".")
    pair = [delta.get(f"{_ENCODER}{layer}.{each}") for each in _LOW_RANK]
    target = _layers(model.encoder).get(layer) if hasattr(model, "with_encoder") else None
    if kind not in _LOW_RANK or not isinstance(target, nn.Linear) or any(m is None or m.ndim != 2 for m in pair):
        return False
    first, second = pair
    return first.shape[0] == second.shape[1] <= _MOST_RANK and (second.shape[0], first.shape[1]) == target.weight.shape


def is_adaptable(model: object) -> TypeGuard[AdaptableModel]:
    """True for a model that can be adapted."""
    return hasattr(model, "with_decoder")


def trainable(decoder: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that an adaptation changes, by name."""
    named = decoder.named_parameters()
    return {name: weight for name, weight in named if name.startswith(_PARTS) and _TABLE not in name}


def copied(decoder: nn.Module) -> nn.Module:
    """Copy a network's prompt encoder and mask decoder; everything else is shared."""
    kept = {f"{name}." for name, _ in decoder.named_children()}.difference(_PARTS)
    memo = {id(child): child for name, child in decoder.named_children() if f"{name}." in kept}
    return copy.deepcopy(decoder, memo)


def adapted(model: AdaptableModel, delta: Mapping[str, Tensor]) -> SliceModel:
    """Add a difference to a model's weights; the model itself stays as it is."""
    if any(name.startswith(_ENCODER) for name in delta):
        model = _with_encoder(model, delta)
    decoder = copied(model.decoder)
    with torch.no_grad():
        for name, weight in trainable(decoder).items():
            if name in delta:
                weight.add_(delta[name].to(weight))
    return model.with_decoder(decoder.eval().requires_grad_(False))


# The file


@dataclass(frozen=True, slots=True)
class DeltaOrigin:
    """The base that a difference belongs to: its id, and the hash of its weights."""

    base: str
    base_sha256: str


def write_delta(path: Path, delta: Mapping[str, Tensor], origin: DeltaOrigin) -> None:
    """Write a difference; the same weights give the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    note = {"version": _VERSION, "base": origin.base, "base_sha256": origin.base_sha256}
    tensors = {name: delta[name].to(torch.float16).contiguous() for name in sorted(delta)}
    try:
        save_file(tensors, path, {_METADATA: json.dumps(note, sort_keys=True)})
    except SafetensorError as error:  # of the disk
        raise OSError(str(error)) from error


def read_delta(path: Path, card: ModelCard, origin: DeltaOrigin, model: AdaptableModel) -> State:
    """Read a difference for a base.

    Args:
        path: the file.
        card: the adapted model's, for the messages.
        origin: the base that is here.
        model: its network.

    Raises:
        CheckpointError: the file is damaged, belongs to another base, or holds what is no weight of that network.
    """
    try:
        with safe_open(path, "pt") as file:
            note = json.loads((file.metadata() or {}).get(_METADATA, "null"))
            delta = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, ValueError, RuntimeError, struct.error) as error:
        raise CheckpointError(f"{card.id}: {path.name} is damaged or no safetensors file; import it again") from error
    if not isinstance(note, dict) or note.get("version") != _VERSION:
        raise CheckpointError(f"{card.id}: {path.name} is not a difference to a base that this version can read")
    if (note.get("base"), note.get("base_sha256")) != (origin.base, origin.base_sha256):
        raise CheckpointError(f"{card.id}: {path.name} belongs to another base than the {origin.base} that is here")
    weights = trainable(model.decoder)
    fits = all(
        (_fits_encoder(name, delta, model) if name.startswith(_ENCODER) else _has_shape(weights.get(name), value))
        and value.is_floating_point()
        and _is_finite(value)
        for name, value in delta.items()
    )
    if not delta or not fits:
        raise CheckpointError(f"{card.id}: {path.name} holds what are no weights of {origin.base}'s decoder")
    return delta


def _has_shape(weight: Tensor | None, value: Tensor) -> bool:
    return weight is not None and weight.shape == value.shape


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


# Training


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A prompt on an embedded slice and what the answer should be.

    Attributes:
        embedding: as :func:`plain` makes it.
        prompt: the prompt.
        target: (rows, columns) float32 on the model's device, the probability of each pixel.
        coarse: logits of the answer before, for a correction.
        picture: the slice as the model sees it; needed where the image encoder learns.
    """

    embedding: Any
    prompt: SlicePrompt
    target: Tensor
    coarse: Tensor | None = None
    picture: NDArray[np.uint8] | None = None


def plain(embedding: Any) -> Any:
    """Copy an embedding so that gradients may be computed from it; each tensor together in memory."""

    def copied_tensor(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(copied_tensor, value))
        return value.clone().contiguous() if isinstance(value, Tensor) else value

    return replace(embedding, **{item.name: copied_tensor(getattr(embedding, item.name)) for item in fields(embedding)})


@dataclass(slots=True)
class Trainer:
    """Trains a copy of a model's prompt encoder and mask decoder.

    Attributes:
        model: the base, which stays as it is.
        rate: the learning rate.
        rank: of what the image encoder learns, by :func:`encoder_rank`; ``seed`` is of its first values.
        decoder: the copy; ``encoder`` is that of the image encoder, if it learns.
        average: another one, whose weights are the average over the last steps: what is tested and used;
            ``average_encoder`` likewise.
        steps: how many were made.
    """

    model: AdaptableModel
    rate: float
    rank: int = 0
    seed: int = 0
    decoder: nn.Module = field(init=False)
    average: nn.Module = field(init=False)
    encoder: nn.Module | None = None
    average_encoder: nn.Module | None = None
    steps: int = 0
    _optimiser: torch.optim.AdamW = field(init=False)
    _encoded: tuple[Any, nn.Module, Any] | None = None  # the last picture, by which encoder, and its embedding

    def __post_init__(self) -> None:
        self.average = copied(self.model.decoder).requires_grad_(False)
        self.decoder = copied(self.model.decoder).requires_grad_(False)
        if self.rank:
            self.encoder = low_rank_encoder(self.model, self.rank, self.seed)
            self.average_encoder = copy.deepcopy(self.encoder)
        weights = list(self._weights(self.decoder, self.encoder).values())
        for weight in weights:
            weight.requires_grad_(True)
        self._optimiser = torch.optim.AdamW(weights, self.rate, weight_decay=_DECAY)

    @staticmethod
    def _weights(decoder: nn.Module, encoder: nn.Module | None) -> dict[str, nn.Parameter]:
        return trainable(decoder) | (low_rank_weights(encoder) if encoder is not None else {})

    def loss(self, sample: Sample, *, is_average: bool = False) -> Tensor:
        """Cross-entropy plus one less the soft Dice, and the error of the predicted IoU; of the copy or the average."""
        decoder, encoder = (self.average, self.average_encoder) if is_average else (self.decoder, self.encoder)
        embedding = self._embedding(sample, encoder)
        guesses, scores = self.model.guess(embedding, sample.prompt, sample.coarse, decoder)
        best = int(scores.argmax())
        logits = self.model.on_slice(guesses[None, best : best + 1], embedding)
        probability, target = logits.sigmoid(), sample.target
        both, either = (probability * target).sum(), (probability**2 + target**2).sum()
        entropy = functional.binary_cross_entropy_with_logits(logits, target)
        inside, truth = logits.detach() > 0, target > 0.5
        overlap = (inside & truth).sum() / (inside | truth).sum().clamp(min=1)
        return entropy + 1 - (2 * both + 1) / (either + 1) + _QUALITY_WEIGHT * (scores[best] - overlap) ** 2

    def step(self, losses: Tensor) -> None:
        """Take a step down the gradient of a loss."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate * min(1.0, (self.steps + 1) / _WARM_UP)
        self._optimiser.zero_grad()
        losses.backward()
        self._optimiser.step()
        self._encoded = None
        self.steps += 1
        share = 1 - min(_MEMORY, self.steps / (self.steps + 9))
        average = self._weights(self.average, self.average_encoder)
        learned = self._weights(self.decoder, self.encoder).values()
        with torch.no_grad():
            for mean, weight in zip(average.values(), learned, strict=True):
                mean.lerp_(weight, share)

    @torch.no_grad()
    def answer(self, sample: Sample) -> SliceAnswer:
        """Answer a sample's prompt with the weights of now."""
        with torch.enable_grad():  # a loss of this picture takes the same embedding
            embedding = self._embedding(sample, self.encoder)
        guesses, scores = self.model.guess(embedding, sample.prompt, sample.coarse, self.decoder)
        best = int(scores.argmax())
        coarse = guesses[None, best : best + 1]
        mask = (self.model.on_slice(coarse, embedding) > 0).cpu().numpy()
        return SliceAnswer(mask, float(scores[best]), coarse)

    def _embedding(self, sample: Sample, encoder: nn.Module | None) -> Any:
        if encoder is None:
            return sample.embedding
        if self._encoded is None or self._encoded[0] is not sample.picture or self._encoded[1] is not encoder:
            self._encoded = sample.picture, encoder, self.model.embed(sample.picture, encoder)
        return self._encoded[2]

    def delta(self) -> State:
        """The difference to the base, rounded to 16 bits, as it is written."""
        base = trainable(self.model.decoder)
        changed = {name: weight - base[name] for name, weight in trainable(self.average).items()}
        if self.average_encoder is not None:
            changed |= low_rank_weights(self.average_encoder)
        return {name: weight.detach().to(torch.float16).cpu() for name, weight in changed.items()}

    def state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, in values that ``torch.save`` writes without pickled code."""
        copies = ((self.decoder, self.encoder), (self.average, self.average_encoder))
        weights, average = ({name: w.detach() for name, w in self._weights(*parts).items()} for parts in copies)
        optimiser = self._optimiser.state_dict()
        return {"weights": weights, "average": average, "optimiser": optimiser, "steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            LookupError, ValueError, RuntimeError: it is another network's.
        """
        with torch.no_grad():
            copies = ((self.decoder, self.encoder), (self.average, self.average_encoder))
            for key, parts in zip(("weights", "average"), copies, strict=True):
                for name, weight in self._weights(*parts).items():
                    weight.copy_(state[key][name])
        self._optimiser.load_state_dict(state["optimiser"])
        self.steps = int(state["steps"])
