"""What adapters to classify with are held against: the same pictures and texts, by the reference called directly."""

import numpy as np
from numpy.typing import NDArray

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
