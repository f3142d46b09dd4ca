"""The module that adapts a card's family, found by looking at the files: importing an adapter loads torch."""

import re
from pathlib import Path

from .card_values import ModelCard
from .errors import CardError

_FOLDERS = {"segment": "segmentation", "classify": "classification"}  # below models/, by a card's task
_LOAD = re.compile(r"^def load\(", re.MULTILINE)  # what every adapter offers, and no other file beside them


def adapter_name(card: ModelCard) -> str:
    """The adapter's module below the package ``models``, for example ``segmentation.lite_medsam``."""
    return f"{_FOLDERS[card.task]}.{card.family.replace('-', '_')}"


def adapter_folder() -> Path:
    """The folder of the package ``models``, which has a folder for each task, with one file per family."""
    return Path(__file__).resolve().parents[1] / "models"


def has_adapter(card: ModelCard) -> bool:
    """True where there is an adapter for the card's family."""
    path = adapter_folder().joinpath(*adapter_name(card).split(".")).with_suffix(".py")
    try:
        return bool(_LOAD.search(path.read_text(encoding="utf-8")))
    except OSError:
        return False


def require_adapter(card: ModelCard) -> None:
    """Make sure that a model can be run, before anything is downloaded for it.

    Raises:
        CardError: this version has no adapter for its family.
    """
    if not has_adapter(card):
        remedy = "'models list' shows those that it can run"
        raise CardError(f"{card.id}: this version cannot run it: there is no adapter for {card.family!r}; {remedy}")
