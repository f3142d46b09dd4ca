"""Python packages of a model: requirements, a plan shown first, and refusals where it would do harm."""

import contextlib
import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..codec import from_document, frozen, to_document
from ..errors import Cancelled, DocumentError, PackageError, PackageMissingError, logged_disk_error, write_failure
from ..folders import user_folder
from ..progress import Progress, ProgressReport

if TYPE_CHECKING:  # this file is read by Pythons that have no numpy yet
    from importlib.metadata import Distribution

    from ..catalog.model_cards import ModelCard

# What a worker needs beside its models' packages. numpy, for it does not start without; Slicer has it.
_OF_EVERY_WORKER = ("numpy",)
_OF_DOWNLOADS = ("huggingface_hub",)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"^Version: *(\S+)\s*$", re.MULTILINE)


def requirement_name(requirement: str) -> str:
    """The package that a requirement is about.

    Raises:
        PackageError: it names none.
    """
    match = _NAME.match(requirement.strip())
    if match is None:
        raise PackageError(f"{requirement[:80]!r} names no package")
    return match[0]


@lru_cache(maxsize=512)
def is_satisfied(requirement: str, version: str) -> bool:
    """True for an installed version that a requirement allows; no version, ``""``, never is.

    What is before a release, after it or local to a computer (``2.9.1rc1``, ``2.8.0+cu128``) counts as the release.
    Read by the package ``packaging``, or by pip's own copy of it where a Python has nothing else.
    """
    if not version:
        return False
    try:
        from packaging.requirements import Requirement
        from packaging.version import InvalidVersion, Version
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement
        from pip._vendor.packaging.version import InvalidVersion, Version
    try:
        return Requirement(requirement).specifier.contains(Version(version).base_version)
    except InvalidVersion:
        return False


def requirements_of(card: "ModelCard", *, to_download: bool) -> tuple[str, ...]:
    """Everything that the Python which runs a model needs, each package once.

    Args:
        card: the model.
        to_download: the checkpoint has still to be fetched, which files from the Hub or a release need a client for.
    """
    own = list(card.packages)
    extra = _OF_EVERY_WORKER + (_OF_DOWNLOADS if to_download and card.source.comes_in_files else ())
    names = {requirement_name(text) for text in own}
    shipped = {requirement_name(text): text for text in shipped_requirements()}
    return (*own, *(shipped.get(name, name) for name in extra if name not in names))


@cache
def shipped_requirements() -> tuple[str, ...]:
    """The lines of ``Resources/requirements.txt``, which has the version ranges that this version was tested with."""
    path = Path(__file__).resolve().parents[2] / "Resources" / "requirements.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PackageError("the list of packages is missing; install FoundationSeg again") from error
    return tuple(line.strip() for line in lines if _NAME.match(line.strip()))


KEPT = ("torch", "torchvision", "numpy", "SimpleITK", "requests")
FROM_EXTENSION = ("torch", "torchvision")  # in Slicer, the PyTorch extension installs them, and nobody else
INSTALLATIONS_VARIABLE = "FOUNDATIONSEG_INSTALLATIONS"  # names another folder for the notes about installations
_POLL_S = 0.1
_PLACING = "Installing collected packages"  # pip's word when it begins to change what is installed
_PLACING_S = 50.0  # torch, from a slow disk
_INTERRUPT_S = 5.0
_SIZE_TIMEOUT_S = 5.0
_PIP_PLACES = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER")


@frozen
class PlannedPackage:
    """A package that would be installed. ``installed`` is the version it would replace, empty where there is none;
    ``bytes`` is what has to be downloaded, 0 where nobody says."""

    name: str
    version: str
    installed: str
    bytes: int


@frozen
class PackagePlan:
    """Packages that pip would install for a model.

    Attributes:
        requirements: what the model asks for.
        constraints: what has to stay as it is, as pip writes it.
        packages: what would be installed.
    """

    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    packages: tuple[PlannedPackage, ...]

    @property
    def harms(self) -> tuple[PlannedPackage, ...]:
        """The packages that have to stay and would be replaced."""
        protected = {canonical(name) for name in KEPT}
        return tuple(planned for planned in self.packages if planned.installed and canonical(planned.name) in protected)


class PackageTool(Protocol):
    """Something that installs packages: pip, or Slicer."""

    def report(self, requirements: Sequence[str], constraints: Sequence[str], progress: Progress) -> Any:
        """Ask pip for its report of an installation: https://pip.pypa.io/en/stable/reference/installation-report/"""

    def install(self, requirements: Sequence[str], constraints: Sequence[str], progress: Progress) -> None:
        """Install."""


def canonical(name: str) -> str:
    """A package's name as it is compared: https://packaging.python.org/specifications/name-normalization/"""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_version(name: str, folder: Path | None = None) -> str:
    """The installed version of a package, of this Python or of a folder; empty where it is not installed."""
    import importlib.metadata  # here and below: it takes longer to load than all of this file

    path = sys.path if folder is None else [str(folder)]
    package = next(iter(importlib.metadata.distributions(name=name, path=path)), None)
    if package is None:
        return ""
    # Python's own `version` parses the whole record, long descriptions too, which takes five times as long.
    found = _VERSION.search((package.read_text("METADATA") or "").partition("\n\n")[0])
    return found[1] if found else package.version or ""


def missing_packages(requirements: Sequence[str], version_of: Callable[[str], str] = installed_version) -> list[str]:
    """The requirements whose package is not installed, or in a version that is not allowed; nobody is asked.

    ``version_of`` gives the installed version by the name that a requirement uses; empty where there is none.
    """
    return [text for text in requirements if not is_satisfied(text, version_of(requirement_name(text)))]


def pip_command(requirements: Sequence[str]) -> str:
    """The command that installs packages by hand.

    In quotes that POSIX's shells and Windows's both know: the ``>`` of a version range would be a redirection.
    """
    return " ".join(("pip install", *(f'"{requirement}"' for requirement in requirements)))


def unusable_package(title: str, error: ImportError, requirements: Sequence[str]) -> PackageError:
    """The error for a model that cannot be loaded because an import failed: a package is absent, too old or broken.

    Only what is missing is to be installed: what is there may have to stay as it is.
    """
    module, missing = str(error.name or "that it imports"), missing_packages(requirements)
    if missing or isinstance(error, ModuleNotFoundError):
        remedy = f"install it with: {pip_command(missing or (module,))}"
        return PackageMissingError(f"{title} needs the Python package {module}; {remedy}")
    return PackageError(f"{title} cannot use the Python package {module} ({error}); install it again")


def plan_packages(
    requirements: Sequence[str],
    tool: PackageTool,
    progress: Progress,
    version_of: Callable[[str], str] = installed_version,
    size_of: Callable[[str], int] | None = None,
) -> PackagePlan:
    """Find out what installing packages would do; nothing is installed.

    Args:
        requirements: as pip takes them.
        tool: what would install them.
        progress: what stops it.
        version_of: the installed version of a package, empty for none.
        size_of: how large the file at an address is, in bytes.

    Raises:
        PackageError: there is no way to install them.
        Cancelled: the user stopped it.
    """
    for requirement in requirements:
        requirement_name(requirement)  # an option of pip's in a card is none
    constraints = tuple(f"{name}=={version}" for name in KEPT if (version := version_of(name)))
    report = tool.report(requirements, constraints, progress)
    planned = planned_packages(report, version_of, size_of or file_bytes, progress)
    return PackagePlan(tuple(requirements), constraints, planned)


def planned_packages(
    report: Any, version_of: Callable[[str], str], size_of: Callable[[str], int], progress: Progress
) -> tuple[PlannedPackage, ...]:
    """Read the packages in pip's report of an installation; those that are there in the same version are left out.

    Raises:
        PackageError: it is no such report.
    """
    planned = []
    try:
        for entry in report["install"]:
            progress.check()
            name, version = str(entry["metadata"]["name"]), str(entry["metadata"]["version"])
            installed, url = version_of(name), str(entry["download_info"]["url"])
            if installed != version:
                planned.append(PlannedPackage(name, version, installed, size_of(url)))
    except (KeyError, TypeError, AttributeError) as error:
        raise PackageError("pip's report is not one that this version understands; update pip") from error
    return tuple(planned)


def install_packages(plan: PackagePlan, tool: PackageTool, progress: Progress) -> None:
    """Do what a plan says.

    Raises:
        PackageError: it would replace a package that has to stay, or it fails.
        Cancelled: the user stopped it.
    """
    if plan.harms:
        changes = ", ".join(f"{package.name} {package.installed} -> {package.version}" for package in plan.harms)
        raise PackageError(f"the packages would replace what is installed ({changes}), so nothing was installed")
    if plan.packages:
        tool.install(plan.requirements, plan.constraints, progress)


def interrupted_installation() -> Path:
    """The note about an installation in the running Python; it is there while one is under way, or was cut off."""
    folder = user_folder("cache", INSTALLATIONS_VARIABLE, "FoundationSeg/installations")
    return folder / f"{hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]}.json"


@contextlib.contextmanager
def noted_installation(note: Path, plan: PackagePlan) -> Iterator[None]:
    """Keep a note about an installation until pip has done it; :func:`repair_installation` reads it.

    Pip puts back what it had taken away, unless somebody killed it: what is whole by then is left alone.
    """
    with contextlib.suppress(OSError):  # without a note, a cut is not repaired; that is no reason not to install
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(to_document(plan)), encoding="utf-8")
    yield
    note.unlink(missing_ok=True)


def repair_installation(
    note: Path,
    reinstall: Callable[[Sequence[str], Progress], None],
    progress: Progress,
    is_whole: Callable[[str], bool] | None = None,
) -> tuple[str, ...]:
    """Install again what an installation that was cut off has left broken; the requirements that were.

    Args:
        note: the note of :func:`noted_installation`; without one there is nothing to repair.
        reinstall: installs requirements without what they need in turn, whatever is there.
        progress: stops it.
        is_whole: tells whether a package is installed with all its files.

    Raises:
        PackageError: they cannot be installed; the note stays for the next time.
        Cancelled: the user stopped it.
    """
    try:
        plan = from_document(PackagePlan, json.loads(note.read_text(encoding="utf-8")), "installation")
    except OSError:
        return ()
    except (ValueError, DocumentError):  # half written, before anything was changed
        note.unlink(missing_ok=True)
        return ()
    # A new package that is not there at all is not broken: whoever needs it asks for it again.
    there = [package for package in plan.packages if package.installed or installed_version(package.name)]
    is_whole = is_whole or has_all_files
    broken = tuple(f"{package.name}=={package.version}" for package in there if not is_whole(package.name))
    if broken:
        reinstall(broken, progress)
    note.unlink(missing_ok=True)
    return broken


def has_all_files(name: str) -> bool:
    """True where a package is installed, with all the files that its record names."""
    import importlib.metadata

    try:
        return has_whole_record(importlib.metadata.distribution(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def recorded_files(distribution: "Distribution") -> list[str]:
    """List the files that a distribution's record names, those that are missing, too."""
    # Its ``files`` leave these out, from Python 3.12 on.
    return [row[0] for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()) if row]


def has_whole_record(distribution: "Distribution") -> bool:
    """True where all the files are there that a distribution's record names, beside programs and compiled code."""
    names = (name for name in recorded_files(distribution) if not name.endswith(".pyc") and ".." not in name.split("/"))
    return all(Path(str(distribution.locate_file(name))).exists() for name in names)


def bundled_pip() -> list[Path]:
    """List the wheels of pip that the running Python brings along, one or none; they are usable as they are."""
    return list(Path(sysconfig.get_path("stdlib")).glob("ensurepip/_bundled/pip-*.whl"))


def file_bytes(url: str) -> int:
    """Size of the file at an address, in bytes; 0 where the server does not say."""
    if not url.startswith(("http://", "https://")):
        return 0
    import urllib.request  # for a tenth of a worker's start, which seldom asks

    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=_SIZE_TIMEOUT_S) as answer:
            return int(answer.headers.get("Content-Length") or 0)
    except (OSError, ValueError):
        return 0


@frozen
class PipTool:
    """pip, of a given Python. What it prints while it works is the item of the progress reports, line by line.

    Attributes:
        python: the program.
        options: options of every run, such as those that name an index.
        temporary: the folder that pip works in, and nothing else decides where it installs; None for the usual.
        extra_index: the address of an index beside those that the user has configured; empty for none.
        is_alone: that index is used alone.
    """

    python: str = sys.executable
    options: tuple[str, ...] = ()
    temporary: Path | None = None
    extra_index: str = ""
    is_alone: bool = False

    def report(self, requirements: Sequence[str], constraints: Sequence[str], progress: Progress) -> Any:
        """Plan the installation with pip.

        Raises:
            PackageError: pip finds no way.
            Cancelled: the user stopped it.
        """
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            self._run(("--dry-run", "--report", str(report)), requirements, constraints, progress)
            try:
                return json.loads(report.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                message = "pip gives no report of what it would install; update pip to 22.2 or later"
                raise PackageError(message) from error

    def install(self, requirements: Sequence[str], constraints: Sequence[str], progress: Progress) -> None:
        """Install with pip.

        Raises:
            PackageError: pip fails.
            Cancelled: the user stopped it.
        """
        self._run((), requirements, constraints, progress)

    def reinstall(self, requirements: Sequence[str], progress: Progress) -> None:
        """Install requirements again, without what they need in turn. Raises as :meth:`install`."""
        self._run(("--force-reinstall", "--no-deps"), requirements, (), progress)

    def _run(
        self, options: Sequence[str], requirements: Sequence[str], constraints: Sequence[str], progress: Progress
    ) -> None:
        usual = ("pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off")
        with tempfile.TemporaryDirectory() as name:
            constraints_file, log = Path(name) / "constraints.txt", Path(name) / "log.txt"
            constraints_file.write_text("".join(f"{line}\n" for line in constraints), encoding="utf-8")
            log.touch()
            extra = ("--extra-index-url", self.extra_index) if self.extra_index and not self.is_alone else ()
            last = (*self.options, *extra, *options, "--constraint", str(constraints_file), "--", *requirements)
            code = _wait((self.python, "-m", *usual, *last), log, progress, self._environment())
            if code and "No module named pip" in log.read_text(encoding="utf-8", errors="replace"):
                # An environment of uv has none; Python itself brings a copy, which runs without being installed.
                for wheel in bundled_pip():
                    code = _wait((self.python, f"{wheel}/pip", *usual[1:], *last), log, progress, self._environment())
            if code:
                raise PackageError(_reason(log.read_text(encoding="utf-8", errors="replace")))

    def _environment(self) -> dict[str, str]:
        if self.temporary is None:
            return dict(os.environ)
        kept = {name: text for name, text in os.environ.items() if name not in _PIP_PLACES}
        kept |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary))
        kept["PYTHONDONTWRITEBYTECODE"] = "1"  # pip's own would go into the packages of the Python that runs it
        # A variable takes the place of what a file configures; an option is only added to it.
        return kept | dict.fromkeys(("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL") if self.is_alone else (), self.extra_index)


def _wait(command: Sequence[str], log: Path, progress: Progress, environment: Mapping[str, str]) -> int:
    no_window = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows would open a console
    # Opened twice: a place that both processes share would be moved by reading.
    with log.open("wb") as writing, log.open("rb") as reading:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.STDOUT,
            creationflags=no_window,
            env=environment,
        )
        reported, line, rest, collected = None, "", b"", 0
        total = sum("==" in text for text in command)  # the packages that are named with their versions
        try:
            while process.poll() is None:
                *whole, rest = (rest + reading.read()).split(b"\n")
                line = next((text.decode(errors="replace").strip() for text in reversed(whole) if text.strip()), line)
                collected += sum(text.startswith(b"Collecting ") for text in whole)
                progress.check()
                if line != reported:
                    progress.report(ProgressReport("packages", min(collected, total), total, line))
                    reported = line
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
        except Cancelled:
            _stop_softly(process, log)
            raise
        finally:
            process.kill()
            process.wait()
    return process.returncode


def _stop_softly(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Let pip end: while it puts files into their places by itself, before that by a Ctrl-C.

    A package of which half the files are there, or which was taken away for its newer version, would harm.
    """
    is_placing = _PLACING in log.read_text(encoding="utf-8", errors="replace")
    if sys.platform != "win32" and not is_placing:
        process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_PLACING_S if is_placing else _INTERRUPT_S)


def _reason(log: str) -> str:
    lines = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    if "No module named pip" in log:
        lines = ["this Python has no pip"]
    if "externally-managed-environment" in log:
        lines = ["the packages of this Python belong to the operating system; make one with 'python3 -m venv'"]
    if full := logged_disk_error(log):
        lines = [write_failure(full)]
    reason = f" (pip: {lines[-1][:200]})" if lines else ""
    return f"the packages cannot be installed{reason}; nothing that has to stay was changed"
