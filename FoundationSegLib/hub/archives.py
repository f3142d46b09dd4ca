"""Folders and archives that hold checkpoints: what is in them, and reading it without trusting them."""

import contextlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from ..core.errors import CheckpointError
from .names import is_safe_path

_MAX_MEMBERS = 20_000
# What the standard library throws at archives that are cut off, changed, or encrypted (found by fuzzing it).
BAD_ARCHIVE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
)
Member = Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """True for the names of archives; a wheel of the Python Package Index is one too."""
    return path.name.lower().endswith((".zip", ".whl", ".tar", ".tar.gz", ".tgz"))


@contextlib.contextmanager
def members_of(path: Path, limit: int) -> Iterator[Mapping[str, Member]]:
    """What a folder or an archive holds: by path with forward slashes, a function that opens it for reading.

    Args:
        path: the folder or the archive.
        limit: how many bytes all files of an archive may have together; an archive can be small and hold terabytes.

    Raises:
        CheckpointError: it cannot be read; or an archive has links, names that lead out of it, or too much.
    """
    try:
        if path.is_dir():
            yield _in_folder(path)
        elif path.name.lower().endswith((".zip", ".whl")):
            with zipfile.ZipFile(path) as archive:
                yield _in_zip(archive, limit)
        elif is_archive(path):
            with tarfile.open(path) as archive:
                yield _in_tar(archive, limit)
        else:
            raise CheckpointError(f"{path.name} is neither a folder nor a .zip, .whl, .tar or .tar.gz file")
    except BAD_ARCHIVE as error:
        raise CheckpointError(f"{path.name} is damaged or no archive ({type(error).__name__})") from error
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or type(error).__name__}") from error


def _in_folder(folder: Path) -> dict[str, Member]:
    """The user's own folder: links in it are followed, as the Hugging Face cache is made of them."""
    found: dict[str, Member] = {}
    for path in folder.rglob("*"):
        if len(found) >= _MAX_MEMBERS:
            raise CheckpointError(f"{folder.name} holds too many files; name the folder of the checkpoint itself")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = _opener(path)
    return found


def _opener(path: Path) -> Member:
    return lambda: path.open("rb")


def _in_zip(archive: zipfile.ZipFile, limit: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    for info in archive.infolist():
        is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
        limit = _require_harmless(info.filename, is_link, info.file_size, limit, len(found))
        if not info.is_dir():
            found[_plain(info.filename)] = _zip_opener(archive, info)
    return found


def _zip_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    return lambda: archive.open(info)


def _in_tar(archive: tarfile.TarFile, limit: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    for info in archive:  # a length is looked at before the bytes behind it are unpacked to be skipped
        is_odd = not (info.isreg() or info.isdir())
        limit = _require_harmless(info.name, is_odd, info.size, limit, len(found))
        if info.isreg():
            found[_plain(info.name)] = _tar_opener(archive, info)
    return found


def _tar_opener(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    def open_member() -> IO[bytes]:
        stream = archive.extractfile(info)
        if stream is None:
            raise ValueError("no file")
        return stream

    return open_member


def _plain(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


def _require_harmless(name: str, is_link: bool, length: int, limit: int, count: int) -> int:
    """What is left of the limit."""
    if is_link:
        raise CheckpointError(f"the archive has a link in it ({name[:80]!r}), so it is not opened")
    if _plain(name) not in ("", ".") and not is_safe_path(_plain(name)):
        raise CheckpointError(f"the archive has a name in it that leads elsewhere ({name[:80]!r}), so it is not opened")
    if length < 0 or length > limit or count >= _MAX_MEMBERS:
        raise CheckpointError("the archive holds far more than the checkpoint, so it is not opened")
    return limit - length
