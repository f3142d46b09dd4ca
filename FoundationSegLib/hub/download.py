"""Downloads of files: what is missing or damaged of a checkpoint, hashed as it comes, resumed where it ended."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..catalog.model_cards import ModelCard
from ..errors import CheckpointError
from ..folders import is_secure_url
from ..progress import Progress, ProgressReport
from .hugging_face import (
    BUSY,
    RemoteCheckpoint,
    RemoteFile,
    Retries,
    find_checkpoint,
    http_package,
    hub_client,
    hub_constants,
    in_background,
    online,
    redirects_in_circles,
    requested_wait_s,
    unreachable,
)
from .records import CHUNK, Digest, FileRecord, Hasher, digest_file, require_inside
from .store import INCOMING, Store, clear_left_behind, require_room, store_errors

_MAX_RESTARTS = 2
_JOINED_BYTES, _JOINED_S = 1 << 18, 0.02  # pieces of an answer that come within this time are one
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")

# Receives how many bytes of a file are there.
OnBytes = Callable[[int], None]


def fetch_files(store: Store, card: ModelCard, progress: Progress, retries: Retries | None = None) -> None:
    """Download what the store lacks of a checkpoint. The caller holds the store's lock for the model.

    Whole files are moved into the checkpoint one by one, and the record is written at the end. Partial files are kept
    when this fails, and the next call goes on from there.

    Raises:
        CheckpointError: it cannot be fetched, or is not what the card or the Hub says.
        Cancelled: the user stopped it.
    """
    retries = retries or Retries()
    with online(), store_errors(card):
        checkpoint = find_checkpoint(store, card, retries, progress)
        store.pin(card, {origin: repository.commit for origin, repository in checkpoint.repositories.items()})
        _Download(store, card, progress, retries).run(checkpoint)


def missing_bytes(incoming: Path, file: RemoteFile) -> int:
    """Bytes of a file that have still to come, beyond those of its partial file."""
    return max(0, file.digest.bytes - _partial_bytes(incoming, file))


def _partial_bytes(incoming: Path, file: RemoteFile) -> int:
    with contextlib.suppress(OSError):
        return (incoming / file.partial_name).stat().st_size
    return 0


@dataclass(slots=True)
class _Download:
    """One download: ``bytes_here`` of ``bytes_total`` are in whole files already."""

    store: Store
    card: ModelCard
    progress: Progress
    retries: Retries
    bytes_here: int = 0
    bytes_total: int = 0

    def run(self, checkpoint: RemoteCheckpoint) -> None:
        incoming = self.store.model_folder(self.card) / INCOMING
        incoming.mkdir(parents=True, exist_ok=True)
        require_inside(self.store.folder, incoming / "file")
        self.bytes_total = sum(file.digest.bytes for file in checkpoint.files)
        records = [self._record_of_present(file) for file in checkpoint.files]
        missing = [file for file, record in zip(checkpoint.files, records, strict=True) if record is None]
        self.bytes_here = self.bytes_total - sum(file.digest.bytes for file in missing)
        require_room(self.store.folder, sum(missing_bytes(incoming, file) for file in missing), self.card.id)
        records = [
            record or self._fetch(file, incoming) for file, record in zip(checkpoint.files, records, strict=True)
        ]
        self.store.write_record(self.card, records)
        shutil.rmtree(incoming, ignore_errors=True)
        for folder in (incoming.parent, self.store.all_of(self.card)):  # other writers would hold the lock
            clear_left_behind(folder, older_than_s=-1e9)
        self.progress.report(ProgressReport("download", self.bytes_total, self.bytes_total))

    def _record_of_present(self, file: RemoteFile) -> FileRecord | None:
        """Record of a file that is in the checkpoint and right; None if it has to be fetched."""
        path, expected = self.store.file_path(self.card, file.file), file.digest
        records = self.store.records(self.card) or {}
        if self.store.is_unchanged(self.card, file.file, records):
            record = records[file.file.path]
            if record.bytes == expected.bytes and expected.sha256 in ("", record.sha256):
                return record
        with contextlib.suppress(FileNotFoundError):
            if not path.is_symlink() and path.stat().st_size == expected.bytes:
                digest = digest_file(path, self.progress, git=not expected.sha256)
                return _record(file, path, digest) if expected.matches(digest) else None
        return None

    def _fetch(self, file: RemoteFile, incoming: Path) -> FileRecord:
        def report(done: int) -> None:
            self.progress.check()
            here, total = self.bytes_here + done, self.bytes_total
            self.progress.report(ProgressReport("download", here, total, file.file.name, done, file.digest.bytes))

        target, partial = self.store.file_path(self.card, file.file), incoming / file.partial_name
        require_inside(self.store.folder, target)
        report(0)
        arrived = incoming / f"{file.partial_name}.found"
        digest = None if _partial_bytes(incoming, file) else take_from_cache(file, arrived, self.progress)
        if digest is None:
            digest, arrived = download(file, partial, self.retries, self.progress, report), partial
        target.parent.mkdir(parents=True, exist_ok=True)
        arrived.replace(target)
        self.bytes_here += digest.bytes
        return _record(file, target, digest)


def _record(file: RemoteFile, path: Path, digest: Digest) -> FileRecord:
    status = path.stat()
    if status.st_size != digest.bytes:
        raise CheckpointError(f"{file.file.name} was changed by another program while it was downloaded; try again")
    return FileRecord(file.file.path, digest.bytes, digest.sha256, status.st_mtime_ns)


def take_from_cache(file: RemoteFile, target: Path, progress: Progress) -> Digest | None:
    """Bring a file in from the user's Hugging Face cache, which stays as it is, if it is there with the right hash.

    A hard link costs no room and no time. Where there can be none, the bytes are copied.

    Returns:
        Its digest; None if the cache has no such file. ``target`` is then not there.

    Raises:
        Cancelled: the user stopped it.
    """
    for source in _cached_paths(file) if file.is_on_hub else ():
        with contextlib.suppress(OSError):
            if source.is_file() and source.stat().st_size == file.digest.bytes:
                _link_or_copy(source, target, progress)
                digest = digest_file(target, progress, git=not file.digest.sha256)
                if file.digest.matches(digest):
                    return digest
        with contextlib.suppress(OSError):
            target.unlink()
    return None


def _cached_paths(file: RemoteFile) -> Iterator[Path]:
    """Candidates in the cache: by hash, from whatever commit it came, and by commit where files cannot be links."""
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(hub_constants().HF_HUB_CACHE) / repo_folder_name(repo_id=file.repository, repo_type="model")
    yield from (folder / "blobs" / name for name in (file.digest.sha256, file.digest.git_oid) if name)
    path = hub_client().try_to_load_from_cache(file.repository, file.file.path, folder.parent, file.commit)
    if isinstance(path, str):
        yield Path(path)


def _link_or_copy(source: Path, target: Path, progress: Progress) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with source.open("rb") as reading, target.open("xb") as writing:
            while chunk := reading.read(CHUNK):
                progress.check()
                writing.write(chunk)
        shutil.copymode(source, target)


class _StartAgain(Exception):
    """The bytes so far cannot be continued."""


class _Interrupted(Exception):
    """The connection ended early, or the server is busy; ``error`` and ``status`` say which."""

    def __init__(self, error: Exception | None = None, status: int = 0, requested_s: float = 0.0) -> None:
        super().__init__()
        self.error, self.status, self.requested_s = error, status, requested_s


@dataclass(slots=True)
class _PartialFile:
    """A partial file that is open, and the hashes of its bytes.

    ``is_mixed`` is true if its bytes come from more than one answer.
    """

    path: Path
    expected: Digest
    descriptor: int = field(init=False)
    hasher: Hasher = field(init=False)
    is_mixed: bool = False

    def __post_init__(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        self.descriptor = os.open(self.path, flags, 0o666)
        self.hasher = Hasher(None if self.expected.sha256 else self.expected.bytes)

    def close(self) -> None:
        """Close it; one to which nothing has come is removed."""
        is_empty = os.fstat(self.descriptor).st_size == 0
        os.close(self.descriptor)
        if is_empty and self.expected.bytes:
            self.path.unlink()

    @property
    def bytes(self) -> int:
        return self.hasher.bytes

    @property
    def is_right(self) -> bool:
        return self.expected.matches(self.hasher.digest())

    def resume(self, progress: Progress, report: OnBytes) -> None:
        """Hash the bytes of an earlier try, or drop them if they are more than the file has."""
        if os.fstat(self.descriptor).st_size > self.expected.bytes:
            self.clear()
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        while chunk := os.read(self.descriptor, CHUNK):
            progress.check()
            self.hasher.update(chunk)
            report(self.bytes)
        self.is_mixed = self.bytes > 0

    def clear(self) -> None:
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self.hasher = Hasher(None if self.expected.sha256 else self.expected.bytes)
        self.is_mixed = False

    def write(self, chunk: bytes) -> None:
        """Write all of it; only bytes that are in the file are hashed."""
        while chunk:
            count = os.write(self.descriptor, chunk)
            self.hasher.update(chunk[:count])
            chunk = chunk[count:]


def download(file: RemoteFile, path: Path, retries: Retries, progress: Progress, report: OnBytes) -> Digest:
    """Download a file into ``path``, going on from the bytes that are in it already.

    They are kept when this fails, unless they can no longer become the file.

    Raises:
        CheckpointError: the bytes cannot be had, or are not what they have to be.
        OSError: they cannot be written.
        Cancelled: the user stopped it.
    """
    with contextlib.closing(_PartialFile(path, file.digest)) as partial:
        partial.resume(progress, report)
        _complete(file, partial, retries, progress, report)
        if partial.is_mixed and not partial.is_right:
            partial.clear()  # one of the pieces is wrong, and there is no telling which
            _complete(file, partial, retries, progress, report)
        if partial.is_right:
            os.fsync(partial.descriptor)
            return partial.hasher.digest()
    path.unlink()
    raise CheckpointError(
        f"what was downloaded as {file.file.path} of {file.repository} has the wrong hash and was thrown away; "
        "a proxy or firewall may have changed it: try again, or another network"
    )


def _complete(file: RemoteFile, partial: _PartialFile, retries: Retries, progress: Progress, report: OnBytes) -> None:
    """Request the missing bytes until every one is there; only tries without a new byte count."""
    tries = restarts = 0
    while partial.bytes < file.digest.bytes:
        before = partial.bytes
        try:
            _request(file, partial, retries, progress, report)
        except _StartAgain:
            restarts += 1
            partial.clear()
            if restarts > _MAX_RESTARTS:
                raise _wrong_length(file) from None
        except _Interrupted as interrupted:
            tries = 1 if partial.bytes > before else tries + 1
            if tries >= retries.attempts:
                error = interrupted.error
                raise unreachable(file.repository, file.file.path, error, interrupted.status, file.host) from error
            retries.wait(tries, interrupted.requested_s, progress)


def _request(file: RemoteFile, partial: _PartialFile, retries: Retries, progress: Progress, report: OnBytes) -> None:
    """Make one request for all bytes that are missing.

    Raises:
        _Interrupted: another try may get more.
        _StartAgain: the bytes so far are of no use.
    """
    partial.is_mixed = partial.bytes > 0
    with contextlib.closing(_answer(file, partial.bytes, retries, progress)) as answer:
        _check_headers(next(answer), file, partial)
        for chunk in answer:
            if partial.bytes + len(chunk) > file.digest.bytes:
                raise _StartAgain
            partial.write(chunk)
            report(partial.bytes)
    if partial.bytes < file.digest.bytes:
        raise _Interrupted


def _answer(file: RemoteFile, start: int, retries: Retries, progress: Progress) -> Iterator[Any]:
    """Yield the headers of an answer, then its body as it comes; a silent server is cut off after ``silence_s``."""
    http = http_package()
    try:
        yield from in_background(lambda: _read(file, start, retries.silence_s), progress)
    except http.TooManyRedirects:
        raise redirects_in_circles(file.repository, file.file.path, file.host) from None
    except (OSError, http.HTTPError, http.InvalidURL, RuntimeError, ValueError) as error:
        raise _Interrupted(error) from None


@dataclass(frozen=True, slots=True)
class _Headers:
    """Headers of an answer, and those of the Hub or release before it redirected to storage; names in small letters."""

    status: int
    final: Mapping[str, str]
    hub: Mapping[str, str]


def _read(file: RemoteFile, start: int, timeout_s: float) -> Iterator[_Headers | bytes]:
    from huggingface_hub.utils import build_hf_headers, get_session

    from .. import __version__

    login = None if file.is_on_hub else False  # None is that of the user, which may be renewed here
    headers = build_hf_headers(token=login, library_name="foundationseg", library_version=__version__)
    headers["Accept-Encoding"] = "identity"  # a compressed answer has no ranges
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream("GET", file.url, headers=headers, timeout=timeout_s) as response:
        if not (file.is_on_hub or all(is_secure_url(str(r.url)) for r in (*response.history, response))):
            raise CheckpointError(f"{file.host} leads to an address without encryption, so nothing is downloaded there")
        first = response.history[0] if response.history else response
        yield _Headers(response.status_code, dict(response.headers), dict(first.headers))
        yield from _joined(response.iter_bytes())


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join pieces that come in quick succession: each is handed to another thread, hashed and written by itself.

    What has come is yielded before an error of the connection is raised.
    """
    body, since = bytearray(), 0.0
    try:
        for piece in pieces:
            body += piece
            if len(body) >= _JOINED_BYTES or time.monotonic() - since > _JOINED_S:
                yield bytes(body)
                body, since = bytearray(), time.monotonic()
    except Exception:
        if body:
            yield bytes(body)
        raise
    if body:
        yield bytes(body)


def _check_headers(headers: _Headers, file: RemoteFile, partial: _PartialFile) -> None:
    """Make sure that the body of an answer comes next in the file, or is all of it."""
    if headers.status in BUSY:
        raise _Interrupted(status=headers.status, requested_s=requested_wait_s(headers.final))
    if headers.status == 416:
        raise _StartAgain
    if headers.status not in (200, 206):
        if "location" in headers.hub:  # addresses of the Hub's storage expire; the next try gets a new one
            raise _Interrupted(status=headers.status)
        raise file.refusal(headers.status, headers.final.get("x-error-code", ""))
    # The Hub names commit and hash in its own answer, before it redirects to its storage.
    commit = headers.hub.get("x-repo-commit", file.commit)
    etag = (headers.hub.get("x-linked-etag") or headers.hub.get("etag") or "").removeprefix("W/").strip('"')
    expected = file.digest.sha256 if len(etag) == 64 else file.digest.git_oid
    if file.is_on_hub and (commit != file.commit or (_HASH.fullmatch(etag) and expected and etag != expected)):
        raise _StartAgain
    is_encoded = headers.final.get("content-encoding", "identity") != "identity"
    if headers.status == 200:
        if partial.bytes:
            partial.clear()  # the server knows no ranges: this is the whole file
        length = headers.final.get("content-length", "")
        if length and not is_encoded and length != str(file.digest.bytes):
            raise _wrong_length(file)
        return
    span = _RANGE.fullmatch(headers.final.get("content-range", ""))
    if is_encoded or span is None or int(span[1]) != partial.bytes or span[3] not in ("*", str(file.digest.bytes)):
        raise _StartAgain


def _wrong_length(file: RemoteFile) -> CheckpointError:
    return CheckpointError(
        f"the answer for {file.file.path} of {file.repository} is not the {file.digest.bytes} bytes it should be; "
        "the file has changed, or a proxy or firewall has answered: try again, or another network"
    )
