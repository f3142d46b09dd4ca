"""The worker with its own engine, for downloads: it asks quickly again, and refuses torch and the network at large.

    python -P -m Testing.unit.worker.hub_worker FULL_DISK

As long as there is a file FULL_DISK, what is downloaded cannot be written.
"""

import dataclasses
import errno
import functools
import os
import sys
from pathlib import Path

from FoundationSegLib.hub import download, fetch
from FoundationSegLib.worker import server
from Testing.unit.hub.hub_cases import QUICK

HEAVY = ("torch", "transformers", "timm", "SimpleITK", "slicer", "vtk")
# As quick as in this process, but a Hub that is only slow is never taken for a silent one.
PATIENT = dataclasses.replace(QUICK, timeout_s=60)
_write = os.write


def command(full_disk: Path) -> tuple[str, ...]:
    return sys.executable, "-P", "-m", "Testing.unit.worker.hub_worker", str(full_disk)


def trap(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse what a download does not need."""
    if event == "import" and str(arguments[0]).split(".")[0] in HEAVY:
        raise RuntimeError(f"somebody imports {arguments[0]}")
    if event == "socket.connect" and arguments[1][0] != "127.0.0.1":
        raise RuntimeError(f"somebody went to the network: {arguments[1]}")


def write(descriptor: int, content: bytes) -> int:
    if Path(sys.argv[1]).exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _write(descriptor, content)


if __name__ == "__main__":
    sys.addaudithook(trap)
    fetch.FETCHERS["hub"] = functools.partial(download.fetch_files, retries=PATIENT)
    os.write = write
    server.main()
