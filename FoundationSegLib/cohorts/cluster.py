"""The cluster that computes a cohort: Dask's own on this machine, or one that runs elsewhere. Needs `distributed`."""

import contextlib
import ipaddress
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import FoundationSegError, InferenceError, InputError, counted, package_missing
from ..progress import bytes_text

if TYPE_CHECKING:
    from distributed import Client

_START_S = 120.0
# A case that was under way this often when its worker died is given up: it may be what kills them.
_DEATHS = 3
_GONE = "the cluster is gone; run the same command again, and it goes on where it stopped"
_LEAST_BYTES = 3 * 10**9  # Python, PyTorch, one small model and one chest CT


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """Size of a cluster on this machine: workers, and for each of them threads, memory and graphics card.

    ``devices`` are the numbers of the cards, one for each worker; empty to compute on the processor.
    """

    workers: int
    threads: int
    worker_bytes: int
    devices: tuple[int, ...] = ()

    def __str__(self) -> str:
        on = "a graphics card" if self.devices else counted(self.threads, "thread")
        return f"{counted(self.workers, 'worker')}, each with {on} and {bytes_text(self.worker_bytes)}"


def choose_size(
    cases: int, cores: int, memory_bytes: int, model_bytes: int, devices: int = 0, workers: int | None = None
) -> ClusterSize:
    """Choose the size of a cluster on this machine: a worker for each card, or as many as cores and memory allow.

    Args:
        cases: the number of cases; more workers than that are of no use.
        cores, memory_bytes, devices: those of the machine, or what a container leaves of it.
        model_bytes: the size of the checkpoint, of which each worker holds a copy.
        workers: as many workers instead.

    Raises:
        InputError: more workers are wanted than there is memory for.
    """
    least = _LEAST_BYTES + 2 * model_bytes
    most = max(1, int(memory_bytes * 0.9) // least)
    if workers is not None and workers > most:
        raise InputError(f"{workers} workers need {bytes_text(workers * least)} of memory; at most {most} fit here")
    count = workers or min(devices or cores, most, cases)
    numbers = tuple(n % devices for n in range(count)) if devices else ()
    return ClusterSize(count, max(1, cores // count), int(memory_bytes * 0.9) // count, numbers)


@contextlib.contextmanager
def open_cluster(size: ClusterSize) -> Iterator["Client"]:
    """Start a cluster on this machine; it ends with the block. A worker that dies is started anew."""
    distributed = import_distributed()
    import dask

    def options(number: int) -> dict[str, Any]:
        threads = {name: str(size.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        card = {"CUDA_VISIBLE_DEVICES": str(size.devices[number])} if size.devices else {}
        return {"nthreads": 1, "memory_limit": size.worker_bytes, "env": threads | card, "dashboard_address": None}

    workers = {n: {"cls": distributed.Nanny, "options": options(n) | {"silence_logs": 50}} for n in range(size.workers)}
    local = {
        "protocol": "tcp://",
        "host": "127.0.0.1",
        "port": 0,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
    }
    settings = {
        "distributed.scheduler.allowed-failures": _DEATHS,
        "distributed.comm.timeouts.connect": _START_S,
        "distributed.worker.profile.enabled": False,  # it looks at the workers a hundred times a second
    }
    with dask.config.set(settings):
        cluster = distributed.SpecCluster(
            workers=workers, scheduler={"cls": distributed.Scheduler, "options": local}, silence_logs=50
        )
        with cluster, distributed.Client(cluster, timeout=_START_S) as client:
            yield client


@contextlib.contextmanager
def join_cluster(address: str, *, insecure: bool) -> Iterator["Client"]:
    """Join a cluster that runs already; it goes on after the block.

    Keys and certificates of ``tls://``, and how long an answer is waited for, come from Dask's own configuration.

    Args:
        address: of its scheduler, such as ``tls://host:8786``.
        insecure: the user has agreed that images travel unencrypted.

    Raises:
        InputError: the address is none, would be reached without encryption, or does not answer.
        InferenceError: the cluster is gone in the midst of the block.
    """
    check_address(address, insecure=insecure)
    distributed = import_distributed()
    try:
        client = distributed.Client(address, security=distributed.Security())
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"the scheduler {address} cannot be reached: {error}") from error
    try:
        with client:
            _check_workers(client, address)
            yield client
    except distributed.comm.CommClosedError as error:
        raise InferenceError(_GONE) from error


def check_address(address: str, *, insecure: bool) -> None:
    """Make sure that a scheduler's address is one, and encrypted or on this machine.

    Raises:
        InputError: it is not; Dask's own traffic is open to whoever sees it.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.scheme not in ("tcp", "tls"):
        raise InputError(f"--scheduler {address[:80]} is not of the form tls://HOST:PORT or tcp://HOST:PORT")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if parts.scheme == "tcp" and host != "localhost" and not insecure:
        raise InputError(
            f"{address} is not encrypted, and whoever sees the traffic can run programs there; use tls://, or say "
            "--insecure"
        )


def _check_workers(client: "Client", address: str) -> None:
    from .. import __version__

    def version() -> str:
        from .. import __version__

        return __version__

    try:  # a function within another travels as it is, and needs nothing of ours there
        versions = client.run(version)
    except ModuleNotFoundError as error:
        remedy = "install FoundationSeg and its packages there, and put its folder on PYTHONPATH"
        raise InputError(f"the workers of {address} lack the package {error.name}; {remedy}") from error
    others = sorted({version for version in versions.values() if version != __version__})
    if others:
        raise InputError(f"the workers of {address} have FoundationSeg {', '.join(others)}, and here is {__version__}")


def import_distributed() -> Any:
    """Import Dask's package.

    Raises:
        PackageMissingError: it is not installed.
    """
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise package_missing("a cohort", "distributed") from error
    return distributed


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer for one item: the function's result, or why there is none."""

    item: Any
    result: Any = None
    error: str = ""


def compute(client: "Client", function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Outcome]:
    """Run a function over items on a cluster, and yield each outcome as it comes.

    An item whose worker dies is computed again elsewhere, :data:`_DEATHS` times. An error is the outcome of its item
    alone.

    Args:
        client: of the cluster.
        function: called with an item; it and what it returns must be picklable.
        items: picklable values.

    Raises:
        InferenceError: the cluster is gone; what was not computed has no outcome.
    """
    distributed = import_distributed()
    run = f"{time.time_ns():x}"
    futures = {client.submit(function, item, key=f"case-{run}-{n}", pure=False): item for n, item in enumerate(items)}
    done = distributed.as_completed(futures)
    for future in done:
        if future.status in ("lost", "pending"):  # its worker died with the result: it is computed again
            done.add(future)
            continue
        item = futures.pop(future)
        if future.status == "finished":
            with contextlib.suppress(distributed.client.FutureCancelledError):
                yield Outcome(item, future.result())
                continue
        if future.status != "error":
            raise InferenceError(_GONE)
        yield Outcome(item, error=_reason(future.exception(), distributed))


def _reason(error: BaseException, distributed: Any) -> str:
    if isinstance(error, FoundationSegError):
        return str(error)
    if isinstance(error, distributed.scheduler.KilledWorker):
        return f"its worker died {_DEATHS} times, perhaps for want of memory; give each worker more, or use --roi"
    if isinstance(error, MemoryError):
        return "there is not enough memory; give each worker more, or use --roi"
    return f"unexpected {type(error).__name__}: {error}"
