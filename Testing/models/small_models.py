"""For each family a small checkpoint with random weights in the true layout, in a store that calls it ready."""

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


def _sam2(folder: Path, card: ModelCard) -> Mapping[str, Path]:
    return small_sam2.write_checkpoint(folder, small_sam2.small_network(size=128))


def _medsam2(folder: Path, card: ModelCard) -> Mapping[str, Path]:
    name = card.source.files[0].name
    write_medsam2(folder / name, small_sam2.small_network(size=MEDSAM2_SIZE))
    return {name: folder / name}


def _clip(folder: Path, card: ModelCard) -> Mapping[str, Path]:
    return small_image_text.write_clip(folder)


def _siglip(folder: Path, card: ModelCard) -> Mapping[str, Path]:
    return small_image_text.write_siglip(folder)


def _biomedclip(folder: Path, card: ModelCard) -> Mapping[str, Path]:
    return small_image_text.write_biomedclip(folder)


WRITERS: Mapping[str, Callable[[Path, ModelCard], Mapping[str, Path]]] = {
    "sam": _sam,
    "medsam": _sam,
    "sam2": _sam2,
    "medsam2": _medsam2,
    "clip": _clip,
    "siglip": _siglip,
    "biomedclip": _biomedclip,
}


def stock(card: ModelCard, folder: Path) -> tuple[ModelCard, Store]:
    """A card whose files are those of a small checkpoint, and a store that has them."""
    made = folder / "made"
    made.mkdir(parents=True)
    files = WRITERS[card.family](made, card)
    wanted = tuple(
        replace(file, bytes=files[file.name].stat().st_size, sha256=hash_file(files[file.name]))
        for file in card.source.files
        if file.name in files
    )
    small = replace(card, source=replace(card.source, files=wanted), unverified=(), full_pickle=False)
    store = Store(folder / "store")
    for file in wanted:
        path = store.file_path(small, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        files[file.name].rename(path)
    store.verify(small)
    return small, store


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Have MedSAM2's adapter, whose file has no configuration beside it, build the small network."""
    patch.setattr(medsam2, "configuration", lambda: small_sam2.small_config(MEDSAM2_SIZE))
