"""Inspection of a Python: version, packages, devices. And texts without the user's name and folders."""

import ctypes
import getpass
import importlib
import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..codec import frozen
from .packages import installed_version
from .private_environment import PrivateFolder

OLDEST_PYTHON = (3, 11)
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@frozen
class Device:
    """Something to compute on.

    Attributes:
        kind: ``"cuda"``, ``"mps"`` or ``"cpu"``.
        name: what its maker calls it; empty where nobody says.
        bytes: its memory; for the CPU, that of the computer. 0 where nobody says.
        free_bytes: what of it was free; None where nobody says.
    """

    kind: str
    name: str
    bytes: int
    free_bytes: int | None = None


@frozen
class DeviceReport:
    """The devices that PyTorch can use in some Python.

    Attributes:
        devices: the best first; the CPU is always the last.
        driver: the version of the graphics driver; empty where there is none, or nobody says.
        runtime: the version of CUDA that PyTorch was built for; empty for none.
        problem: why PyTorch could not be asked; empty where it could.
    """

    devices: tuple[Device, ...]
    driver: str = ""
    runtime: str = ""
    problem: str = ""


@frozen
class PythonReport:
    """A Python that may run models.

    Attributes:
        version: ``"3.12.10"``.
        system: the operating system, its version, and the machine.
        packages: the installed version by the name that was asked for, empty where there is none.
        is_managed: its packages belong to the operating system, and pip refuses to add any (PEP 668).
        devices: what PyTorch can compute on; None where it was not asked.
    """

    version: str
    system: str
    packages: Mapping[str, str]
    is_managed: bool = False
    devices: DeviceReport | None = None


def inspect_python(packages: Iterable[str], private_root: Path | None = None) -> PythonReport:
    """Inspect the running Python: its version, and the versions of these packages, none of which is imported.

    Where ``private_root`` has the private packages of each kind of Python, those of the Python itself do not count.
    """
    folder = None if private_root is None else PrivateFolder(private_root).packages
    importlib.invalidate_caches()  # something may have been installed a moment ago
    versions = {name: installed_version(name, folder) for name in packages}
    system = f"{platform.system()} {platform.release()} ({platform.machine()})"
    if sys.platform == "darwin":
        system = f"macOS {platform.mac_ver()[0]} ({platform.machine()})"
    is_environment = sys.prefix != sys.base_prefix
    is_managed = (
        not is_environment and folder is None and (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").is_file()
    )
    return PythonReport(platform.python_version(), system, versions, is_managed)


def has_nvidia_driver(driver: Path = _NVIDIA_DRIVER) -> bool:
    """True where this computer has NVIDIA's driver, and so perhaps a card for CUDA: found out at once, without PyTorch.

    A guess to choose a model by; only PyTorch knows whether it can use the card.
    """
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32" / "nvcuda.dll").is_file()
    return driver.exists() or shutil.which("nvidia-smi") is not None


def cpu() -> Device:
    """The processor, with the memory of the computer."""
    name = platform.processor()
    if sys.platform == "linux":
        name = next((line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")), name)
    return Device("cpu", f"{name or platform.machine()}, {os.cpu_count() or 1} threads", memory_bytes())


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def memory_bytes() -> int:
    """The computer's memory in bytes; 0 where the system does not say."""
    if sys.platform == "win32":
        return _windows_memory_bytes()
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0


def _windows_memory_bytes() -> int:
    # https://learn.microsoft.com/windows/win32/api/sysinfoapi/nf-sysinfoapi-getphysicallyinstalledsystemmemory
    kilobytes = ctypes.c_ulonglong(0)
    library = getattr(ctypes, "windll", None)
    if library is None or not library.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes)):
        return 0
    return kilobytes.value * 1024


_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


def peak_memory_mb(process_id: int | None = None) -> float | None:
    """Return the most main memory, in MB (10^6 bytes), that a process has taken so far; None where that is unknown.

    Known of this process but on Windows; of another one on Linux alone. A launcher, as the Python of Slicer is one,
    counts with what it started: the number is the largest of the process and all below it. Memory on a graphics card
    is not in it.

    Args:
        process_id: the process; this one by default.
    """
    if process_id in (None, os.getpid()):
        return _own_peak()
    return _peak_of_tree(process_id) if sys.platform == "linux" and process_id is not None else None


def _own_peak() -> float | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _peak_of_tree(process_id: int) -> float | None:
    try:
        status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # it has ended
        return None
    line = _PEAK.search(status)
    own = int(line[1]) * 1024 / 1e6 if line else None
    peaks = [own, *map(_peak_of_tree, _children(process_id))]
    return max((peak for peak in peaks if peak is not None), default=None)


def _children(process_id: int) -> list[int]:
    """List the processes that a process's first thread started; none where the system does not tell."""
    try:
        children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in children.split()]


_SHORTEST_NAME = 3  # a name of two letters is part of too many words
# Folders of either kind of system; what follows the last slash tells something, and stays. A blank belongs to a name
# only where that is clear: on a drive of Windows.
_FOLDERS = re.compile(
    r"\S*://\S*"
    r"|[A-Za-z]:\\+(?:[^\\/:*?\"<>|\r\n']+\\+)+"
    r"|(?<![\w.])(?:~|[A-Za-z]:|\\)?(?:[\\/][^\\/\s'\":;,<>|()\[\]]+)+[\\/](?=[^\\/\s])"
)


def without_paths(text: str) -> str:
    """A text in which the user's home, folders of files and the user's name are replaced; addresses stay."""
    home = str(Path.home())
    for spelling in {home, home.replace("\\", "/"), home.replace("\\", "\\\\")}:
        if len(spelling) > 1:
            text = text.replace(spelling, "~")
    text = _FOLDERS.sub(_shortened, text)
    name = _user_name()
    if len(name) >= _SHORTEST_NAME:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "(user)", text, flags=re.IGNORECASE)
    return text


def _shortened(match: "re.Match[str]") -> str:
    if "://" not in match[0]:
        return "…/"
    is_file = match[0].lower().startswith("file:")
    return f"…/{match[0].rpartition('/')[2]}" if is_file else match[0]


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such variable, no entry for the user, no such module (Windows)
        return ""
