"""Preparation of images: resizing as the authors of the models do it, and intensities as a network was trained."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ..catalog.model_cards import ModelCard
from ..errors import CheckpointError
from .weights import file_called, read_json

# What every published preprocessor_config.json of SAM's families asks for: bilinear, and all of the steps.
_STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 2}
# Enlarging by less than this is linear, by more cubic.
CUBIC_FROM = 1.5
Kernel = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # weights by the distance between pixel centres
# The pole of the filter that makes a cubic spline go through its samples; its powers vanish after 30 of them.
_POLE = math.sqrt(3) - 2
_REACH = 30


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean 0 and deviation 1 over the images that a network was trained on; by default, those of ImageNet.

    ``mean`` and ``std`` are per channel and of intensities times ``factor``.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    factor: float = 1 / 255

    def __call__(self, levels: Tensor) -> Tensor:
        """Normalise (B, 1 or 3, rows, columns) uint8 to (B, 3, rows, columns) float32.

        Factor and mean in one, as transformers does it, so that not even the last bit differs.
        """
        mean, std = (torch.tensor(values)[:, None, None] * (1 / self.factor) for values in (self.mean, self.std))
        return (levels.to(torch.float32) - mean) / std


IMAGENET = Normalisation()


@dataclass(frozen=True, slots=True, eq=False)
class PreparedVolume:
    """An image as a network of whole volumes sees it.

    Attributes:
        voxels: (1, 1, X, Y, Z) float32; x, y, z run to the right, the front and the head.
        spans_kji: for each axis of the stored array the voxels that these cover, from edge to edge; they may reach out
            of the image.
    """

    voxels: Tensor
    spans_kji: tuple[tuple[float, float], ...]


def to_device(pixels: Tensor, device: str, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
    """Copy pixels to the device. A graphics card fetches them from pinned memory while the processor goes on."""
    is_cuda = device == "cuda"
    source = pixels.pin_memory() if is_cuda else pixels
    return source.to(device, memory_format=memory_format, non_blocking=is_cuda)


def read_normalisation(files: Mapping[str, Path], card: ModelCard, shape: Mapping[str, object]) -> Normalisation:
    """Read a preprocessor_config.json; ImageNet's values where it names none, or where there is no file.

    Args:
        files: the checkpoint, by the paths that the card gives.
        card: for the messages.
        shape: the family's way of bringing images into shape, which the file may repeat and not contradict.

    Raises:
        CheckpointError: the file is unreadable, or asks for another preparation or another size than the family's.
    """
    path = file_called("preprocessor_config.json", files)
    if path is None:
        return IMAGENET
    document = read_json(path, card)
    normalisation = parse_normalisation(document, IMAGENET)
    if normalisation is None or any(document.get(key, value) != value for key, value in (_STEPS | dict(shape)).items()):
        raise CheckpointError(f"{card.title}: {path.name} asks for a preparation of images that is not this model's")
    return normalisation


def parse_normalisation(document: Mapping[str, object], default: Normalisation) -> Normalisation | None:
    """Read mean, deviation and factor of a preprocessor_config.json; None where they are no usable numbers."""
    mean, std = document.get("image_mean", default.mean), document.get("image_std", default.std)
    factor = document.get("rescale_factor", default.factor)
    if not all(
        isinstance(values, list | tuple) and len(values) == 3 and all(type(n) in (int, float) for n in values)
        for values in (mean, std, [factor] * 3)
    ):
        return None
    return Normalisation(tuple(mean), tuple(std), factor) if min(*std, factor) > 0 else None


def channels_first(image: NDArray[np.generic]) -> Tensor:
    """(rows, columns) or (rows, columns, 3) as a tensor of (1, 1 or 3, rows, columns)."""
    channels = image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)
    return torch.from_numpy(np.ascontiguousarray(channels))[None]


def longest_side_shape(shape: tuple[int, int], length: int) -> tuple[int, int]:
    """(rows, columns) once the longer of them is ``length``; halves upwards (CVPR24_LiteMedSAM_infer.py)."""
    scale = length / max(shape)
    return max(1, int(shape[0] * scale + 0.5)), max(1, int(shape[1] * scale + 0.5))


@lru_cache(maxsize=16)
def resize_weights(size: int, new_size: int) -> NDArray[np.float32]:
    """Share of each of ``size`` pixels in each of ``new_size``, along one axis; (new_size, size), rows sum to 1.

    Shrinking averages the area that a new pixel covers, as the official script does (OpenCV's INTER_AREA). Enlarging
    is linear up to :data:`CUBIC_FROM`-fold (INTER_LINEAR), and cubic beyond (INTER_CUBIC, with its A of -0.75). For
    INTER_AREA there means nearly the nearest pixel, and the blocks cost more than they keep: mean Dice of the official
    3-D rule over the organs that the tests name was, on the CT (2.1-fold) and the MR (2.2-fold), 0.67 and 0.69 with
    blocks, 0.79 and 0.43 with linear, 0.80 and 0.70 with cubic; of the nodule (1.2-fold) 0.64, 0.65 and 0.63.
    """
    if new_size <= size:
        return _area_weights(size, new_size)
    if new_size >= CUBIC_FROM * size:
        return _kernel_weights(size, new_size, _cubic, 2).astype(np.float32)
    return _kernel_weights(size, new_size, lambda distance: 1 - distance, 1).astype(np.float32)


def _area_weights(size: int, new_size: int) -> NDArray[np.float32]:
    edges = np.arange(new_size + 1) * (size / new_size)
    pixels = np.arange(size)
    upper = np.minimum(edges[1:, None], pixels + 1)
    lower = np.maximum(edges[:-1, None], pixels)
    overlap = np.clip(upper - lower, 0, None)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)


def _kernel_weights(size: int, new_size: int, kernel: Kernel, reach: int, mirror: bool = False) -> NDArray[np.float64]:
    """Weights of a kernel that is zero from ``reach`` pixels on; beyond the edges a mirror, or the edge pixel."""
    centres = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    first = np.floor(centres).astype(np.int64)
    weights = np.zeros((new_size, size))
    for offset in range(1 - reach, reach + 1):
        pixels = _mirrored(first + offset, size) if mirror else np.clip(first + offset, 0, size - 1)
        np.add.at(weights, (np.arange(new_size), pixels), kernel(np.abs(centres - first - offset)))
    return weights


def _cubic(distance: NDArray[np.float64], a: float = -0.75) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel at distances of 0 to 2 pixels (IEEE TASSP 29:1153, 1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, far)


def resize_longest_side(image: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """Resize (rows, columns) or (rows, columns, 3), uint8, so that its longer side is ``length``; uint8.

    Agrees with OpenCV to one grey level (tested).
    """
    rows, columns = image.shape[:2]
    new_rows, new_columns = longest_side_shape((rows, columns), length)
    if (new_rows, new_columns) == (rows, columns):
        return image
    down, across = (torch.from_numpy(resize_weights(*n)) for n in ((rows, new_rows), (columns, new_columns)))
    values = torch.from_numpy(np.moveaxis(image.astype(np.float32), (0, 1), (-2, -1)))
    # By torch: numpy's own threads would go on spinning for a while, and slow the encoder that comes next.
    product = (down @ values @ across.T).numpy()
    # Cubic weights overshoot at edges.
    resized = np.clip(np.floor(product + 0.5), 0, 255)
    return np.ascontiguousarray(np.moveaxis(resized, (-2, -1), (0, 1)).astype(np.uint8))


@lru_cache(maxsize=4)
def spline_weights(size: int, new_size: int) -> NDArray[np.float64]:
    """Share of each of ``size`` pixels in each of ``new_size`` by cubic splines; (new_size, size), rows sum to 1.

    scikit-image's ``resize(order=3, anti_aliasing=True)`` along one axis (skimage/transform/_warps.py): a Gaussian,
    where it shrinks, and then scipy.ndimage's zoom. Beyond the edges the pixels go on as in a mirror whose surface is
    the centre of the last pixel (``"reflect"`` to scikit-image, ``"mirror"`` to scipy).
    """
    samples = _kernel_weights(size, new_size, _cubic_b_spline, 2, mirror=True)
    gain = -6 * _POLE / (1 - _POLE**2)
    to_coefficients = _filter(size, [gain * _POLE ** abs(n) for n in range(-_REACH, _REACH + 1)])
    return samples @ to_coefficients @ _gaussian(size, max(0.0, (size / new_size - 1) / 2))


def _cubic_b_spline(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic B-spline at distances of 0 to 2 pixels."""
    near = 2 / 3 - distance**2 * (2 - distance) / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far)


def _gaussian(size: int, sigma: float) -> NDArray[np.float64]:
    """Matrix of scipy's gaussian_filter1d, four sigma to each side; (size, size)."""
    if sigma == 0:
        return np.eye(size)
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return _filter(size, weights / weights.sum())


def _filter(size: int, weights: NDArray[np.float64] | list[float]) -> NDArray[np.float64]:
    matrix = np.zeros((size, size))
    pixels = np.arange(size)
    for offset, weight in enumerate(weights, -(len(weights) // 2)):
        np.add.at(matrix, (pixels, _mirrored(pixels + offset, size)), weight)
    return matrix


def _mirrored(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Mirror indices beyond the edges at the first and the last pixel, as often as it takes."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = index % period
    return np.minimum(index, period - index)


def resize_by_splines(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (rows, columns) or (rows, columns, 3) to (rows, columns) = ``shape`` by cubic splines; uint8.

    The result stays within the image's own range, as in scikit-image, and fractions are cut off, as by its users'
    ``astype(np.uint8)``. A value below a whole number by no more than rounding errors counts as that number: on
    scikit-image's side those pixels, in flat areas, come out one level lower or not by chance.
    """
    down, across = (torch.from_numpy(spline_weights(*sizes)) for sizes in zip(image.shape[:2], shape, strict=True))
    values = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, (0, 1), (-2, -1)), dtype=np.float64))
    # By torch: numpy's own threads would go on spinning for a while, and slow the encoder that comes next.
    resized = (down @ values @ across.T).clamp(int(image.min()), int(image.max())) + 1e-6
    return np.ascontiguousarray(np.moveaxis(resized.to(torch.uint8).numpy(), (-2, -1), (0, 1)))


@dataclass(frozen=True, slots=True)
class Sam2Preparation:
    """A checkpoint's preparation of images: (``size``, ``size``) pixels, then normalised (``Sam2ImageProcessor``)."""

    size: int
    normalisation: Normalisation = IMAGENET

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """Stretch (rows, columns) or (rows, columns, 3), uint8, to (1, 3, size, size) float32 on the host.

        In 8 bits, bilinear with anti-aliasing.
        """
        square = interpolate(channels_first(image), size=(self.size, self.size), mode="bilinear", antialias=True)
        return self.normalisation(square)
