"""One file from the Hub: in ranges, hashed as it comes, and from where an earlier try ended."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import CheckpointError
from ..core.progress import Progress
from .digests import Digest, Hasher
from .online import Patience, asked_wait_s, headers, http_package, in_background, is_busy, timeout_s
from .refusals import refusal, unreachable
from .remote import RemoteFile
from .stream import CHUNK, Head, Stream, StreamFailed

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")

# Told how many of the file's bytes are there.
Meter = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch: where it is, and what it has to be.

    ``remote`` has one of the two hashes at least; its sha256 is also the card's, where that has one.
    """

    repository: str
    path: str
    commit: str
    remote: RemoteFile
    url: str

    @property
    def partial_name(self) -> str:
        """The name that it grows under, the same in every process and for these bytes alone."""
        return f"{self.remote.sha256 or self.remote.git_oid}.partial"

    def is_met_by(self, digest: Digest) -> bool:
        """True for the file's bytes."""
        if self.remote.sha256:
            return (digest.bytes, digest.sha256) == (self.remote.bytes, self.remote.sha256)
        return (digest.bytes, digest.git_oid) == (self.remote.bytes, self.remote.git_oid)


class _StartAgain(Exception):
    """What is there cannot be continued."""


class _Broken(Exception):
    """The connection ended early, or the server is busy; ``cause`` and ``status`` say which."""

    def __init__(self, cause: Exception | None = None, status: int = 0, asked_s: float = 0.0) -> None:
        super().__init__()
        self.cause, self.status, self.asked_s = cause, status, asked_s


@dataclass(slots=True)
class _Growing:
    """A half file that is open, and the hashes of what is in it.

    ``is_patchwork`` is true where it was not all one answer.
    """

    descriptor: int
    remote: RemoteFile
    hasher: Hasher = field(init=False)
    is_patchwork: bool = False

    def __post_init__(self) -> None:
        self.hasher = self._fresh()

    def _fresh(self) -> Hasher:
        return Hasher(None if self.remote.sha256 else self.remote.bytes)

    @property
    def bytes(self) -> int:
        return self.hasher.bytes

    def take_up(self, progress: Progress, meter: Meter) -> None:
        """Hash what an earlier try left. More than the file can have is not the file."""
        if os.fstat(self.descriptor).st_size > self.remote.bytes:
            self.clear()
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        while chunk := os.read(self.descriptor, CHUNK):
            progress.check()
            self.hasher.update(chunk)
            meter(self.bytes)
        self.is_patchwork = self.bytes > 0

    def clear(self) -> None:
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self.hasher = self._fresh()
        self.is_patchwork = False

    def write(self, chunk: bytes) -> None:
        """Write it whole, hash it then: what was hashed is what is on the disk."""
        view = memoryview(chunk)
        while view:
            count = os.write(self.descriptor, view)
            self.hasher.update(bytes(view[:count]) if count < len(chunk) else chunk)
            view = view[count:]


def download(wanted: Wanted, partial: Path, patience: Patience, progress: Progress, meter: Meter) -> Digest:
    """Fetch a file's bytes into ``partial``, going on from what is in it already.

    What has arrived is kept when this fails, unless it can no longer become the file.

    Raises:
        CheckpointError: the bytes cannot be had, or are not what they have to be.
        OSError: they cannot be written.
        Cancelled: the user stopped it.
    """
    with _open(partial, wanted.remote) as growing:
        growing.take_up(progress, meter)
        _complete(wanted, growing, patience, progress, meter)
        if growing.is_patchwork and not wanted.is_met_by(growing.hasher.digest()):
            growing.clear()  # one of the pieces was wrong, and nobody knows which
            _complete(wanted, growing, patience, progress, meter)
        digest = growing.hasher.digest()
        if wanted.is_met_by(digest):
            os.fsync(growing.descriptor)
    if not wanted.is_met_by(digest):
        partial.unlink()
        raise CheckpointError(
            f"what was downloaded as {wanted.path} of {wanted.repository} has the wrong hash and was thrown away; "
            "a proxy or firewall may have changed it: try again, or another network"
        )
    return digest


@contextlib.contextmanager
def _open(partial: Path, remote: RemoteFile) -> Iterator[_Growing]:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(partial, flags, 0o666)
    try:
        yield _Growing(descriptor, remote)
    finally:
        os.close(descriptor)


def _complete(wanted: Wanted, growing: _Growing, patience: Patience, progress: Progress, meter: Meter) -> None:
    """Ask until every byte is there; only tries without a new byte count."""
    tries = restarts = 0
    while growing.bytes < wanted.remote.bytes:
        before = growing.bytes
        try:
            _ask(wanted, growing, patience, progress, meter)
        except _StartAgain:
            restarts += 1
            growing.clear()
            if restarts > 2:
                raise _wrong_length(wanted) from None
        except _Broken as broken:
            tries = 1 if growing.bytes > before else tries + 1
            if tries >= patience.attempts:
                raise unreachable(wanted.repository, wanted.path, broken.cause, broken.status) from broken.cause
            patience.wait(tries, broken.asked_s, progress)


def _ask(wanted: Wanted, growing: _Growing, patience: Patience, progress: Progress, meter: Meter) -> None:
    """One request for all that is missing.

    Raises:
        _Broken: another try may get more.
        _StartAgain: what is there is of no use.
    """
    login = in_background(headers, progress)  # a login that has run out is renewed over the network
    asked = {**login, "Accept-Encoding": "identity"}  # a compressed answer has no ranges
    growing.is_patchwork = growing.bytes > 0
    if growing.bytes:
        asked["Range"] = f"bytes={growing.bytes}-"
    try:
        with Stream.open(wanted.url, asked, timeout_s(patience)) as stream:
            _judge(stream.head(progress), wanted, growing)
            for chunk in stream.chunks(progress):
                if growing.bytes + len(chunk) > wanted.remote.bytes:
                    raise _StartAgain
                growing.write(chunk)
                meter(growing.bytes)
    except StreamFailed as failed:
        if isinstance(failed.error, http_package().TooManyRedirects):
            raise CheckpointError(
                f"{wanted.path} of {wanted.repository} cannot be downloaded: the Hub redirects in circles"
            ) from None
        raise _Broken(failed.error) from None
    if growing.bytes < wanted.remote.bytes:
        raise _Broken


def _judge(head: Head, wanted: Wanted, growing: _Growing) -> None:
    """Whether an answer's body is what comes next in the file."""
    if is_busy(head.status):
        raise _Broken(status=head.status, asked_s=asked_wait_s(head.headers))
    if head.status == 416:
        raise _StartAgain
    if head.status not in (200, 206):
        if "location" in head.hub_headers:  # the Hub's storage, whose addresses expire; the next try gets a new one
            raise _Broken(status=head.status)
        raise refusal(head.status, head.headers.get("x-error-code", ""), wanted.repository, wanted.path)
    _require_same_bytes(head, wanted)
    is_encoded = head.headers.get("content-encoding", "identity") != "identity"
    if head.status == 200:
        if growing.bytes:
            growing.clear()  # the server knows no ranges: this is the whole file
        told = head.headers.get("content-length", "")
        if told and not is_encoded and told != str(wanted.remote.bytes):
            raise _wrong_length(wanted)
        return
    span = _RANGE.fullmatch(head.headers.get("content-range", ""))
    if is_encoded or span is None or int(span[1]) != growing.bytes or span[3] not in ("*", str(wanted.remote.bytes)):
        raise _StartAgain


def _require_same_bytes(head: Head, wanted: Wanted) -> None:
    """The Hub names the commit and the file's hash in its own answer, before it sends on to its storage."""
    told = head.hub_headers
    commit = told.get("x-repo-commit", wanted.commit)
    etag = (told.get("x-linked-etag") or told.get("etag") or "").removeprefix("W/").strip('"')
    expected = wanted.remote.sha256 if len(etag) == 64 else wanted.remote.git_oid
    if commit != wanted.commit or (_HASH.fullmatch(etag) and expected and etag != expected):
        raise _StartAgain


def _wrong_length(wanted: Wanted) -> CheckpointError:
    return CheckpointError(
        f"the answer for {wanted.path} of {wanted.repository} is not the {wanted.remote.bytes} bytes it should be; "
        "the file has changed, or a proxy or firewall has answered: try again, or another network"
    )
