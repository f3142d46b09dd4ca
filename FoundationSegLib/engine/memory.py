"""How much memory is left, and what running out of it looks like."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import DeviceLostError, InferenceError, MemoryShortageError

AnswerT = TypeVar("AnswerT")

# What torch says where memory ran out, beside raising a class of its own for CUDA alone.
_SHORTAGES = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
# What CUDA says where nothing will work any more in this process.
_LOST = ("cuda error:", "device-side assert", "unspecified launch failure")
_CGROUP = Path("/sys/fs/cgroup")


def guarded(answer: Callable[[], AnswerT]) -> AnswerT:
    """Turn what the framework throws at run time (out of memory, a driver's fault) into an error of ours.

    Raises:
        MemoryShortageError: memory ran out.
        DeviceLostError: the device answers nobody any more.
        InferenceError: anything else went wrong.
    """
    try:
        return answer()
    except (RuntimeError, MemoryError) as error:
        lines = str(error).strip().splitlines()
        message = f"the model could not answer: {lines[0] if lines else type(error).__name__}"
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(words in text for words in _SHORTAGES):
            raise MemoryShortageError(message) from error
        if any(words in text for words in _LOST):
            raise DeviceLostError(message) from error
        raise InferenceError(message) from error


def give_back(device: str) -> None:
    """Hand freed memory back to the system and to the device, where the framework kept it for itself."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and device == "cuda":
        torch.cuda.empty_cache()
    elif torch is not None and device == "mps":
        torch.mps.empty_cache()


def free_bytes(device: str) -> int | None:
    """Memory that can still be taken where a device computes, in bytes; None where nobody says."""
    if device == "cpu":
        return free_host_bytes()
    import torch

    try:
        if device == "cuda":
            return int(torch.cuda.mem_get_info()[0])
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    except (RuntimeError, AssertionError):
        return None


def free_host_bytes() -> int | None:
    """Main memory that can still be taken, in bytes: of the machine, or of the container that it is limited to.

    None where nobody says.
    """
    if sys.platform == "win32":
        return _free_on_windows()
    known = [amount for amount in (_from_meminfo(), _from_cgroup()) if amount is not None]
    return min(known, default=None)


def taken_bytes() -> int:
    """Main memory that this process has taken, in bytes; 0 where nobody says."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    import resource

    return pages * resource.getpagesize()


def _from_meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _from_cgroup() -> int | None:
    """https://docs.kernel.org/admin-guide/cgroup-v2.html#memory: ``max`` is a word where there is no limit.

    What it counts as taken holds files that were read, which make room by themselves.
    """
    try:
        most, taken = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        stated = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(0, most - taken + int(stated.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None


def _free_on_windows() -> int | None:
    """https://learn.microsoft.com/windows/win32/api/sysinfoapi/ns-sysinfoapi-memorystatusex"""
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_ulonglong),
            ("available", ctypes.c_ulonglong),
            ("others", ctypes.c_ulonglong * 5),
        )

    status = Status()
    status.length = ctypes.sizeof(Status)
    there = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.available) if there else None
