"""Which device computes: CUDA first, then Apple's MPS, then the CPU; and with how many threads."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..errors import InputError
from ..installation.inspection import Device, DeviceReport, cpu, memory_bytes
from ..requests.worker_settings import DeviceChoice

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu

_DRIVER_S = 5.0


def choose_device(choice: DeviceChoice) -> str:
    """The device to compute on, ``"cuda"``, ``"mps"`` or ``"cpu"``; ``"auto"`` takes the first that is there.

    Raises:
        InputError: the wanted device is not there.
    """
    if choice == "cpu":
        return choice  # always there, and a model may do without torch
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if choice == "auto":
        return next(device for device, is_there in there.items() if is_there)
    if not there[choice]:
        usable = ", ".join(device for device, is_there in there.items() if is_there)
        raise InputError(f"the device {choice} is not available here; available: {usable}")
    return choice


def describe_devices() -> DeviceReport:
    """What PyTorch can compute on in this Python; it is imported for that."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of it is missing or broken
        return DeviceReport((cpu(),), problem=f"{type(error).__name__}: {error}")
    found = [_cuda_device(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        limit = getattr(torch.mps, "recommended_max_memory", None)
        found.append(Device("mps", "Apple GPU", limit() if limit else memory_bytes()))
    return DeviceReport((*found, cpu()), _driver(), torch.version.cuda or "")


def _cuda_device(number: int) -> Device:
    import torch

    name, total = torch.cuda.get_device_name(number), torch.cuda.get_device_properties(number).total_memory
    try:
        free, _ = torch.cuda.mem_get_info(number)
    except RuntimeError:  # somebody else has taken all of it
        free = 0
    return Device("cuda", name, int(total), int(free))


def _driver() -> str:
    """The version of NVIDIA's driver; empty where its own program is not there, or gives no answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    no_window = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    command = (program, "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=_DRIVER_S, check=True, creationflags=no_window
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(run.stdout.split()), "")


def limit_threads() -> None:
    """Let torch compute with no more threads than there are processors for it: more get in each other's way.

    A container or a batch system may give a process fewer than the machine has, which torch does not know. With more
    than four, one is left to the program that shows the result. Never raises what somebody else lowered.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return
    usable = usable_processors()
    wanted = min(torch.get_num_threads(), usable - 1 if usable > 4 else usable)
    if wanted < torch.get_num_threads():
        torch.set_num_threads(wanted)


def usable_processors() -> int:
    """How many processors this process may use: of its affinity and of its container's share; 1 at the least."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = _CPU_MAX.read_text().split()
        count = min(count, -(-int(share) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no share of its own
        pass
    return max(1, count)
