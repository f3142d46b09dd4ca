"""Set up and run: `demo` (the main job on a real image), `test`, `bench`, `lint`. Needs Python 3.11 to 3.13.

    python3 Testing/run.py demo [--cpu] [--volume FILE [--label FILE]]
    python3 Testing/run.py test [--cpu] [--full] [pytest arguments]
    python3 Testing/run.py bench [--cpu] [NAME] | bench click-path [FOLDER] [--functions]
    python3 Testing/run.py lint
    python3 Testing/run.py house [FOLDER] [--list]
    python3 Testing/run.py gpu [--here] [--device cuda|mps|cpu] [--small] [--only FAMILY ...] [--json FILE]

Everything is installed into `.venv` in the project's folder, once: only changed requirement files install again.
`--cpu` lets a new `.venv` take PyTorch's build for the CPU, which saves more than 4 GB on Linux.
`gpu` proves every adapter on a graphics card, with random weights; `--here` uses this Python and installs nothing.
`house` measures the structure of this checkout, or of another one in FOLDER; it needs nothing but Python.
"""

from __future__ import annotations  # an older Python must get as far as being refused

import ctypes
import hashlib
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LAUNCHER = PYTHON.with_name("foundationseg.cmd" if os.name == "nt" else "foundationseg")
REQUIREMENTS = (ROOT / "Resources" / "requirements.txt", ROOT / "Testing" / "requirements.txt")
OPTIONAL = ROOT / "Resources" / "requirements-optional.txt"  # for `test --full`
STAMP = VENV / "foundationseg-requirements.sha256"
OPTIONAL_STAMP = VENV / "foundationseg-requirements-optional.sha256"
PYTORCH_CPU = "https://download.pytorch.org/whl/cpu"  # as on pytorch.org/get-started/locally
OLDEST, NEWEST = (3, 11), (3, 13)  # slicer-core 5.12 has no packages for later ones
# What VTK's off-screen windows and PySide6 load on Linux: the library, and Debian's packages that bring it.
SYSTEM_LIBRARIES = {
    "libEGL.so.1": "libegl1 libgl1-mesa-dri",  # with a driver
    "libGL.so.1": "libgl1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libfontconfig.so.1": "libfontconfig1",  # brings a font
    "libdbus-1.so.3": "libdbus-1-3",
    "libglib-2.0.so.0": "libglib2.0-0",
}
COMMANDS = {
    "demo": ("-m", "Testing.demo"),
    "test": ("-m", "pytest"),
    "bench": ("-W", "ignore", "-m", "Testing.benchmarks"),
    "lint": (),
    "house": (),
    "gpu": ("-W", "ignore", "-m", "Testing.gpu"),
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__, file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    command, rest = arguments[0], [part for part in arguments[1:] if part != "--cpu"]
    if command == "house":
        return subprocess.call((sys.executable, str(ROOT / "Testing" / "house.py"), *rest))
    if command == "gpu" and "--here" in rest:
        rest.remove("--here")
        return subprocess.call((sys.executable, *COMMANDS["gpu"], *rest), cwd=ROOT)
    problem = check_machine()
    if problem:
        print(problem, file=sys.stderr)
        return 1
    if command == "demo" or rest[:1] == [
        "click-path"
    ]:  # run in the project's folder; the user names files from his own
        rest = [str(Path(part).absolute()) if Path(part).exists() else part for part in rest]
    try:
        set_up(cpu="--cpu" in arguments)
        if command == "test" and "--full" in rest:
            add_optional()
        if command == "test" and not {"--full", "-n"} & set(rest) and not any(name_of_test(part) for part in rest):
            # Two processes of one thread each; sets in parameters have to come in the same order in both.
            os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # tests start some hundred processes of the same sources
            rest = ["-n", "auto", "--dist", "loadgroup", *rest]
        return lint() if command == "lint" else run(*COMMANDS[command], *rest)
    except subprocess.CalledProcessError as error:
        print(f"run.py: the set-up failed with exit code {error.returncode}; the reason is above", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def check_machine() -> str | None:
    """What is missing on this machine, in a sentence, or None."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        oldest, newest = (".".join(map(str, version)) for version in (OLDEST, NEWEST))
        return f"run.py: Python {oldest} to {newest} is needed; this is {sys.version.split()[0]}"
    if importlib.util.find_spec("ensurepip") is None and not has_pip():
        return "run.py: Python's venv module is not complete; install it: apt-get install -y python3-venv"
    if sys.platform != "linux":
        return None
    missing = [packages for library, packages in SYSTEM_LIBRARIES.items() if not can_be_loaded(library)]
    if missing:
        return f"run.py: VTK and Qt need system libraries; install them: apt-get install -y {' '.join(missing)}"
    return None


def name_of_test(argument: str) -> bool:
    """True for an argument that names a test file, a folder, or a test in a file."""
    return (ROOT / argument.partition("::")[0]).exists()


def can_be_loaded(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def set_up(*, cpu: bool = False) -> None:
    """Make `.venv`, or bring it to the requirement files; nothing happens if they have not changed."""
    wanted = hashlib.sha256()
    wanted.update(sys.version.encode())
    for path in REQUIREMENTS:
        wanted.update(path.read_bytes())
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted.hexdigest():
        if not LAUNCHER.exists():  # of a set-up before there was one
            write_launcher()
        return
    is_large = sys.platform == "linux" and not cpu
    size = "about 7.5 GB on the disk, of which '--cpu' saves more than 4" if is_large else "about 3 GB on the disk"
    say(f"Setting up .venv, once: some minutes, and {size}")
    STAMP.unlink(missing_ok=True)
    say("1/3 making the environment")
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    elif not has_pip():
        subprocess.run((PYTHON, "-m", "ensurepip", "--upgrade"), check=True)
    if cpu and sys.platform == "linux":  # the ordinary builds of other systems are no larger
        install_cpu_torch()
    say("2/3 installing packages")
    pip_install(*(part for path in REQUIREMENTS for part in ("-r", path)))
    say("3/3 writing the command 'foundationseg'")
    write_launcher()
    STAMP.write_text(wanted.hexdigest())


def pip_install(*arguments: str | Path) -> None:
    """Install packages. On a terminal, pip shows each with its size and progress; logs stay short."""
    quiet = () if sys.stderr.isatty() else ("--quiet",)
    command = (PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *quiet, *arguments)
    subprocess.run(command, check=True, stdout=sys.stderr)


def install_cpu_torch() -> None:
    """Install PyTorch's build for the CPU; where it cannot be had, say that the ordinary one follows."""
    lines = REQUIREMENTS[0].read_text(encoding="utf-8").splitlines()
    say(f"    PyTorch's build for the CPU, from {PYTORCH_CPU}")
    try:
        options = ("--retries", "1", "--timeout", "15", "--index-url", PYTORCH_CPU)
        pip_install(*options, *(line for line in lines if line.startswith("torch")))
    except subprocess.CalledProcessError:
        say("    it cannot be had: the ordinary build is installed, which computes on the CPU too and takes 4 GB more")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def write_launcher() -> None:
    """Write the command `foundationseg`, which runs this folder's FoundationSeg from any folder, into `.venv`."""
    start = "runpy.run_module('FoundationSegLib', run_name='__main__')"
    code = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); {start}"
    if os.name == "nt":
        LAUNCHER.write_text(f'@"%~dp0python.exe" -c "{code}" %*\n')
        return
    # A shell's, since the line that names a program allows no spaces.
    LAUNCHER.write_text(f'#!/bin/sh\nexec {shlex.quote(str(PYTHON))} -P -c {shlex.quote(code)} "$@"\n')
    LAUNCHER.chmod(0o755)


def add_optional() -> None:
    """Add the packages of single models; what is there stays, or nothing is installed: torch, torchvision, numpy."""
    wanted = STAMP.read_text() + hashlib.sha256(OPTIONAL.read_bytes()).hexdigest()
    if OPTIONAL_STAMP.exists() and OPTIONAL_STAMP.read_text() == wanted:
        return
    say("Adding the optional packages to .venv (some minutes)")
    OPTIONAL_STAMP.unlink(missing_ok=True)
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check")
    held = subprocess.run((*pip, "freeze"), check=True, capture_output=True, text=True).stdout
    constraints = VENV / "foundationseg-constraints.txt"
    constraints.write_text("".join(f"{line}\n" for line in held.splitlines() if "==" in line))
    pip_install("-r", OPTIONAL, "-c", constraints)
    OPTIONAL_STAMP.write_text(wanted)


def has_pip() -> bool:
    """True for an environment that can install; one whose making was interrupted has a Python and no pip."""
    command = (PYTHON, "-m", "pip", "--version")
    return PYTHON.exists() and subprocess.run(command, capture_output=True).returncode == 0


def lint() -> int:
    """Style and format; the first that complains decides."""
    return run("-m", "ruff", "check", ".") or run("-m", "ruff", "format", "--check", ".")


def run(*arguments: str) -> int:
    """Run the environment's Python in the project's folder; return its exit code, 128 + n where signal n ended it."""
    process = subprocess.Popen((PYTHON, *arguments), cwd=ROOT)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:  # the child got it too, and says how it ends
            continue
    if code >= 0:
        return code
    say(f"run.py: {arguments[-1]} was ended by signal {-code} ({signal.strsignal(-code)})")
    return 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
