"""For each family a small checkpoint with random weights in the true layout, in a store that calls it ready."""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from FoundationSegLib.catalog.catalogue import card_folder, read_catalogue
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.engine.engine import load_model
from FoundationSegLib.hub.records import digest_file
from FoundationSegLib.hub.store import Store

MEDSAM2_SIZE = 128
CATALOGUE = read_catalogue(card_folder())
# The packages without which a family cannot be made, where only some have them.
NEEDED = {"nninteractive": "nnInteractive", "vista3d": "monai", "voxtell": "voxtell"}


def _sam(folder: Path) -> Mapping[str, Path]:
    from Testing.models import small_sam

    return small_sam.write_checkpoint(folder, small_sam.small_config(256))


def _mobile_sam(folder: Path) -> Mapping[str, Path]:
    from Testing.models import small_sam

    return small_sam.write_mobile_sam(folder)


def _sam2(folder: Path) -> Mapping[str, Path]:
    from Testing.models import small_sam2

    return small_sam2.write_checkpoint(folder, small_sam2.small_network(size=128))


def _edgetam(folder: Path) -> Mapping[str, Path]:
    from Testing.models import small_sam2

    return small_sam2.write_checkpoint(folder, small_sam2.small_edgetam(size=128))


def _medsam2(folder: Path) -> Mapping[str, Path]:
    from Testing.models import small_sam2

    return small_sam2.write_medsam2(folder / "MedSAM2_latest.pt", small_sam2.small_network(size=MEDSAM2_SIZE))


def _image_text(folder: Path, family: str) -> Mapping[str, Path]:
    from Testing.models import small_image_text

    return getattr(small_image_text, f"write_{family}")(folder)


def _colipri(folder: Path) -> Mapping[str, Path]:
    from Testing.models import small_volume_text

    return small_volume_text.write_colipri(folder)


def _merlin(folder: Path) -> Mapping[str, Path]:
    from Testing.models import small_volume_text

    return small_volume_text.write_merlin(folder)


def _specialist(folder: Path, family: str) -> Mapping[str, Path]:
    from Testing.models import small_specialists

    return getattr(small_specialists, f"write_{family}")(folder)


def _nninteractive(folder: Path) -> Mapping[str, Path]:
    from Testing.models import small_nninteractive

    return small_nninteractive.write_checkpoint(folder, patch=16)


def _vista3d(folder: Path) -> Mapping[str, Path]:
    from Testing.models import small_vista3d

    return small_vista3d.write_checkpoint(folder)


def _voxtell(folder: Path) -> Mapping[str, Path]:
    from Testing.models import small_voxtell

    return small_voxtell.write_checkpoint(folder)


# For each family: writes its files into a folder, and returns them by the paths of the card or by their names.
WRITERS: Mapping[str, Callable[[Path], Mapping[str, Path]]] = {
    "sam": _sam,
    "medsam": _sam,
    "mobile-sam": _mobile_sam,
    "sam2": _sam2,
    "medsam2": _medsam2,
    "edgetam": _edgetam,
    "clip": partial(_image_text, family="clip"),
    "siglip": partial(_image_text, family="siglip"),
    "biomedclip": partial(_image_text, family="biomedclip"),
    "colipri": _colipri,
    "merlin": _merlin,
    "torchxrayvision": partial(_specialist, family="torchxrayvision"),
    "flair": partial(_specialist, family="flair"),
    "nninteractive": _nninteractive,
    "vista3d": _vista3d,
    "voxtell": _voxtell,
}
LIGHTEST = {
    family: min((card for card in CATALOGUE.values() if card.family == family), key=lambda card: card.source.bytes)
    for family in WRITERS
    if family not in NEEDED or find_spec(NEEDED[family])
}


def load_small(card: ModelCard, files: Mapping[str, Path], device: str) -> Any:
    """Load a small checkpoint; some networks have sizes that no file of theirs names."""
    if card.family == "medsam2":
        from FoundationSegLib.models.segmentation import medsam2
        from Testing.models import small_sam2

        return medsam2.load(card, files, device, small_sam2.small_config(MEDSAM2_SIZE))
    if card.family == "mobile-sam":
        from FoundationSegLib.models.segmentation import mobile_sam

        return mobile_sam.load(card, files, device, size=256)
    if card.family == "biomedclip":
        from FoundationSegLib.models.classification import biomedclip
        from Testing.models import small_image_text

        return biomedclip.load(card, files, device, small_image_text.SMALL_TRUNK)
    if card.family == "colipri":
        from FoundationSegLib.models.classification import colipri
        from Testing.models import small_volume_text

        return colipri.load(card, files, device, small_volume_text.COLIPRI_SIZE)
    if card.family == "merlin":
        from FoundationSegLib.models.classification import merlin
        from Testing.models import small_volume_text

        return merlin.load(card, files, device, small_volume_text.MERLIN_SIZE)
    if card.family == "torchxrayvision":
        from FoundationSegLib.models.classification import torchxrayvision
        from Testing.models import small_specialists

        return torchxrayvision.load(card, files, device, small_specialists.XRV_BLOCKS)
    if card.family == "flair":
        from FoundationSegLib.models.classification import flair
        from Testing.models import small_specialists

        return flair.load(card, files, device, small_specialists.FLAIR_SIZE, small_specialists.small_resnet)
    if card.family == "voxtell":
        from Testing.models import small_voxtell

        with small_voxtell.small():
            return load_model(card, files, device)
    model = load_model(card, files, device)
    if card.family == "nninteractive":
        return replace(model, autozoom=False)  # random weights reach the border of any surrounding
    return replace(model, patch=(32, 32, 32)) if card.family == "vista3d" else model


def card_of(card: ModelCard, files: Mapping[str, Path]) -> ModelCard:
    """A card with the lengths and hashes of these files, which are named as the card does or by their names alone."""
    paths = {file: files.get(file.path) or files.get(file.name) for file in card.source.files}
    entries = tuple(
        replace(file, bytes=path.stat().st_size, sha256=digest_file(path).sha256)
        for file, path in paths.items()
        if path
    )
    return replace(card, source=replace(card.source, files=entries), unverified=(), full_pickle=False)


def stock(card: ModelCard, folder: Path) -> tuple[ModelCard, Store]:
    """A card whose files are those of a small checkpoint, and a store that has them as if they had been downloaded."""
    made = folder / "made"
    made.mkdir(parents=True)
    files = WRITERS[card.family](made)
    card, store = card_of(card, files), Store(folder / "store")
    for file in card.source.files:
        target = store.file_path(card, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files.get(file.path) or files[file.name], target)
    store.verify(card)
    return card, store


def card_in(store: Store, model_id: str) -> ModelCard:
    """The card of a small checkpoint that lies in a store."""
    card = CATALOGUE[model_id]
    paths = {file.path: store.file_path(card, file) for file in card.source.files}
    return card_of(card, {name: path for name, path in paths.items() if path.exists()})


def write_card(card: ModelCard, folder: Path) -> None:
    """The user's own card that takes the place of one that comes along, for the small files of :func:`stock`."""
    text = (card_folder() / f"{card.id}.toml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^bytes = .*", 'bytes = "unknown"', text).replace("full_pickle = true\n", "")
    (folder / f"{card.id}.toml").write_text(f'replaces = "{card.id}"\n{text}', encoding="utf-8")
