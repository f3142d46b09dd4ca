"""What transformers and the authors of MedSAM say to a prompt, and whether an adapter says the same."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import SamModel, SamProcessor

from FoundationSegLib.models.protocols import SliceAnswer, SlicePoint, SlicePrompt
from Testing.models.sam_cases import as_rgb, image_of, nested

TOLERANCE = 1e-4  # of features and logits


@dataclass(frozen=True)
class Expected:
    """``features`` (1, C, h, w), the chosen mask's ``logits`` (1, 1, s, s), and ``surface``: above 0 in the mask."""

    features: torch.Tensor
    logits: torch.Tensor
    surface: np.ndarray
    score: float

    @property
    def mask(self) -> np.ndarray:
        return self.surface > 0


class Reference(Protocol):
    def answer(self, image: np.ndarray, prompt: SlicePrompt, known: torch.Tensor | None) -> Expected: ...


class TransformersSam:
    """SamProcessor and SamModel on the checkpoint's folder; ``known`` are logits that go in as a mask."""

    def __init__(self, folder: Path) -> None:
        self.processor = SamProcessor.from_pretrained(folder, local_files_only=True)
        self.model = SamModel.from_pretrained(folder, local_files_only=True).eval()

    @torch.inference_mode()
    def answer(self, image: np.ndarray, prompt: SlicePrompt, known: torch.Tensor | None = None) -> Expected:
        asked = self.processor(
            images=as_rgb(image), **nested(prompt), input_data_format="channels_last", return_tensors="pt"
        )
        single = prompt.box is None and len(prompt.points) == 1 and prompt.points[0].positive and known is None
        features = self.model.get_image_embeddings(asked["pixel_values"])
        said = self.model(
            image_embeddings=features,
            input_points=asked["input_points"].float() if prompt.points else None,
            input_labels=asked["input_labels"] if prompt.points else None,
            input_boxes=asked["input_boxes"].float() if prompt.box else None,
            input_masks=known,
            multimask_output=single,
        )
        best = int(said.iou_scores[0, 0].argmax())
        surfaces = self.processor.post_process_masks(
            said.pred_masks, asked["original_sizes"], asked["reshaped_input_sizes"], binarize=False
        )
        logits = said.pred_masks[:, :, best]
        return Expected(features, logits, surfaces[0][0, best].numpy(), float(said.iou_scores[0, 0, best]))


class AuthorsMedSam:
    """MedSAM_Inference.py of bowang-lab/MedSAM, line by line, with transformers' network and a given ``resize``."""

    def __init__(self, folder: Path, resize: Any) -> None:
        self.model = SamModel.from_pretrained(folder, local_files_only=True).eval()
        self.size, self.resize = self.model.config.vision_config.image_size, resize

    @torch.inference_mode()
    def answer(self, image: np.ndarray, prompt: SlicePrompt, known: torch.Tensor | None = None) -> Expected:
        rows, columns = image.shape[:2]
        square = self.resize(as_rgb(image), self.size).astype(np.uint8)
        square = (square - square.min()) / np.clip(float(square.max() - square.min()), a_min=1e-8, a_max=None)
        features = self.model.get_image_embeddings(torch.tensor(square).float().permute(2, 0, 1).unsqueeze(0))
        box = np.array([prompt.box]) / np.array([columns, rows, columns, rows]) * self.size
        boxes = torch.as_tensor(box, dtype=torch.float)[:, None, :]
        said = self.model(image_embeddings=features, input_boxes=boxes, multimask_output=False)
        probabilities = functional.interpolate(
            torch.sigmoid(said.pred_masks[:, 0]), size=(rows, columns), mode="bilinear", align_corners=False
        )
        surface = probabilities[0, 0].numpy() - 0.5
        return Expected(features, said.pred_masks[:, 0], surface, float(said.iou_scores[0, 0, 0]))


def assert_parity(
    adapter: Any,
    reference: Reference,
    image: np.ndarray,
    prompt: SlicePrompt,
    previous: SliceAnswer | None = None,
    known: torch.Tensor | None = None,
    asked: SlicePrompt | None = None,
) -> SliceAnswer:
    """The adapter's answer, if features, logits, mask and score are the reference's.

    ``asked`` is what the reference is given instead of the prompt, and ``known`` the logits that go with it.
    """
    expected = reference.answer(image, asked or prompt, known)
    embedding = adapter.encode(image)
    said = []
    decode = adapter.network.decode

    def noted(*arguments, **named):
        said.append(decode(*arguments, **named))
        return said[-1]

    with patch.object(adapter.network, "decode", noted):
        answer = adapter.decode(embedding, prompt, previous)
    logits, scores = said[0]
    torch.testing.assert_close(embedding.features, expected.features, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(logits[None, scores.argmax()][None], expected.logits, rtol=0, atol=TOLERANCE)
    assert answer.score == min(1, max(0, answer.score))
    np.testing.assert_allclose(answer.score, min(1, max(0, expected.score)), rtol=0, atol=1e-5)
    assert (answer.mask.shape, answer.mask.dtype) == (image.shape[:2], bool)
    # What is nearer to the border than rounding errors may be on either side.
    differs = (answer.mask != expected.mask) & (np.abs(expected.surface) > 1e-5)
    assert not differs.any(), f"{np.count_nonzero(differs)} pixels differ"
    return answer


class Changed:
    """An adapter with a defect: it is given another image than the reference, or its mask is changed."""

    def __init__(self, adapter, image=lambda image: image, mask=lambda mask: mask):
        self.network, self.device = adapter.network, adapter.device
        self.encode = lambda seen, check=None: adapter.encode(np.ascontiguousarray(image(seen)))
        self._adapter, self._mask = adapter, mask

    def decode(self, embedding, prompt, previous=None):
        answer = self._adapter.decode(embedding, prompt, previous)
        return replace(answer, mask=self._mask(answer.mask))


def moved(prompt, change):
    """A prompt whose coordinates (x, y) were changed."""
    box = prompt.box and (*change(*prompt.box[:2]), *change(*prompt.box[2:]))
    return replace(prompt, box=box, points=tuple(SlicePoint(*change(p.x, p.y), p.positive) for p in prompt.points))


COORDINATES = {
    "x and y swapped": lambda x, y: (y, x),
    "half a pixel to the right": lambda x, y: (x + 0.5, y),
    "half a pixel up": lambda x, y: (x, y - 0.5),
    "from the right": lambda x, y: (149 - x, y),
    "one scale for both axes": lambda x, y: (x, y * 0.99),
}
CHANGES = {
    "mirrored": {"image": lambda image: image[:, ::-1]},
    "upside down": {"image": lambda image: image[::-1]},
    "transposed": {"image": lambda image: image.T},
    "another contrast": {"image": lambda image: image // 4 + np.arange(150, dtype=np.uint8)},
    "mask mirrored": {"mask": lambda mask: mask[:, ::-1]},
    "mask one pixel to the side": {"mask": lambda mask: np.roll(mask, 1, axis=1)},
}


def assert_defects_are_noticed(adapter: Any, reference: Reference, prompt: SlicePrompt, shape=(120, 150)) -> None:
    """The comparison fails for each of the defects, and passes without one."""
    image = image_of(shape)
    assert_parity(adapter, reference, image, prompt)
    for change in COORDINATES.values():
        with pytest.raises(AssertionError):
            assert_parity(adapter, reference, image, moved(prompt, change), asked=prompt)
    for change in CHANGES.values():
        with pytest.raises(AssertionError):
            assert_parity(Changed(adapter, **change), reference, image, prompt)
