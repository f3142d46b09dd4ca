"""What the Hub says of a checkpoint before a byte of it travels: the commit, and every file's length and hashes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import CheckpointError
from ..core.progress import Progress
from .names import is_safe_path
from .online import BAD_ANSWER, Patience, asked_wait_s, http_package, hub_client, in_background, is_busy, timeout_s
from .refusals import refusal, unreachable

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the Hub: its length in bytes; its sha256 or, for small ones, its git object id. Unknown is empty."""

    bytes: int
    sha256: str = ""
    git_oid: str = ""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit.

    ``gated`` is true where the Hub asks for its terms to be accepted; ``license`` is the Hub's tag, empty if it has
    none.
    """

    name: str
    commit: str
    files: Mapping[str, RemoteFile]
    gated: bool = False
    license: str = ""


def look_up(name: str, revision: str, paths: set[str], patience: Patience, progress: Progress) -> Repository:
    """A repository at the commit that a revision means now.

    Raises:
        CheckpointError: the Hub cannot be reached, does not give it away, or answers with nonsense.
        Cancelled: the user stopped it.
    """
    client = hub_client()

    def ask() -> Repository:
        model = client.HfApi().model_info(name, revision=revision, files_metadata=True, timeout=timeout_s(patience))
        return _repository(name, model, paths)

    found = _persist(ask, name, f"revision {revision[:12]}", patience, progress)
    lacking = {path: file for path, file in found.files.items() if file is _UNKNOWN}
    known = {path: file for path, file in found.files.items() if file is not _UNKNOWN}
    for path in lacking:  # some mirrors leave the lengths out; they say them file by file
        known[path] = _look_at(name, path, found.commit, patience, progress)
    return Repository(found.name, found.commit, known, found.gated, found.license)


_UNKNOWN = RemoteFile(-1)


def _repository(name: str, model: Any, paths: set[str]) -> Repository:
    if not isinstance(model.sha, str) or not _COMMIT.fullmatch(model.sha):
        raise CheckpointError(f"the Hub's answer for {name} names no commit; a proxy or firewall may have answered")
    files = {}
    for sibling in model.siblings or ():
        if sibling.rfilename in paths and is_safe_path(sibling.rfilename):
            files[sibling.rfilename] = _file(sibling)
    tag = (model.card_data or {}).get("license") if hasattr(model.card_data, "get") else None
    return Repository(name, model.sha, files, bool(model.gated), tag if isinstance(tag, str) else "")


def _file(sibling: Any) -> RemoteFile:
    if sibling.lfs is not None:
        return _checked(sibling.lfs.size, str(sibling.lfs.sha256), "")
    if sibling.size is None:
        return _UNKNOWN
    return _checked(sibling.size, "", str(sibling.blob_id or ""))


def _checked(length: Any, sha256: str, git_oid: str) -> RemoteFile:
    if type(length) is not int or length < 0:
        raise ValueError("a length")
    if (sha256 and not _SHA256.fullmatch(sha256)) or (git_oid and not _COMMIT.fullmatch(git_oid)):
        raise ValueError("a hash")
    return RemoteFile(length, sha256, git_oid)


def _look_at(name: str, path: str, commit: str, patience: Patience, progress: Progress) -> RemoteFile:
    client = hub_client()

    def ask() -> RemoteFile:
        url = client.hf_hub_url(name, path, revision=commit)
        seen = client.get_hf_file_metadata(url, timeout=timeout_s(patience))
        if seen.commit_hash not in (None, commit):
            raise CheckpointError(f"the Hub's answer for {path} of {name} is of another commit than asked for")
        etag = seen.etag or ""
        return _checked(seen.size, etag if _SHA256.fullmatch(etag) else "", etag if _COMMIT.fullmatch(etag) else "")

    return _persist(ask, name, path, patience, progress)


def _persist(ask: Any, name: str, what: str, patience: Patience, progress: Progress) -> Any:
    """The answer to a question, asked again while the Hub is busy or cannot be reached."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    http = http_package()
    for tries in range(1, patience.attempts + 1):
        asked_s = 0.0
        try:
            return in_background(ask, progress)
        except HFValidationError:
            raise CheckpointError(f"{name!r} is not a name that a repository on the Hub can have") from None
        except HfHubHTTPError as error:
            status, answered = error.response.status_code, error.response.headers
            failure = unreachable(name, what, None, status)
            if not is_busy(status):
                raise refusal(status, answered.get("X-Error-Code", ""), name, what) from None
            asked_s = asked_wait_s(answered)
        except http.TooManyRedirects:
            raise CheckpointError(f"{what} of {name} cannot be downloaded: the Hub redirects in circles") from None
        except http.HTTPError as error:
            failure = unreachable(name, what, error)
        except (OSError, http.InvalidURL, *BAD_ANSWER):
            raise CheckpointError(
                f"the Hub's answer for {name} makes no sense; a proxy or firewall may have answered"
            ) from None
        if tries < patience.attempts:
            patience.wait(tries, asked_s, progress)
    raise failure
