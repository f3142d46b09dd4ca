"""A private folder of packages for the worker: chosen, filled by pip, repaired, removed. Standard library only.

The folder is for one kind of Python (``cp312-x86_64``), whichever Slicer or environment it belongs to, and has
everything that the worker imports beside the standard library: nothing of the Python's own packages is used or changed.
pip writes into an empty folder beside it; from there files are moved, the record of a package last. So a package is
there whole or not at all, whenever something is stopped.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, replace
from pathlib import Path

from ..codec import frozen
from ..errors import InputError, PackageError, counted, write_failure
from ..folders import PACKAGES_VARIABLE, locked, replace_text, user_folder
from ..progress import Progress, bytes_text
from ..requests.maintenance import WorkerSettings
from .packages import (
    FROM_EXTENSION,
    PackagePlan,
    PipTool,
    PlannedPackage,
    bundled_pip,
    canonical,
    file_bytes,
    has_whole_record,
    installed_version,
    missing_packages,
    planned_packages,
    recorded_files,
    requirement_name,
    shipped_requirements,
)

TORCH_INDEX_VARIABLE = "FOUNDATIONSEG_TORCH_INDEX"  # names a mirror of PyTorch's indexes
_TORCH_INDEX = "https://download.pytorch.org/whl"
# For each build of PyTorch the oldest driver that runs it (docs.nvidia.com, "CUDA Toolkit Release Notes", minor version
# compatibility). Cards older than Turing, of capability 7.5, are in the builds for CUDA 12.6 alone.
_BUILDS = ((580, "cu130"), (570, "cu128"), (525, "cu126"))
_NEWER_CARDS = (7, 5)
# Windows opens no longer path. Below the folder, the longest is one of transformers (126 characters, 2026) behind
# pip's own "cp312-amd64.new/pip-target-12345678/lib/python/".
_LONGEST_ON_WINDOWS = 259
_LONGEST_BELOW = 190
_UNPACKED = 3.5  # times what is downloaded: the archive, and what it holds
_ALWAYS = ("packaging",)  # tells whether a version will do
_DRIVER_TIMEOUT_S = 20.0


def packages_root() -> Path:
    """The folder that has a folder for each kind of Python, whether it exists or not; short, for Windows' sake."""
    return user_folder("cache", PACKAGES_VARIABLE, "FSeg")


def private_root(choice: str, folder: str, *, is_running: bool) -> Path | None:
    """The folder for private packages by a user's choice; None where the Python's own packages are used.

    Without a choice the running Python gets private packages, unless it has PyTorch already and nothing private.

    Args:
        choice: ``"private"``, ``"python"``, or empty for none.
        folder: the chosen folder; empty for the usual.
        is_running: the running Python is meant, and not another.
    """
    root = Path(folder).expanduser() if folder else packages_root()
    has_own = not is_running or (not PrivateFolder(root).has_packages and installed_version("torch") != "")
    return None if choice == "python" or (choice != "private" and has_own) else root


def python_tag() -> str:
    """The kind of the running Python: its version, its ABI and the processor, as ``cp312-x86_64``."""
    version = f"{sys.version_info.major}{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
    return f"cp{version}-{platform.machine().lower()}"


def require_short(root: Path, platform_name: str = sys.platform) -> None:
    """Make sure that every package's files have paths that Windows opens.

    Raises:
        InputError: the folder's own path is too long.
    """
    excess = len(str(root)) + _LONGEST_BELOW - _LONGEST_ON_WINDOWS
    if platform_name == "win32" and excess > 0:
        raise InputError(
            f"the path of the folder for packages is {excess} characters too long for Windows; choose a shorter one, "
            f"such as C:\\FSeg"
        )


def torch_build(driver: str) -> str:
    """Choose the build of PyTorch for a graphics driver.

    Args:
        driver: the text of :func:`driver_text`: of each card ``"driver version, compute capability"``; or any other
            text that names NVIDIA's driver. Empty for none.

    Returns:
        The last part of the address of PyTorch's index: ``"cu130"``, ``"cu128"``, ``"cu126"`` or ``"cpu"``.
    """
    versions = [int(text) for text in re.findall(r"(?<![\d.])(\d{3})\.\d{2,3}(?:\.\d{2})?(?![\d.])", driver)]
    cards = [(int(major), int(minor)) for major, minor in re.findall(r", *(\d{1,2})\.(\d)\b", driver)]
    is_older = bool(cards) and min(cards) < _NEWER_CARDS
    usable = (build for oldest, build in _BUILDS if versions and min(versions) >= oldest)
    return next((build for build in usable if build == "cu126" or not is_older), "cpu")


def driver_text(fields: str = "driver_version,compute_cap") -> str:
    """Ask NVIDIA's driver for its version and the capability of each card, or for others of its fields.

    A line has the fields of a card, with commas between them. Empty where there is no driver, or no answer.
    """
    program = shutil.which("nvidia-smi") or "nvidia-smi"
    query = (program, f"--query-gpu={fields}", "--format=csv,noheader")
    try:
        answer = subprocess.run(
            query,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DRIVER_TIMEOUT_S,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


@frozen
class PrivateFolder:
    """The packages for one kind of Python.

    Attributes:
        root: the folder that has a folder for each kind of Python.
        tag: the kind of Python.
        wheels: a folder of wheels that is used instead of any index; None for the indexes.
    """

    root: Path
    tag: str = field(default_factory=python_tag)
    wheels: Path | None = None

    @property
    def packages(self) -> Path:
        """The folder for the search path, whether it exists or not."""
        return self.root / self.tag

    @property
    def has_packages(self) -> bool:
        """True once something was installed."""
        return self._record.is_file()

    @property
    def _record(self) -> Path:
        return self.root / f"{self.tag}.json"

    @property
    def _staging(self) -> Path:
        return self.root / f"{self.tag}.new"

    def requirements(self) -> tuple[str, ...]:
        """The requirements that were installed, as the record has them; none where it cannot be read."""
        try:
            document = json.loads(self._record.read_text(encoding="utf-8"))
            return tuple(str(text) for text in document["requirements"])
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    def versions(self) -> dict[str, str]:
        """The versions of the packages that are whole, by their canonical names."""
        from importlib.metadata import Distribution  # here and below: it takes long to load

        records = self._records()
        distributions = {name: Distribution.at(path) for name, path in records if (path / "RECORD").is_file()}
        return {name: d.version for name, d in distributions.items() if has_whole_record(d)}

    def _records(self) -> list[tuple[str, Path]]:
        """List the canonical names and the records of all packages, broken ones, too."""
        return [(canonical(path.name.partition("-")[0]), path) for path in self.packages.glob("*.dist-info")]

    def tool(self, pip: PipTool, driver: Callable[[], str] = driver_text) -> PipTool:
        """Make a pip that looks in the folder of wheels, or also in PyTorch's index for a driver's build.

        The build that is there already is kept. On a Mac there is one build, which is in the usual index.
        """
        if self.wheels is not None:
            return replace(pip, options=("--no-index", "--find-links", str(self.wheels)), temporary=self._staging)
        if sys.platform == "darwin":
            return replace(pip, temporary=self._staging)
        build = self.versions().get("torch", "").partition("+")[2] or torch_build(driver())
        index = os.environ.get(TORCH_INDEX_VARIABLE) or _TORCH_INDEX
        return replace(pip, temporary=self._staging, extra_index=f"{index}/{build}")

    def plan(self, requirements: Sequence[str], pip: PipTool, progress: Progress) -> PackagePlan:
        """Find out what has to be installed so that all requirements are fulfilled, the earlier ones, too.

        ``pip`` is that of :meth:`tool`. Packages that are there stay as they are, unless a requirement does not allow
        their version.

        Raises:
            PackageError: there is no way.
            Cancelled: the user stopped it.
        """
        every = tuple(dict.fromkeys((*_ALWAYS, *self.requirements(), *requirements)))
        versions = self.versions()

        def version_of(name: str) -> str:
            return versions.get(canonical(name), "")

        refused = {canonical(requirement_name(text)) for text in missing_packages(every, version_of)}
        # A range of the shipped list holds for what comes indirectly, too.
        ranges = tuple(text for text in shipped_requirements() if not text.startswith("slicer-core"))
        constraints = (*ranges, *(f"{name}=={version}" for name, version in versions.items() if name not in refused))
        torch = [text for text in every if canonical(requirement_name(text)) in FROM_EXTENSION]
        dry = replace(pip, options=(*pip.options, "--ignore-installed"))
        if pip.extra_index and "torch" in refused:
            # Of PyTorch's index alone, since a newer release elsewhere would be for another driver; with torchvision,
            # which loads with the same build only.
            report = replace(dry, is_alone=True).report((*torch, "torchvision"), constraints, progress)
            coming = planned_packages(report, lambda _: "", lambda _: 0, progress)
            pins = (f"{p.name}=={p.version}" for p in coming if canonical(p.name) in FROM_EXTENSION)
            constraints = (*constraints, *pins)
        report = dry.report(every, constraints, progress)
        return PackagePlan(every, constraints, planned_packages(report, version_of, file_bytes, progress))

    @contextlib.contextmanager
    def open(self, progress: Progress) -> Iterator[None]:
        """Make the folder, and the empty one for pip; wait while another program installs here.

        Raises:
            PackageError: there is no way, no room, or no leave to write; what was there works as before.
            Cancelled: the user stopped it.
        """
        require_short(self.root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(self.root / f"{self.tag}.lock", progress):
                shutil.rmtree(self._staging, ignore_errors=True)  # of one that was cut off
                self._staging.mkdir()
                try:
                    yield
                finally:
                    shutil.rmtree(self._staging, ignore_errors=True)
        except OSError as error:
            raise PackageError(f"the folder for packages cannot be written: {write_failure(error)}") from error

    def install(self, plan: PackagePlan, pip: PipTool, progress: Progress) -> None:
        """Do what a plan says, in the open folder.

        Raises:
            PackageError: pip fails, or there is no room; what was there works as before.
            Cancelled: the user stopped it.
        """
        if plan.packages:
            self._require_room(plan)
            target = ("--no-deps", "--target", str(self._staging / "p"))
            exact = [f"{package.name}=={package.version}" for package in plan.packages]
            replace(pip, options=(*pip.options, *target)).install(exact, (), progress)
            progress.check()
            self._take_in(plan.packages)
        document = {"version": 1, "python": platform.python_version(), "requirements": plan.requirements}
        replace_text(self._record, json.dumps(document | {"packages": self.versions()}, indent=1))

    def change(self, requirements: Sequence[str], progress: Progress, *, is_plan: bool = False) -> PackagePlan:
        """Install what is missing, or only plan it, with the running Python's pip; without requirements, repair.

        Raises:
            PackageError: there is no way, no room, or no leave to write.
            Cancelled: the user stopped it.
        """
        # pip's ``packaging`` compares versions; a worker leaves installed packages out of the search path.
        sys.path.extend((*site.getsitepackages(), *map(str, bundled_pip())))
        with self.open(progress):
            pip = self.tool(PipTool())
            plan = self.plan(requirements, pip, progress)
            if not is_plan:
                self.install(plan, pip, progress)
        return plan

    def _require_room(self, plan: PackagePlan) -> None:
        needed, _ = room_and_minutes(sum(package.bytes for package in plan.packages))
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise PackageError(
                f"the packages need about {bytes_text(needed)}, and {bytes_text(free)} are free; make room on the "
                f"disk, or choose another folder for packages"
            )

    def _take_in(self, packages: Sequence[PlannedPackage]) -> None:
        """Move what pip has made into the folder; the record of each package is moved when its files are there."""
        names = {canonical(package.name) for package in packages}
        self.packages.mkdir(exist_ok=True)
        for name, record in self._records():
            if name in names:
                self._discard(record)
        made = self._staging / "p"
        records = {path for path in made.iterdir() if path.suffix == ".dist-info"}
        for path in sorted(path for path in made.rglob("*") if path.is_file() and not records & set(path.parents)):
            target = self.packages / path.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        for record in records:
            record.replace(self.packages / record.name)

    def _discard(self, record: Path) -> None:
        """Take a package away, its record first: from then on it does not count as installed."""
        from importlib.metadata import Distribution

        names = recorded_files(Distribution.at(record))
        record.replace(self._staging / record.name)
        for name in names:
            path = self.packages / name
            if ".." not in path.parts and path.is_relative_to(self.packages):  # scripts are noted as if elsewhere
                path.unlink(missing_ok=True)

    def remove(self, progress: Progress) -> int:
        """Remove the packages and their record. Returns the room that this frees, in bytes.

        Raises:
            PackageError: something cannot be removed, such as what another Slicer uses on Windows.
            Cancelled: the user stopped it while another program was installing.
        """
        if not self.root.is_dir():
            return 0
        try:
            with locked(self.root / f"{self.tag}.lock", progress):
                freed = folder_bytes(self.packages) + folder_bytes(self._staging)
                self._record.unlink(missing_ok=True)
                for folder in (self.packages, self._staging):
                    if folder.exists():
                        shutil.rmtree(folder)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            message = f"the packages cannot be removed ({reason}); close other Slicers that use them, and try again"
            raise PackageError(message) from error
        return freed


def private_folder(settings: WorkerSettings) -> PrivateFolder | None:
    """The private packages that the settings name; None for those of this Python."""
    root = settings.packages_folder
    return None if root is None else PrivateFolder(root, wheels=settings.wheels_folder)


def effort_text(plan: PackagePlan) -> str:
    """Say how much is downloaded, how much room that takes, and how long it is."""
    total, count = sum(package.bytes for package in plan.packages), counted(len(plan.packages), "package")
    if not total:
        return f"{count} to install"
    room, minutes = room_and_minutes(total)
    time = f"{counted(minutes, 'minute')} at 50 Mbit/s"
    return f"{count}, {bytes_text(total)} to download, {bytes_text(room)} on the disk, {time}"


def room_and_minutes(packages: int, weights: int = 0) -> tuple[int, int]:
    """Estimate the bytes on the disk, and the minutes at 50 Mbit/s, of packages and weights of so many bytes."""
    room = int(_UNPACKED * packages) + weights
    return room, max(1, round((8 * (packages + weights) + room) / 3e9))  # and 3 GB a minute to unpack


def folder_bytes(folder: Path) -> int:
    """The bytes of all files of a folder; 0 where there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def search_path(folder: Path, path: Sequence[str]) -> list[str]:
    """A search path for modules with a private folder behind the first entry, and without other installed packages."""
    kept = [entry for entry in path if Path(entry).name not in ("site-packages", "dist-packages")]
    return [*kept[:1], str(folder), *kept[1:]]
