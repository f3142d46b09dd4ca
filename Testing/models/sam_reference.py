"""Prompts for SAM's family, the answers of transformers and of MedSAM's authors, and if an adapter's are the same."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import SamModel, SamProcessor

from FoundationSegLib.models.protocols import SliceAnswer, SlicePoint, SlicePrompt

TOLERANCE = 1e-4  # of features and logits
SHAPES = {
    "landscape": (120, 150),
    "portrait": (150, 120),
    "larger than the network": (300, 400),
    "the network's own size": (256, 256),
    "a single row": (1, 300),
    "a single column": (300, 1),
    "odd": (37, 501),
    "colour, portrait": (90, 70, 3),
}
KINDS = ("box", "point", "points", "negative point", "box and points", "box and point")


def image_of(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def as_rgb(image):
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


def nested(prompt):
    """Points and box as transformers' processors want them."""
    values = {}
    if prompt.points:
        values["input_points"] = [[[[point.x, point.y] for point in prompt.points]]]
        values["input_labels"] = [[[int(point.positive) for point in prompt.points]]]
    if prompt.box is not None:
        values["input_boxes"] = [[list(prompt.box)]]
    return values


def prompt_of(kind, shape):
    """Prompts that no mirror and no swap leaves as they are."""
    rows, columns = shape[:2]
    box = (0.1 * columns, 0.2 * rows, 0.7 * columns, 0.9 * rows)
    positive = SlicePoint(0.3 * columns, 0.4 * rows)
    negative = SlicePoint(0.85 * columns, 0.25 * rows, positive=False)
    return {
        "box": SlicePrompt(box),
        "point": SlicePrompt(points=(positive,)),
        "points": SlicePrompt(points=(positive, negative, SlicePoint(0.5 * columns, 0.6 * rows))),
        "negative point": SlicePrompt(points=(negative,)),
        "box and points": SlicePrompt(box, (positive, negative)),
        "box and point": SlicePrompt(box, (positive,)),
    }[kind]


def disc(shape):
    rows, columns = np.indices(shape[:2])
    return (rows - 0.4 * shape[0]) ** 2 + (columns - 0.6 * shape[1]) ** 2 < (0.3 * min(shape[:2]) + 1) ** 2


def log_odds(mask, size=64):
    """micro-sam's mask prompt, spelled out for a network of 256 pixels."""
    scale = size / max(mask.shape)
    shape = [int(n * scale + 0.5) for n in mask.shape]
    pixels = torch.from_numpy(mask.astype(np.float32))[None, None]
    small = functional.interpolate(pixels, shape, mode="bilinear", antialias=True)
    logits = np.full((size, size), np.log(0.001 / 0.999), np.float32)
    logits[: shape[0], : shape[1]][small[0, 0].numpy() > 0.5] = np.log(0.999 / 0.001)
    return torch.from_numpy(logits)[None, None]


def box_of(mask):
    rows, columns = np.nonzero(mask)
    return tuple(float(n) for n in (columns.min(), rows.min(), columns.max(), rows.max()))


@dataclass(frozen=True)
class Expected:
    """``features`` (1, C, h, w), the chosen mask's ``logits`` (1, 1, s, s), and ``surface``: above 0 in the mask."""

    features: torch.Tensor
    logits: torch.Tensor
    surface: np.ndarray
    score: float


class Reference(Protocol):
    def answer(self, image: np.ndarray, prompt: SlicePrompt, known: torch.Tensor | None) -> Expected: ...


class Embeddings:
    """The embeddings of transformers' network; those of the last image are kept for its next prompt."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.pixels, self.last = torch.empty(0), None

    @torch.inference_mode()
    def of(self, pixels: torch.Tensor) -> Any:
        if not torch.equal(self.pixels, pixels):
            self.pixels, self.last = pixels, self.model.get_image_embeddings(pixels)
        return self.last


class TransformersSam:
    """SamProcessor and SamModel on the checkpoint's folder; ``known`` are logits that go in as a mask.

    ``model`` is another SamModel than that of the folder.
    """

    def __init__(self, folder: Path, model: SamModel | None = None) -> None:
        self.processor = SamProcessor.from_pretrained(folder, local_files_only=True)
        self.model = model or SamModel.from_pretrained(folder, local_files_only=True).eval()
        self.embeddings = Embeddings(self.model)

    @torch.inference_mode()
    def answer(self, image: np.ndarray, prompt: SlicePrompt, known: torch.Tensor | None = None) -> Expected:
        inputs = self.processor(
            images=as_rgb(image), **nested(prompt), input_data_format="channels_last", return_tensors="pt"
        )
        single = prompt.box is None and len(prompt.points) == 1 and prompt.points[0].positive and known is None
        features = self.embeddings.of(inputs["pixel_values"])
        output = self.model(
            image_embeddings=features,
            input_points=inputs["input_points"].float() if prompt.points else None,
            input_labels=inputs["input_labels"] if prompt.points else None,
            input_boxes=inputs["input_boxes"].float() if prompt.box else None,
            input_masks=known,
            multimask_output=single,
        )
        best = int(output.iou_scores[0, 0].argmax())
        surfaces = self.processor.post_process_masks(
            output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False
        )
        logits, score = output.pred_masks[:, :, best], float(output.iou_scores[0, 0, best])
        return Expected(features, logits, surfaces[0][0, best].numpy(), score)


class AuthorsMedSam:
    """MedSAM_Inference.py of bowang-lab/MedSAM, line by line, with transformers' network and a given ``resize``."""

    def __init__(self, folder: Path, resize: Any) -> None:
        self.model = SamModel.from_pretrained(folder, local_files_only=True).eval()
        self.size, self.resize = self.model.config.vision_config.image_size, resize
        self.embeddings = Embeddings(self.model)

    @torch.inference_mode()
    def answer(self, image: np.ndarray, prompt: SlicePrompt, known: torch.Tensor | None = None) -> Expected:
        rows, columns = image.shape[:2]
        square = self.resize(as_rgb(image), self.size).astype(np.uint8)
        square = (square - square.min()) / np.clip(float(square.max() - square.min()), a_min=1e-8, a_max=None)
        features = self.embeddings.of(torch.tensor(square).float().permute(2, 0, 1).unsqueeze(0))
        box = np.array([prompt.box]) / np.array([columns, rows, columns, rows]) * self.size
        boxes = torch.as_tensor(box, dtype=torch.float)[:, None, :]
        output = self.model(image_embeddings=features, input_boxes=boxes, multimask_output=False)
        probabilities = functional.interpolate(
            torch.sigmoid(output.pred_masks[:, 0]), size=(rows, columns), mode="bilinear", align_corners=False
        )
        surface = probabilities[0, 0].numpy() - 0.5
        return Expected(features, output.pred_masks[:, 0], surface, float(output.iou_scores[0, 0, 0]))


def assert_parity(
    adapter: Any,
    reference: Reference,
    image: np.ndarray,
    prompt: SlicePrompt,
    previous: SliceAnswer | None = None,
    known: torch.Tensor | None = None,
    asked: SlicePrompt | None = None,
    embedding: Any = None,
) -> SliceAnswer:
    """The adapter's answer, if features, logits (where it gives any), mask and score are the reference's.

    ``asked`` is what the reference is given instead of the prompt, ``known`` the logits that go with it, and
    ``embedding`` the adapter's of the image, where there is one.
    """
    expected = reference.answer(image, asked or prompt, known)
    embedding = embedding or adapter.encode(image)
    answer = adapter.decode(embedding, prompt, previous)
    torch.testing.assert_close(embedding.features, expected.features, rtol=0, atol=TOLERANCE)
    if answer.logits is not None:
        torch.testing.assert_close(answer.logits, expected.logits, rtol=0, atol=TOLERANCE)
    assert answer.score == min(1, max(0, answer.score))
    np.testing.assert_allclose(answer.score, min(1, max(0, expected.score)), rtol=0, atol=1e-5)
    assert (answer.mask.shape, answer.mask.dtype) == (image.shape[:2], bool)
    # What is nearer to the border than rounding errors may be on either side.
    differs = (answer.mask != (expected.surface > 0)) & (np.abs(expected.surface) > 1e-5)
    assert not differs.any(), f"{np.count_nonzero(differs)} pixels differ"
    return answer


def moved(prompt, change):
    """A prompt whose coordinates (x, y) were changed."""
    box = prompt.box and (*change(*prompt.box[:2]), *change(*prompt.box[2:]))
    return replace(prompt, box=box, points=tuple(SlicePoint(*change(p.x, p.y), p.positive) for p in prompt.points))


class Waits(TorchFunctionMode):
    """Counts what makes the host wait for the device, on whatever device it runs."""

    WAITING = ("cpu", "item", "tolist", "nonzero", "__float__", "__int__", "__bool__")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, arguments=(), named=None):
        self.count += getattr(function, "__name__", "") in self.WAITING
        return function(*arguments, **(named or {}))
