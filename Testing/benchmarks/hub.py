"""A large file from a Hub on loopback: our download, which hashes as it goes, against the client's plain one and a
pass over the file that hashes it."""

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .timing import Comparison

MEGABYTES = 256  # the bar names 2048, which takes this machine's disk a while
ROUNDS = 5
_REPOSITORY = "org/large"
_ROOT = Path(__file__).resolve().parents[2]

_SERVER = """
import sys
from pathlib import Path
from Testing.unit.hub.loopback_hub import run_hub
with run_hub() as hub:
    hub.add(sys.argv[1], {"large.bin": Path(sys.argv[2])})
    print(hub.endpoint, flush=True)
    sys.stdin.read()
"""
_OURS = """
from FoundationSegLib.progress import Progress
from FoundationSegLib.hub.fetch import download_checkpoint
from FoundationSegLib.hub.store import Store
from Testing.unit.hub.hub_cases import hub_card
card = hub_card({"large.bin": b""}, sizes=False, repository=sys.argv[1])
work = lambda: download_checkpoint(Store(Path(sys.argv[2])), card, Progress())
"""
_THEIRS = """
import hashlib
from huggingface_hub import hf_hub_download
def work():
    path = hf_hub_download(sys.argv[1], "large.bin", cache_dir=sys.argv[2])
    with open(path, "rb") as stream:
        hashlib.file_digest(stream, "sha256").hexdigest()
"""
_CHILD = """
import json, sys, time
from pathlib import Path
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import get_session
from Testing.benchmarks.memory import peak_mb
get_session()
{setup}
before, start = peak_mb(), time.perf_counter()
work()
print(json.dumps([time.perf_counter() - start, peak_mb() - before]))
"""


@dataclass(frozen=True, slots=True)
class Memory:
    """The most memory that a download took beyond its start, in MB."""

    megabytes: int
    ours_mb: float

    def __str__(self) -> str:
        return f"memory while {self.megabytes} MB are downloaded: {self.ours_mb:.1f} MB beyond the start"


def download() -> list[Comparison | Memory]:
    """Both sides in turn, each in a process of its own; medians."""
    with tempfile.TemporaryDirectory() as folder, _serve(Path(folder)) as endpoint:
        runs: dict[str, list[tuple[float, float]]] = {_OURS: [], _THEIRS: []}
        for n in range(ROUNDS + 1):
            for setup, results in runs.items():
                result = _run(setup, endpoint, Path(folder) / "target")
                if n:  # the first reads the file from the disk, and does not count
                    results.append(result)
        ours, theirs = (statistics.median(seconds for seconds, _ in results) for results in runs.values())
        peak = max(megabytes for _, megabytes in runs[_OURS])
    return [Comparison(f"download {MEGABYTES} MB", ours, "the client and a hash pass", theirs), Memory(MEGABYTES, peak)]


@contextlib.contextmanager
def _serve(folder: Path) -> Iterator[str]:
    large = folder / "large.bin"
    source = random.Random(0)
    with large.open("wb") as stream:
        for _ in range(MEGABYTES):
            stream.write(source.randbytes(1 << 20))
    command = (sys.executable, "-c", _SERVER, _REPOSITORY, str(large))
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.communicate("")


def _run(setup: str, endpoint: str, target: Path) -> tuple[float, float]:
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(target / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = (sys.executable, "-c", _CHILD.format(setup=setup), _REPOSITORY, folder)
        environment = {**os.environ, **settings, "NO_PROXY": "127.0.0.1"}
        run = subprocess.run(command, env=environment, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seconds, megabytes = json.loads(run.stdout.splitlines()[-1])
    return seconds, megabytes
