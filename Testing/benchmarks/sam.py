"""SAM ViT-B, SAM 2.1 tiny and EdgeTAM at their true size with random weights, against transformers' own way."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import SamConfig

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.catalog.model_cards import ModelCard, find_card
from FoundationSegLib.models.protocols import SlicePoint, SlicePrompt, load_model
from Testing.models import small_sam, small_sam2
from Testing.models.reference_sam2 import Video

from .timing import THREADS, Comparison, median_s, timed_s

SHAPE = (512, 512)
CLICK = SlicePrompt(points=(SlicePoint(250.0, 200.0),))
BOX = SlicePrompt((150.0, 140.0, 330.0, 300.0))
SLICES = 9  # so many that the memory is full at the last


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)


def card_of(model_id: str) -> ModelCard:
    return read_catalogue()[model_id]


def sam() -> list[Comparison]:
    """An encoding, and a further click on an encoded slice of 512 x 512."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        files = small_sam.write_checkpoint(Path(folder), SamConfig())
        ours = load_model(card_of("sam-vit-base"), files, "cpu")
        reference = small_sam.random_model(SamConfig())
    pixels, image = torch.zeros(1, 3, 1024, 1024), picture()
    embedding = ours.encode(image)
    features = embedding.features.contiguous()
    points = torch.tensor([[[[500.0, 400.0]]]])
    asked = {"input_points": points, "input_labels": torch.ones(1, 1, 1, dtype=torch.int64)}

    @torch.inference_mode()
    def decode() -> None:
        """As transformers is used: the network, and its mask brought back to the slice."""
        coarse = reference(image_embeddings=features, **asked, multimask_output=True).pred_masks[0]
        square = torch.nn.functional.interpolate(coarse, (1024, 1024), mode="bilinear", align_corners=False)
        (torch.nn.functional.interpolate(square, SHAPE, mode="bilinear", align_corners=False) > 0).numpy()

    @torch.inference_mode()
    def encode() -> None:
        reference.get_image_embeddings(pixels)

    encoding = median_s(lambda: ours.encode(image), 3), "transformers", median_s(encode, 3)
    clicking = median_s(lambda: ours.decode(embedding, CLICK)), "transformers", median_s(decode)
    return [Comparison("SAM ViT-B, encode a slice", *encoding), Comparison("SAM ViT-B, a further click", *clicking)]


class Products(TorchDispatchMode):
    """Counts the matrix products and convolutions of what runs within, by their shapes; attention is two products."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[Any, ...]] = Counter()
        self._convolutions: dict[tuple[Any, ...], Any] = {}

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        named, name = named or {}, operator.overloadpacket.__name__
        if name in ("linear", "matmul", "conv2d", "scaled_dot_product_attention"):
            with self:
                return operator.decompose(*arguments, **named)
        tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if "convolution" in name:
            key = "convolution", tuple(map(str, arguments[3:])), *shapes[:2]
            self._convolutions[key] = arguments
            self.counts[key] += 1
        elif "dot_product" in name:
            query, key, value = shapes[:3]
            self.counts[("product", query, (*key[:-2], key[-1], key[-2]))] += 1
            self.counts[("product", (*query[:-1], key[-2]), value)] += 1
        # transformers' Hiera has a product of queries and keys, of each location alone, that nothing uses.
        elif name in ("mm", "bmm", "addmm", "baddbmm") and max(shapes[-2][-2], shapes[-1][-1]) > 16:
            self.counts[("product", *shapes[-2:])] += 1
        return operator(*arguments, **named)

    @torch.inference_mode()
    def seconds(self) -> float:
        """The time that they take alone, one after the other, each measured three times."""
        total = 0.0
        for (kind, *rest), count in self.counts.items():
            if kind == "convolution":
                work = partial(torch.convolution, *self._convolutions[kind, *rest])
            else:
                first, second = (torch.randn(shape) for shape in rest)
                out = torch.empty(*first.shape[:-1], second.shape[-1])
                work = partial(torch.matmul, first, second, out=out)
            total += count * median_s(work, 3)
        return total


def sam2() -> list[Comparison]:
    """An object followed through a volume by SAM 2.1 tiny and EdgeTAM, and a second one through the same slices."""
    torch.set_num_threads(THREADS)
    return [*_followed("sam2", "sam2.1-hiera-tiny"), *_followed("edgetam", "edgetam")]


def _followed(family: str, model_id: str) -> Iterator[Comparison]:
    network, card = small_sam2.true_network(family, 1024, small=False), card_of(model_id)
    with tempfile.TemporaryDirectory() as folder:
        files = small_sam2.write_checkpoint(Path(folder), network)
        ours = load_model(card, files, "cpu")
        draft = load_model(find_card({card.id: card}, f"{card.id}@512"), files, "cpu")
    frames = [small_sam2.slice_of(SHAPE, n) for n in range(SLICES)]

    def follow(model: Any, embeddings: list[Any]) -> list[np.ndarray]:
        memory = model.remember(SLICES)
        first = memory.prompt(0, embeddings[0], BOX).mask
        return [first, *(memory.follow(index, embeddings[index], True).mask for index in range(1, SLICES))]

    def anew(model: Any) -> list[np.ndarray]:
        return follow(model, [model.encode(frame) for frame in frames])

    def theirs(slices: int = SLICES) -> dict[int, list[Any]]:
        video = Video(network, frames[:slices], 1024)
        video.prompt(0, BOX)
        return video.propagate(0, True)

    with Products() as products, torch.inference_mode():
        said = theirs()
    masks, session_s = anew(ours), timed_s(theirs)
    ours_s, products_s = timed_s(lambda: anew(ours)), products.seconds()
    torch.set_num_threads(1)  # sums in another order
    again = [one[0].mask for _, one in sorted(theirs().items())]
    torch.set_num_threads(THREADS)

    def turned(other: list[np.ndarray]) -> int:
        """The pixels that differ from the session's where its logit is not within 0.001 of 0."""
        pairs = [(said[n][0], mask) for n, mask in enumerate(other)]
        return sum(int(((mask != one.mask) & (np.abs(one.logits) > 1e-3)).sum()) for one, mask in pairs)

    alone = f"; its matrix products alone: {products_s:.1f} s"
    note = f"{alone}; {turned(masks)} pixels differ where the logit is not within 0.001 of 0"
    note += f", {turned(again)} between the session on {THREADS} threads and on one"
    volume = f"{card.title}, an object through {SLICES} slices"
    yield Comparison(volume, ours_s, "transformers' session", session_s, note)
    embeddings = [ours.encode(frame) for frame in frames]
    again_s = timed_s(lambda: follow(ours, embeddings))
    yield Comparison("another object, or a correction", again_s, "transformers' session anew", session_s)
    rough, drafted_s = anew(draft), timed_s(lambda: anew(draft))
    dice = [2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in zip(masks, rough, strict=True)]
    agreement = f"; Dice with 1024 pixels {np.mean(dice):.3f}, least {min(dice):.3f}, with random weights"
    yield Comparison("its draft at 512 pixels", drafted_s, "at 1024 pixels", ours_s, agreement)
