"""Processes beside Slicer: with which environment they start, and how they end with all their children."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_LIBRARY_PLACE = Path(__file__).resolve().parents[2]
# Nothing is reported to anybody, and nothing looked up in the network, but for downloads the user asked for.
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "ON", "YES", "TRUE")  # as the Hub's client reads it
_ENVIRONMENT = {
    **dict.fromkeys(_OFFLINE, "1"),
    # glibc would give the memory of every activation back to the system, and get it anew: an organ of 14 slices takes
    # 6.2 s instead of 6.8. Images, larger than the first number of bytes, are given back.
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**29),
    "MALLOC_TOP_PAD_": str(2**26),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONUTF8": "1",
}


def wants_offline(inherited: Mapping[str, str] | None = None) -> bool:
    """Whether the user's own offline mode is on: then nothing is downloaded, not even on request."""
    inherited = os.environ if inherited is None else inherited
    return any(inherited.get(name, "").upper() in _TRUE for name in _OFFLINE)


def environment(inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a process of ours starts with: it finds the library, reports nothing, and looks nothing up.

    Args:
        inherited: what it has from the process that starts it; all of that process's own, unless given.
    """
    offline, inherited = wants_offline(inherited), os.environ if inherited is None else inherited
    paths = [str(_LIBRARY_PLACE), *filter(None, [inherited.get("PYTHONPATH")])]
    # What the user asks to be downloaded may be, unless the user's own offline mode is on.
    allowed = {"FOUNDATIONSEG_ALLOW_DOWNLOAD": "0" if offline else "1"}
    return {**inherited, **_ENVIRONMENT, **allowed, "PYTHONPATH": os.pathsep.join(paths)}


def spawn(
    command: Sequence[str], output: IO[bytes], log: IO[bytes], inherited: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process with a group of its own: the terminal's Ctrl-C is not for it, and it ends with its children.

    Its standard input is a pipe.

    Raises:
        OSError: it cannot be started.
    """
    if sys.platform == "win32":
        # Without the first, a console would open before the user.
        apart: dict[str, Any] = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    else:
        apart = {"start_new_session": True}
    env = environment(inherited)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=log, env=env, **apart)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children; PythonSlicer may be a launcher, and the worker its child."""
    if sys.platform == "win32":
        if process.poll() is None:
            taskkill = Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "taskkill.exe")
            command = (str(taskkill), "/T", "/F", "/PID", str(process.pid))
            no_window = subprocess.CREATE_NO_WINDOW
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(command, capture_output=True, creationflags=no_window, check=False, timeout=2)
    else:
        # Also where it has ended: the group lives as long as one of its children does.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
