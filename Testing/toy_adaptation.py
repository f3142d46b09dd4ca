"""A decoder of some hundred weights that can be adapted in seconds, images that it can learn from, and its engine."""

import copy
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from FoundationSegLib.catalog.catalogue import read_card, read_catalogue
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.hub.store import Store
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models.protocols import Check, SliceAnswer, SlicePrompt, unstoppable
from FoundationSegLib.requests.adaptation import AdaptRequest, CorrectedSegment, Training
from FoundationSegLib.worker import server
from Testing.unit.fakes import CARD_TOML, fill_store, volume_of

SIDE = 20


@dataclass(frozen=True, slots=True)
class ToyEmbedding:
    levels: Tensor
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.levels.nbytes

    @property
    def grid(self) -> Tensor:
        return torch.stack([self.levels, 1 - self.levels], -1)


class ToyDecoder(nn.Module):
    """Sees a pixel's brightness, and whether it is in the box or near a click for or against."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.prompt_encoder = nn.Linear(4, 8)
        self.mask_decoder = nn.Sequential(nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


@dataclass(slots=True)
class ToyModel:
    """Adaptable, as the adapters of SAM's family are; ``runs`` counts the encoded slices."""

    decoder: ToyDecoder = field(default_factory=lambda: ToyDecoder().requires_grad_(False))
    device: str = "cpu"
    precision: str = "float32"
    nbytes: int = 1000
    runs: list[int] = field(default_factory=list)

    def encode(self, image: np.ndarray, check: Check = unstoppable) -> ToyEmbedding:
        check()
        self.runs.append(1)
        return ToyEmbedding(torch.from_numpy(image.astype(np.float32) / 255), image.shape[:2])

    def decode(self, embedding: Any, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        with torch.no_grad():
            logits, scores = self.guess(embedding, prompt, None if previous is None else previous.logits)
        return SliceAnswer((logits[0] > 0).numpy(), float(scores[0]), logits[None])

    def with_decoder(self, decoder: ToyDecoder) -> "ToyModel":
        model = copy.copy(self)
        model.decoder = decoder
        return model

    def guess(self, embedding: Any, prompt: SlicePrompt, coarse: Any, decoder: Any = None) -> tuple[Tensor, Tensor]:
        decoder = decoder or self.decoder
        rows, columns = torch.meshgrid(*map(torch.arange, embedding.shape), indexing="ij")
        maps = [embedding.levels, *(torch.zeros(embedding.shape) for _ in range(3))]
        if prompt.box:
            x0, y0, x1, y1 = prompt.box
            maps[1] = ((columns >= x0) & (columns <= x1) & (rows >= y0) & (rows <= y1)).float()
        for point in prompt.points:
            near = torch.exp(-((columns - point.x) ** 2 + (rows - point.y) ** 2) / 32)
            maps[2 if point.positive else 3] = torch.maximum(maps[2 if point.positive else 3], near)
        logits = decoder.mask_decoder(decoder.prompt_encoder(torch.stack(maps, -1)))[..., 0]
        return logits[None], torch.full((1,), 0.5)

    def on_slice(self, logits: Tensor, embedding: Any) -> Tensor:
        return logits[0, 0]

    def box_around(self, mask: np.ndarray, wider: int = 0) -> Any:
        rows, columns = np.nonzero(mask)
        return (columns.min(), rows.min(), columns.max(), rows.max()) if rows.size else None


def toy_case(seed: int, slices: int = 12) -> tuple[Volume, np.ndarray]:
    """A volume with a bright blob that wanders from slice to slice, a second one as bright, and the first's mask."""
    rng = np.random.default_rng(seed)
    array, mask = rng.normal(40, 10, (slices, SIDE, SIDE)), np.zeros((slices, SIDE, SIDE), np.bool_)
    rows, columns = np.indices((SIDE, SIDE))
    for k in range(slices):
        (y, x), radius = rng.uniform(5, SIDE - 5, 2), rng.uniform(2.5, 4)
        mask[k] = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        other = (rows - (y + SIDE / 2) % SIDE) ** 2 + (columns - (x + SIDE / 2) % SIDE) ** 2 <= 6
        array[k][mask[k] | other] += 150
    return volume_of(array.astype(np.int16)), mask


def toy_segments(cases: list[tuple[Volume, np.ndarray]], patients: str = "") -> tuple[CorrectedSegment, ...]:
    """A segment of each case; its patient is a letter of ``patients``, one for all unless given."""
    names = patients or "A" * len(cases)
    return tuple(
        CorrectedSegment(volume.key, "blob", name, pack_mask(mask))
        for (volume, mask), name in zip(cases, names, strict=True)
    )


def toy_engine(folder: Path, cases: list[tuple[Volume, np.ndarray]], own_cards: Path | None = None) -> Engine:
    """An engine whose card ``fake`` has the toy's weights; the checkpoint is in a store of its own."""
    shipped = folder / "shipped"
    if not shipped.exists():
        shipped.mkdir(parents=True)
        text = CARD_TOML.replace('packages = ["fakelib"]', "packages = []")
        (shipped / "fake.toml").write_text(text, encoding="utf-8")
        fill_store(folder / "store", read_card(shipped / "fake.toml"))
    catalogue = read_catalogue(shipped, own_cards if own_cards and own_cards.is_dir() else None)
    engine = Engine(catalogue, Store(folder / "store"), "cpu", load_model=lambda *_: ToyModel())
    for volume, _ in cases:
        engine.add_volume(volume)
    return engine


def null_request(
    cases: list[tuple[Volume, np.ndarray]], seed: int, training: Training, patients: str = "ABCDEFGHIJKL"
) -> AdaptRequest:
    """Adapt to the labels of other images, with their slices in another order: there is nothing to learn."""
    rng = np.random.default_rng(seed)
    shift = int(rng.integers(1, len(cases)))
    masks = [rng.permutation(cases[(n + shift) % len(cases)][1]) for n in range(len(cases))]
    segments = toy_segments(
        [(volume, mask) for (volume, _), mask in zip(cases, masks, strict=True)], patients[: len(cases)]
    )
    return AdaptRequest(seed, "fake", f"null{seed}", segments, training=replace(training, seed=seed))


def worker_command(folder: Path) -> tuple[str, ...]:
    """A real worker process around the toy, whose store is in a folder."""
    return (sys.executable, "-P", "-m", "Testing.toy_adaptation", str(folder))


if __name__ == "__main__":
    torch.set_num_threads(1)
    server.main(lambda _: toy_engine(Path(sys.argv[1]), []))
