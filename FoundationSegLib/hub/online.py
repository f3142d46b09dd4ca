"""The network: whether it may be used, on whose session, and without ever keeping the user waiting for it."""

import contextlib
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..core.errors import CheckpointError
from ..core.progress import Progress

ALLOW_VARIABLE = "FOUNDATIONSEG_ALLOW_DOWNLOAD"
POLL_S = 0.05  # a cancel is seen within this time, whatever the network does

_T = TypeVar("_T")
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
# What a client's own code throws at answers that are no answers (found by fuzzing it).
BAD_ANSWER = (TypeError, KeyError, ValueError, AttributeError, LookupError, RecursionError)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a network is asked again, and how long it is waited for.

    Attributes:
        attempts: tries in a row without a single new byte.
        first_wait_s: before the second try; doubled with every further one.
        longest_wait_s: before any try, whatever the server asks for.
        timeout_s: how long a server may be silent; None is what the Hub's client is set to (10 s by default).
    """

    attempts: int = 6
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    timeout_s: float | None = None

    def wait(self, tries: int, asked_s: float, progress: Progress) -> None:
        """Wait before the next try.

        Args:
            tries: how many were made in a row.
            asked_s: what the server asked for; 0 where it did not.
            progress: what ends the waiting.

        Raises:
            Cancelled: the user stopped it.
        """
        # Many who were cut off at once should not come back at once.
        usual_s = self.first_wait_s * 2 ** (tries - 1) * random.uniform(0.8, 1.2)
        until = time.monotonic() + min(max(usual_s, asked_s), self.longest_wait_s)
        while (left := until - time.monotonic()) > 0:
            progress.check()
            time.sleep(min(POLL_S, left))


def is_busy(status: int) -> bool:
    """True for the answers of a server that may well give a better one a little later."""
    return status in _BUSY


def asked_wait_s(headers: Mapping[str, str]) -> float:
    """What a server asks to wait in ``Retry-After``, in seconds; 0 where it does not say so in seconds."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0


@contextlib.contextmanager
def online() -> Iterator[None]:
    """For as long as a download takes, let the Hub's client use the network.

    The user's own offline mode is honoured at once. The worker is started in offline mode so that nothing is looked
    up behind the user's back, with :data:`ALLOW_VARIABLE` set where the user has not asked for that mode. The client
    asks its own constants before every request, so those are what changes here, and changes back; with its telemetry
    on, it would also ask the Hub for a list of programs to name in its requests, and name them.

    Raises:
        CheckpointError: the user wants no network, or there is no client.
    """
    constants = hub_constants()
    was = constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY
    if was[0] and os.environ.get(ALLOW_VARIABLE, "").upper() not in ("1", "ON", "YES", "TRUE"):
        remedy = "unset it, or bring the files with 'models import'"
        raise CheckpointError(f"offline mode is on (HF_HUB_OFFLINE), so nothing is downloaded; {remedy}")
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY = False, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY = was


def hub_client() -> Any:
    """The package ``huggingface_hub``.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError("the Hugging Face Hub's client is not installed; install huggingface_hub") from error
    return huggingface_hub


def hub_constants() -> Any:
    """The client's settings: endpoint, cache folder, offline mode, timeouts.

    Raises:
        CheckpointError: the client is not installed.
    """
    hub_client()
    from huggingface_hub import constants

    return constants


def http_package() -> Any:
    """The HTTP package that the Hub's client is built on: httpx in its first version, httpx2 in its second."""
    from huggingface_hub.errors import HfHubHTTPError

    base = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    return sys.modules[base.__module__.partition(".")[0]]


def headers() -> dict[str, str]:
    """The headers of every request: the client's own, with the user's login if there is one."""
    from huggingface_hub.utils import build_hf_headers

    from .. import __version__

    return build_hf_headers(library_name="foundationseg", library_version=__version__)


def timeout_s(patience: Patience) -> float:
    """How long a server may be silent, in seconds."""
    if patience.timeout_s is not None:
        return patience.timeout_s
    return float(hub_constants().HF_HUB_DOWNLOAD_TIMEOUT)


def in_background(work: Callable[[], _T], progress: Progress) -> _T:
    """The result of a piece of work that waits for the network, or its error.

    It is done in a thread of its own, so that a cancel need not wait; then what it still brings is for nobody.

    Raises:
        Cancelled: the user stopped it.
        CheckpointError: it ended in a way that nobody expected.
    """
    answers: queue.SimpleQueue[Callable[[], _T] | None] = queue.SimpleQueue()
    thread = threading.Thread(target=_answer, args=(work, answers), daemon=True)
    thread.start()
    while True:
        progress.check()
        with contextlib.suppress(queue.Empty):
            answer = answers.get(timeout=POLL_S)
            if answer is None:
                raise CheckpointError("the Hub's client failed in a way that was not foreseen; try again")
            return answer()


def _answer(work: Callable[[], _T], answers: "queue.SimpleQueue[Callable[[], _T] | None]") -> None:
    http = http_package()
    try:
        result = work()
        answers.put(lambda: result)
    except (OSError, http.HTTPError, http.InvalidURL, CheckpointError, *BAD_ANSWER) as error:
        failure = error

        def fail() -> _T:
            raise failure

        answers.put(fail)
    finally:
        answers.put(None)
