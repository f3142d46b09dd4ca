"""The device that computes: which one, with how many threads, how much memory it has left.

It is asked about before any package is there, so that nothing here needs one.
"""

import gc
import os
import sys
from pathlib import Path

from ..errors import InputError
from ..installation.inspection import Device, DeviceReport, cpu, memory_bytes
from ..installation.private_environment import driver_text
from ..requests.maintenance import DeviceChoice

# https://docs.kernel.org/admin-guide/cgroup-v2.html
CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def choose_device(choice: DeviceChoice) -> str:
    """Return the device to compute on, ``"cuda"``, ``"mps"`` or ``"cpu"``; ``"auto"`` takes the first available one.

    Raises:
        InputError: the device is not available here.
    """
    if choice == "cpu":
        return choice  # always there, and a model may do without torch
    import torch

    is_available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    usable = [device for device, available in is_available.items() if available]
    if choice != "auto" and choice not in usable:
        raise InputError(f"the device {choice} is not available here; available: {', '.join(usable)}")
    return usable[0] if choice == "auto" else choice


def describe_devices() -> DeviceReport:
    """Return what PyTorch can compute on in this Python; it is imported for that."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of it is missing or broken
        return DeviceReport((cpu(),), problem=f"{type(error).__name__}: {error}")
    devices = [_cuda_device(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        limit = getattr(torch.mps, "recommended_max_memory", None)
        devices.append(Device("mps", "Apple GPU", limit() if limit else memory_bytes()))
    driver = next(iter(driver_text("driver_version").split()), "")  # that of the first card: all have the same
    return DeviceReport((*devices, cpu()), driver, torch.version.cuda or "")


def _cuda_device(number: int) -> Device:
    import torch

    name, total = torch.cuda.get_device_name(number), torch.cuda.get_device_properties(number).total_memory
    try:
        free, _ = torch.cuda.mem_get_info(number)
    except RuntimeError:  # other programs have taken all of it
        free = 0
    return Device("cuda", name, int(total), int(free))


def limit_threads(cgroup: Path = CGROUP) -> None:
    """Let torch compute with no more threads than there are processors for it: more get in each other's way.

    A container or a batch system may give a process fewer than the machine has, which torch does not know. With more
    than four, one is left to the program that shows the result. A lower number that is set already stays.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return
    usable = usable_processors(cgroup)
    threads = usable - 1 if usable > 4 else usable
    if threads < torch.get_num_threads():
        torch.set_num_threads(threads)


def usable_processors(cgroup: Path = CGROUP) -> int:
    """Return how many processors this process may use, by its affinity and its container's share; at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = (cgroup / "cpu.max").read_text().split()
        count = min(count, -(-int(share) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no share of its own
        pass
    return max(1, count)


def release_memory(device: str) -> None:
    """Return freed memory to the system and to the device, where the framework kept it for itself."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and device == "cuda":
        torch.cuda.empty_cache()
    elif torch is not None and device == "mps":
        torch.mps.empty_cache()


def free_bytes(device: str) -> int | None:
    """Return the memory that can still be taken where a device computes, in bytes; None where it is unknown."""
    if device == "cpu":
        return free_host_bytes()
    import torch

    try:
        if device == "cuda":
            return int(torch.cuda.mem_get_info()[0])
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    except (RuntimeError, AssertionError):
        return None


def free_host_bytes(cgroup: Path = CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Return the main memory of the machine or the container that can still be taken, in bytes; None if unknown."""
    if sys.platform == "win32":
        return _free_on_windows()
    amounts = [amount for amount in (_from_meminfo(meminfo), _from_cgroup(cgroup)) if amount is not None]
    return min(amounts, default=None)


def taken_bytes() -> int:
    """Return the main memory that this process has taken, in bytes; 0 where it is unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    import resource

    return pages * resource.getpagesize()


def _from_meminfo(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _from_cgroup(cgroup: Path) -> int | None:
    """Read the container's limit; the file holds the word ``max`` where there is none.

    The memory that it counts as taken includes files that were read, which make room by themselves.
    """
    try:
        limit, used = (int((cgroup / f"memory.{name}").read_text()) for name in ("max", "current"))
        stated = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stated.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None


def _free_on_windows() -> int | None:
    # https://learn.microsoft.com/windows/win32/api/sysinfoapi/ns-sysinfoapi-memorystatusex
    import ctypes

    class Status(ctypes.Structure):  # of the bytes, the first are all, the second those available
        _fields_ = (("length", ctypes.c_ulong), ("load", ctypes.c_ulong), ("bytes", ctypes.c_ulonglong * 7))

    status = Status()
    status.length = ctypes.sizeof(Status)
    is_known = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.bytes[1]) if is_known else None
