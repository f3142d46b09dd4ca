"""Whether this version can run a card's model. Found out by looking at the files: importing an adapter loads torch."""

import re
from pathlib import Path

from .card_values import ModelCard
from .errors import CardError

_LOAD = re.compile(r"^def load\(", re.MULTILINE)  # what every adapter offers, and no other file beside them


def adapter_folder() -> Path:
    """The folder of the adapters, one file per family."""
    return Path(__file__).resolve().parents[1] / "models"


def has_adapter(card: ModelCard) -> bool:
    """True where there is an adapter for the card's family."""
    path = adapter_folder() / f"{card.family.replace('-', '_')}.py"
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
