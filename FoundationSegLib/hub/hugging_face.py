"""Hugging Face Hub and releases: when the network may be used, and commit, lengths and hashes of checkpoints' files.

No text that a server sent is repeated in an error: it may hold secrets.
"""

import contextlib
import os
import queue
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..catalog.model_cards import CheckpointFile, ModelCard
from ..errors import CheckpointError
from ..folders import is_safe_path
from ..progress import Progress
from .records import COMMIT, SHA256, Digest, FileRecord, safe_path
from .store import Store, known_bytes

ALLOW_VARIABLE = "FOUNDATIONSEG_ALLOW_DOWNLOAD"
HUB = "the Hub"  # in messages
IMPORT_REMEDY = "bring the files with 'foundationseg models import'"
# Errors that HTTP clients raise for senseless answers (found by fuzzing).
BAD_ANSWER = (TypeError, ValueError, AttributeError, LookupError, RuntimeError)
# Status of a server that may give a better answer a little later.
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_POLL_S = 0.05  # a cancel takes effect within this time, whatever the network does
_AHEAD = 16  # pieces of an answer, of about 256 KiB each, that are read before they are used
_URL = re.compile(r"\S*://\S*")
_NO_LENGTH = Digest(-1)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Retries:
    """Limits of waiting for a server.

    Attributes:
        attempts: tries in a row without a single new byte.
        first_wait_s: before the second try; doubled with every further one.
        longest_wait_s: before any try, whatever the server requests.
        timeout_s: how long a server may be silent; None is the setting of the Hub's client (10 s by default).
    """

    attempts: int = 6
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    timeout_s: float | None = None

    def wait(self, tries: int, requested_s: float, progress: Progress) -> None:
        """Wait before the next try.

        Args:
            tries: how many were made in a row.
            requested_s: the wait that the server requested; 0 without one.
            progress: cancels the wait.

        Raises:
            Cancelled: the user stopped it.
        """
        # Clients that were cut off at once should not come back at once.
        usual_s = self.first_wait_s * 2 ** (tries - 1) * random.uniform(0.8, 1.2)
        until = time.monotonic() + min(max(usual_s, requested_s), self.longest_wait_s)
        while (left := until - time.monotonic()) > 0:
            progress.check()
            time.sleep(min(_POLL_S, left))

    @property
    def silence_s(self) -> float:
        """Time in seconds that a server may be silent."""
        return float(hub_constants().HF_HUB_DOWNLOAD_TIMEOUT) if self.timeout_s is None else self.timeout_s


def requested_wait_s(headers: Mapping[str, str]) -> float:
    """Wait that a server requests in ``Retry-After``, in seconds; 0 unless it is given in seconds."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0


@contextlib.contextmanager
def online() -> Iterator[None]:
    """Let the Hub's client use the network for as long as a download takes.

    The user's own offline mode is honoured at once. The worker is started in offline mode so that nothing is looked
    up behind the user's back, with :data:`ALLOW_VARIABLE` set unless the user has chosen that mode. The client reads
    its own constants before every request, so those are what changes here, and changes back. With its telemetry on,
    it would also ask the Hub for a list of programs to name in its requests, and name them.

    Raises:
        CheckpointError: the user wants no network, or there is no client.
    """
    constants = hub_constants()
    before = constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY
    if before[0] and os.environ.get(ALLOW_VARIABLE, "").upper() not in ("1", "ON", "YES", "TRUE"):
        raise offline_mode()
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY = False, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY = before


def offline_mode() -> CheckpointError:
    """Error for a download while the user's own offline mode is on."""
    remedy = f"unset it, or {IMPORT_REMEDY}"
    return CheckpointError(f"offline mode is on (HF_HUB_OFFLINE), so nothing is downloaded; {remedy}")


def hub_client() -> Any:
    """Import the package ``huggingface_hub``.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        import huggingface_hub.constants
    except ImportError as error:
        raise CheckpointError("the Hugging Face Hub's client is not installed; install huggingface_hub") from error
    return huggingface_hub


def hub_constants() -> Any:
    """Settings of the Hub's client: endpoint, cache folder, offline mode, timeouts.

    Raises:
        CheckpointError: the client is not installed.
    """
    return hub_client().constants


def http_package() -> Any:
    """HTTP package that the Hub's client is built on: httpx in its first version, httpx2 in its second."""
    from huggingface_hub.errors import HfHubHTTPError

    base = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    return sys.modules[base.__module__.partition(".")[0]]


def in_background(produce: Callable[[], Iterable[_T]], progress: Progress) -> Iterator[_T]:
    """Yield the items that a network request produces, without ever waiting for it when the user cancels.

    The request runs in a thread of its own, a few items ahead. Close this iterator to abandon it: the thread ends
    with the next item that it gets.

    Raises:
        Cancelled: the user stopped it.
        CheckpointError: the request ended in an unforeseen way; its usual errors are raised as they are.
    """
    progress.check()  # a request that is cancelled already is not sent
    items: queue.Queue[Any] = queue.Queue(_AHEAD)
    is_abandoned = threading.Event()
    threading.Thread(target=_produce, args=(produce, items, is_abandoned), daemon=True).start()
    try:
        while True:
            progress.check()
            try:
                item, error = items.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        is_abandoned.set()
        with contextlib.suppress(queue.Empty):  # the thread may wait for room
            while True:
                items.get_nowait()


def _produce(produce: Callable[[], Iterable[Any]], items: "queue.Queue[Any]", is_abandoned: threading.Event) -> None:
    """Put pairs of an item and None into the queue, and at last None and the error or end."""
    ending: Exception = CheckpointError("the Hub's client failed in a way that was not foreseen; try again")
    http = http_package()
    try:
        for item in produce():
            items.put((item, None))
            if is_abandoned.is_set():
                return
        ending = StopIteration()
    except (OSError, http.HTTPError, http.InvalidURL, CheckpointError, *BAD_ANSWER) as error:
        ending = error
    finally:
        items.put((None, ending))


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A repository at one commit.

    Attributes:
        name: its owner and name.
        commit: 40 hexadecimal digits.
        files: expected digests by path.
        gated: True if the Hub asks for its terms to be accepted.
        license: tag of the Hub; empty if it has none.
    """

    name: str
    commit: str
    files: Mapping[str, Digest]
    gated: bool = False
    license: str = ""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A card's file on the Hub or of a release, and the digest it has to have: its length, and one hash at least.

    The sha256 of the digest is also that of the card, if the card has one. A release has no ``commit``.
    """

    file: CheckpointFile
    repository: str
    commit: str
    url: str
    digest: Digest

    @property
    def partial_name(self) -> str:
        """Name of the partial file, the same in every process and for these bytes alone."""
        return f"{self.digest.sha256 or self.digest.git_oid}.partial"

    @property
    def is_on_hub(self) -> bool:
        """False for a file of a release, whose server is sent no login."""
        return bool(self.commit)

    @property
    def host(self) -> str:
        """The server, for messages."""
        return HUB if self.is_on_hub else urlsplit(self.url).hostname or ""

    def refusal(self, status: int, code: str) -> CheckpointError:
        """Error for an answer that no further try will better; ``code`` is the Hub's."""
        if self.is_on_hub:
            return refusal(status, code, self.repository, self.file.path)
        remedy = f"see https://{self.host}/{self.repository}, or {IMPORT_REMEDY}"
        return CheckpointError(f"{self.host} answered with error {status} for {self.file.path}; {remedy}")


@dataclass(frozen=True, slots=True)
class RemoteCheckpoint:
    """A card's checkpoint on the Hub or of a release.

    Attributes:
        repositories: of the Hub, by repository and revision, as the card names them.
        files: every file of the card, in its order.
    """

    repositories: Mapping[tuple[str, str], HubRepository]
    files: tuple[RemoteFile, ...]


def find_checkpoint(store: Store, card: ModelCard, retries: Retries, progress: Progress) -> RemoteCheckpoint:
    """Ask the Hub for a card's files, at the commits that the store knows the card's revisions by.

    Of a release the card says everything, and nobody is asked.

    Raises:
        CheckpointError: the Hub cannot be asked, lacks a file, or has another one than the card says.
        Cancelled: the user stopped it.
    """
    if card.source.kind == "release":
        files = [
            RemoteFile(file, card.source.repository, "", file.url, Digest(file.bytes or 0, file.sha256))
            for file in card.source.files
        ]
        return RemoteCheckpoint({}, tuple(files))
    repositories: dict[tuple[str, str], HubRepository] = {}
    for origin in card.source.origins:
        name, revision = origin
        paths = {file.path for file in card.source.files if card.source.origin(file) == origin}
        commit = store.commit(card, name, revision)
        repositories[origin] = _find_repository(name, commit or revision, paths, retries, progress)
        if commit and repositories[origin].commit != commit:
            raise CheckpointError(f"the Hub answers for {name} with another commit than {commit[:12]}; try again later")
    records = store.makers_records(card)
    files = [_find_file(card, file, repositories[card.source.origin(file)], records) for file in card.source.files]
    return RemoteCheckpoint(repositories, tuple(files))


def _find_file(
    card: ModelCard, file: CheckpointFile, repository: HubRepository, records: Mapping[str, FileRecord]
) -> RemoteFile:
    path = safe_path(file.path)
    if path not in repository.files:
        raise CheckpointError(f"{path} of {card.id} is not in {repository.name} at {repository.commit[:12]}")
    digest = _agreed_digest(card, file, repository.files[path], records.get(file.path))
    url = hub_client().hf_hub_url(repository.name, path, revision=repository.commit)
    return RemoteFile(file, repository.name, repository.commit, url, digest)


def _agreed_digest(card: ModelCard, file: CheckpointFile, remote: Digest, record: FileRecord | None) -> Digest:
    """Digest that a file has to have, after making sure that card, Hub and an earlier download agree on it."""
    name = f"{file.path} of {card.id}"
    remedy = "it was changed there, so it is not downloaded: update FoundationSeg, or correct the card"
    if known_bytes(card, file) not in (None, remote.bytes):
        raise CheckpointError(
            f"{name} has {remote.bytes} bytes on the Hub and not {file.bytes}, as its card says; {remedy}"
        )
    if file.sha256 and remote.sha256 not in ("", file.sha256):
        raise CheckpointError(f"{name} has another hash on the Hub than its card says; {remedy}")
    sha256 = file.sha256 or (record.sha256 if record else "")
    if sha256 and not SHA256.fullmatch(sha256):
        raise CheckpointError(f"the card's hash of {name} is none; it needs 64 hexadecimal digits")
    if not (sha256 or remote.sha256 or remote.git_oid):
        raise CheckpointError(f"neither the Hub nor the card says what the hash of {name} is, so it is not downloaded")
    if record and not file.sha256 and (record.bytes != remote.bytes or remote.sha256 not in ("", record.sha256)):
        raise CheckpointError(
            f"{name} is not what the Hub had when it was first downloaded; if you trust the new one, "
            f"run 'foundationseg models remove {card.id}' and download again"
        )
    return replace(remote, sha256=sha256 or remote.sha256)


def _find_repository(name: str, revision: str, paths: set[str], retries: Retries, progress: Progress) -> HubRepository:
    """Repository at the commit that a revision stands for now, with those of its files that ``paths`` names."""
    client = hub_client()

    def ask() -> HubRepository:
        model = client.HfApi().model_info(name, revision=revision, files_metadata=True, timeout=retries.silence_s)
        return _parse_repository(name, model, paths)

    def ask_for(path: str) -> Digest:
        url = client.hf_hub_url(name, path, revision=repository.commit)
        metadata = client.get_hf_file_metadata(url, timeout=retries.silence_s)
        if metadata.commit_hash not in (None, repository.commit):
            raise CheckpointError(f"the Hub's answer for {path} of {name} is of another commit than asked for")
        etag = metadata.etag or ""
        hashes = (etag if pattern.fullmatch(etag) else "" for pattern in (SHA256, COMMIT))
        return _checked_digest(metadata.size, *hashes)

    repository = _ask_patiently(ask, name, f"revision {revision[:12]}", retries, progress)
    files = {
        # Some mirrors leave the lengths out of the list, and give them file by file.
        path: _ask_patiently(lambda path=path: ask_for(path), name, path, retries, progress)
        if digest == _NO_LENGTH
        else digest
        for path, digest in repository.files.items()
    }
    return replace(repository, files=files)


def _parse_repository(name: str, model: Any, paths: set[str]) -> HubRepository:
    if not isinstance(model.sha, str) or not COMMIT.fullmatch(model.sha):
        raise CheckpointError(f"the Hub's answer for {name} names no commit; a proxy or firewall may have answered")
    files = {
        sibling.rfilename: _parse_digest(sibling)
        for sibling in model.siblings or ()
        if sibling.rfilename in paths and is_safe_path(sibling.rfilename)
    }
    tag = (model.card_data or {}).get("license") if hasattr(model.card_data, "get") else None
    return HubRepository(name, model.sha, files, bool(model.gated), tag if isinstance(tag, str) else "")


def _parse_digest(sibling: Any) -> Digest:
    if sibling.lfs is not None:
        return _checked_digest(sibling.lfs.size, str(sibling.lfs.sha256), "")
    if sibling.size is None:
        return _NO_LENGTH
    return _checked_digest(sibling.size, "", str(sibling.blob_id or ""))


def _checked_digest(length: Any, sha256: str, git_oid: str) -> Digest:
    if type(length) is not int or length < 0:
        raise ValueError("a length")
    if (sha256 and not SHA256.fullmatch(sha256)) or (git_oid and not COMMIT.fullmatch(git_oid)):
        raise ValueError("a hash")
    return Digest(length, sha256, git_oid)


def _ask_patiently(ask: Callable[[], _T], name: str, subject: str, retries: Retries, progress: Progress) -> _T:
    """Answer to a question, asked again while the Hub is busy or cannot be reached."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    http = http_package()
    for tries in range(1, retries.attempts + 1):
        requested_s = 0.0
        try:
            return next(in_background(lambda: iter([ask()]), progress))
        except HFValidationError:
            raise CheckpointError(f"{name!r} is not a name that a repository on the Hub can have") from None
        except HfHubHTTPError as error:
            status, headers = error.response.status_code, error.response.headers
            if status not in BUSY:
                raise refusal(status, headers.get("X-Error-Code", ""), name, subject) from None
            failure, requested_s = unreachable(name, subject, None, status), requested_wait_s(headers)
        except http.TooManyRedirects:
            raise redirects_in_circles(name, subject) from None
        except http.HTTPError as error:
            failure = unreachable(name, subject, error)
        except (OSError, http.InvalidURL, *BAD_ANSWER):
            raise CheckpointError(
                f"the Hub's answer for {name} makes no sense; a proxy or firewall may have answered"
            ) from None
        if tries < retries.attempts:
            retries.wait(tries, requested_s, progress)
    raise failure


def refusal(status: int, code: str, repository: str, subject: str) -> CheckpointError:
    """Error for an answer that no further try will better.

    Args:
        status: of the HTTP answer.
        code: header ``X-Error-Code`` of the Hub.
        repository: name of the repository.
        subject: a file's or a revision's name, for "is not there".
    """
    page = f"{hub_constants().ENDPOINT}/{repository}"
    if status == 401 and code != "RepoNotFound":
        hint = f"log in with 'hf auth login' (or set HF_TOKEN) after accepting the terms at {page}"
        return CheckpointError(f"the Hub asks who you are before it gives {repository} away; {hint}")
    if status == 403:
        hint = f"open {page} in a browser, logged in as the same user, and accept the terms or ask for access"
        return CheckpointError(f"the Hub does not give {repository} to you; {hint}")
    if code == "RevisionNotFound":
        hint = f"look at {page}, or {IMPORT_REMEDY}"
        return CheckpointError(f"the Hub has no {subject} of {repository} any more; {hint}")
    if status in (401, 404) and code in ("RepoNotFound", "GatedRepo", ""):
        hint = f"if {page} opens in your browser, log in with 'hf auth login' (or set HF_TOKEN)"
        return CheckpointError(f"the Hub shows no {subject} of {repository}; {hint}")
    if status == 404:
        return CheckpointError(f"the Hub has no {subject} in {repository}; see {page}")
    return CheckpointError(f"the Hub answered with error {status} for {subject} of {repository}; see {page}")


def unreachable(
    repository: str, subject: str, error: Exception | None, status: int = 0, host: str = HUB
) -> CheckpointError:
    """Error for a network that gave no answer, or no good one, after every try."""
    text = " ".join(_URL.sub("...", str(error or "")).split())[:120]  # addresses may be signed, or hold a password
    name = type(error).__name__ if error is not None else "no answer"
    reason = f"error {status}" if status else f"{name}: {text}" if text else name
    mirror = ", name a mirror (HF_ENDPOINT)" if host == HUB else ""
    remedy = f"check the network and the proxy (HTTPS_PROXY){mirror}, or {IMPORT_REMEDY}; what has arrived is kept"
    return CheckpointError(f"{subject} of {repository} cannot be downloaded ({reason}); {remedy}")


def redirects_in_circles(repository: str, subject: str, host: str = HUB) -> CheckpointError:
    """Error for addresses that lead to each other."""
    return CheckpointError(f"{subject} of {repository} cannot be downloaded: {host} redirects in circles")
