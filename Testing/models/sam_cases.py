"""Images and prompts that the adapters of SAM's family are asked with, and how a mask goes in."""

import numpy as np
import torch

from FoundationSegLib.models.protocols import SlicePoint, SlicePrompt

SHAPES = {
    "landscape": (120, 150),
    "portrait": (150, 120),
    "square": (96, 96),
    "larger than the network": (300, 400),
    "the network's own size": (256, 256),
    "a single row": (1, 300),
    "a single column": (300, 1),
    "odd": (37, 501),
    "colour, landscape": (70, 90, 3),
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
    small = torch.nn.functional.interpolate(
        torch.from_numpy(mask.astype(np.float32))[None, None], shape, mode="bilinear", antialias=True
    )
    logits = np.full((size, size), np.log(0.001 / 0.999), np.float32)
    logits[: shape[0], : shape[1]][small[0, 0].numpy() > 0.5] = np.log(0.999 / 0.001)
    return torch.from_numpy(logits)[None, None]


def box_of(mask):
    rows, columns = np.nonzero(mask)
    return tuple(float(n) for n in (columns.min(), rows.min(), columns.max(), rows.max()))
