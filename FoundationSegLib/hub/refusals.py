"""What to tell the user when the Hub says no. Nothing that a server wrote is repeated: it may hold secrets."""

import re
from typing import Any

from ..core.errors import CheckpointError
from .online import hub_constants

_URL = re.compile(r"\S*://\S*")


def model_page(repository: str) -> str:
    """The address of a model's page, where its terms are."""
    return f"{hub_constants().ENDPOINT}/{repository}"


def refusal(status: int, code: str, repository: str, what: str) -> CheckpointError:
    """The error for an answer that no further try will better.

    Args:
        status: of the HTTP answer.
        code: what the Hub says in ``X-Error-Code``.
        repository: where the file is.
        what: a file's or a revision's name, for "is not there".
    """
    page = model_page(repository)
    if status == 401 and code != "RepoNotFound":
        hint = f"log in with 'hf auth login' (or set HF_TOKEN) after accepting the terms at {page}"
        return CheckpointError(f"the Hub asks who you are before it gives {repository} away; {hint}")
    if status == 403:
        hint = f"open {page} in a browser, logged in as the same user, and accept the terms or ask for access"
        return CheckpointError(f"the Hub does not give {repository} to you; {hint}")
    if code == "RevisionNotFound":
        hint = f"look at {page}, or bring the files with 'models import'"
        return CheckpointError(f"the Hub has no {what} of {repository} any more; {hint}")
    if status in (401, 404) and code in ("RepoNotFound", "GatedRepo", ""):
        hint = f"if {page} opens in your browser, log in with 'hf auth login' (or set HF_TOKEN)"
        return CheckpointError(f"the Hub shows no {what} of {repository}; {hint}")
    if status == 404:
        return CheckpointError(f"the Hub has no {what} in {repository}; see {page}")
    return CheckpointError(f"the Hub answered with error {status} for {what} of {repository}; see {page}")


def unreachable(repository: str, what: str, error: Exception | None, status: int = 0) -> CheckpointError:
    """The error for a network that gave no answer, or no good one, after every try."""
    reason = f"error {status}" if status else plain_reason(error)
    remedy = (
        "check the network and the proxy (HTTPS_PROXY), name a mirror (HF_ENDPOINT), or bring the files with "
        "'models import'; what has arrived is kept"
    )
    return CheckpointError(f"{what} of {repository} cannot be downloaded ({reason}); {remedy}")


def plain_reason(error: Any) -> str:
    """Why a connection failed, on one line, without addresses: they may be signed, or hold a proxy's password."""
    text = " ".join(_URL.sub("...", str(error or "")).split())[:120]
    name = type(error).__name__ if error is not None else "no answer"
    return f"{name}: {text}" if text else name
