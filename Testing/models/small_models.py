"""For each family a small checkpoint with random weights in the true layout, in a store that calls it ready."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.hub.records import hash_file
from FoundationSegLib.hub.store import Store
from FoundationSegLib.models.segmentation import medsam2
from Testing.models import small_image_text, small_sam, small_sam2
from Testing.models.meta_sam2 import write_medsam2

MEDSAM2_SIZE = 128


def _sam(folder: Path, card: ModelCard) -> Mapping[str, Path]:
    return small_sam.write_checkpoint(folder, small_sam.small_config(256))


def _medsam2(folder: Path, card: ModelCard) -> Mapping[str, Path]:
    name = card.source.files[0].name
    write_medsam2(folder / name, small_sam2.small_network(size=MEDSAM2_SIZE))
    return {name: folder / name}


# For each family: writes its files into a folder, and returns them by name.
WRITERS: Mapping[str, Callable[[Path, ModelCard], Mapping[str, Path]]] = {
    "sam": _sam,
    "medsam": _sam,
    "sam2": lambda folder, _: small_sam2.write_checkpoint(folder, small_sam2.small_network(size=128)),
    "medsam2": _medsam2,
    "clip": lambda folder, _: small_image_text.write_clip(folder),
    "siglip": lambda folder, _: small_image_text.write_siglip(folder),
    "biomedclip": lambda folder, _: small_image_text.write_biomedclip(folder),
}


def card_of(card: ModelCard, files: Mapping[str, Path]) -> ModelCard:
    """A card with the lengths and hashes of these files, which are named as the card does or by their names alone."""
    found = {file: files.get(file.path) or files.get(file.name) for file in card.source.files}
    entries = tuple(
        replace(file, bytes=path.stat().st_size, sha256=hash_file(path)) for file, path in found.items() if path
    )
    return replace(card, source=replace(card.source, files=entries), unverified=())


def stored(card: ModelCard, files: Mapping[str, Path], folder: Path) -> tuple[ModelCard, Store]:
    """The card of these files, and a store that has them as if they had been downloaded."""
    card, store = card_of(card, files), Store(folder)
    for file in card.source.files:
        target = store.file_path(card, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files.get(file.path) or files[file.name], target)
    store.verify(card)
    return card, store


def stock(card: ModelCard, folder: Path) -> tuple[ModelCard, Store]:
    """A card whose files are those of a small checkpoint, and a store that has them."""
    made = folder / "made"
    made.mkdir(parents=True)
    return stored(replace(card, full_pickle=False), WRITERS[card.family](made, card), folder / "store")


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Have MedSAM2's adapter, whose file has no configuration beside it, build the small network."""
    patch.setattr(medsam2, "configuration", lambda: small_sam2.small_config(MEDSAM2_SIZE))
