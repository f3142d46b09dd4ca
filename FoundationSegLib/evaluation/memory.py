"""How much main memory a process took at its peak."""

import os
import re
import sys
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


def peak_memory_mb(process_id: int | None = None) -> float | None:
    """The most main memory, in MB (10^6 bytes), that a process has taken so far; None where that is unknown.

    Known of this process but on Windows; of another one on Linux alone. A launcher, as the Python of Slicer is one,
    counts with what it started: the number is the largest of the process and all below it. Memory on a graphics card
    is not in it.

    Args:
        process_id: which process; this one, unless given.
    """
    if process_id in (None, os.getpid()):
        return _own_peak()
    return _peak_of_tree(process_id) if sys.platform == "linux" and process_id is not None else None


def _own_peak() -> float | None:
    if sys.platform == "win32":
        return None
    import resource

    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return taken / 1e6 if sys.platform == "darwin" else taken * 1024 / 1e6


def _peak_of_tree(process_id: int) -> float | None:
    try:
        status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # it has ended
        return None
    found = _PEAK.search(status)
    own = int(found[1]) * 1024 / 1e6 if found else None
    peaks = [own, *map(_peak_of_tree, _children(process_id))]
    return max((peak for peak in peaks if peak is not None), default=None)


def _children(process_id: int) -> list[int]:
    """The processes that a process's first thread started; none where the system does not tell."""
    try:
        listed = Path(f"/proc/{process_id}/task/{process_id}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in listed.split()]
