"""Cases of a cohort: from a folder, a glob, a table, DICOM studies or a BIDS data set; known by their content."""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..folders import image_name, is_safe_name

_TABLES = (".csv", ".tsv")
_IMAGES = re.compile(r"\.(nii|nii\.gz|nrrd|nhdr|mha|mhd|hdr|img\.gz|gipl|gipl\.gz|png|jpe?g|bmp|tiff?)$", re.IGNORECASE)
_SEGMENTATIONS = re.compile(r"\.seg\.(nrrd|nhdr)$", re.IGNORECASE)
_DICOM = re.compile(r"(\.dcm|\.ima|^[^.]+|^[0-9.]+)$", re.IGNORECASE)  # many files of archives have no ending
# https://bids-specification.readthedocs.io: label maps of a data set, and the folders whose images are series in time.
_BIDS_LABELS = re.compile(r"_(dseg|mask|probseg|label-[^_]*)\.nii(\.gz)?$")
_BIDS_IN_TIME = ("func", "dwi", "fmap", "perf", "eeg", "meg", "beh")
_PREAMBLE = 128


@dataclass(frozen=True, slots=True)
class Case:
    """An image of a cohort and what belongs to it.

    Attributes:
        name: the name of its results, without an ending; no other case of the cohort has it.
        image: the file, or the folder with DICOM images.
        series: in a folder, the series' UID.
        prompts: its own prompts file; None for that of the whole cohort.
        patient: the patient that a table or a data set names; empty without one.
    """

    name: str
    image: Path
    series: str | None = None
    prompts: Path | None = None
    patient: str = ""


def find_cases(
    inputs: Sequence[Path], *, leave_out: Path | None = None, report: Callable[[int], object] = id
) -> tuple[Case, ...]:
    """List the cases of a cohort, each with a name of its own.

    Args:
        inputs: files, folders, globs and tables (.csv, .tsv: ``image``, and where wanted ``case``, ``series``,
            ``prompts``, ``patient``). A folder is searched with those below it; one with a
            ``dataset_description.json`` is read as a BIDS data set.
        leave_out: the folder of the results, which may lie among the images; None for none.
        report: called with the number of cases so far.

    Raises:
        InputError: a table that cannot be read, a name twice in it, or no case at all.
    """
    cases: list[Case] = []
    for case in _unnamed(inputs, leave_out and leave_out.resolve()):
        cases.append(case)
        report(len(cases))
    if not cases:
        raise InputError(f"no image was found in {', '.join(path.name or str(path) for path in inputs)}")
    return tuple(_with_own_names(cases))


def _unnamed(inputs: Sequence[Path], leave_out: Path | None) -> Iterator[Case]:
    for path in inputs:
        if path.is_dir():
            yield from (
                _bids_cases(path) if (path / "dataset_description.json").is_file() else _folder_cases(path, leave_out)
            )
        elif path.suffix.lower() in _TABLES:
            yield from _table_cases(path)
        elif path.is_file():
            yield Case(image_name(path), path)
        else:
            whole = path.absolute()
            matches = sorted(Path(whole.anchor).glob(str(whole.relative_to(whole.anchor))))
            if not matches:
                raise InputError(f"{path.name} does not exist, and no file fits it as a pattern")
            yield from _unnamed([match for match in matches if _may_be_case(match)], leave_out)


def _may_be_case(path: Path) -> bool:
    return path.is_dir() or (bool(_IMAGES.search(path.name)) and not _SEGMENTATIONS.search(path.name))


def _folder_cases(root: Path, leave_out: Path | None) -> Iterator[Case]:
    """Yield the images of a folder and those below it, and each series of DICOM images in one folder."""
    folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        if leave_out in (folder.resolve(), *folder.resolve().parents):
            continue
        try:
            files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        except OSError as error:
            raise InputError(f"the folder {folder.name} cannot be read: {error.strerror}") from error
        for path in filter(_may_be_case, files):
            yield Case(_name_below(root, path.with_name(image_name(path))), path)
        if any(_is_dicom(path) for path in files):
            yield from _series_cases(root, folder)


def _series_cases(root: Path, folder: Path) -> Iterator[Case]:
    from ..io.dicom import find_series

    series = find_series(folder)
    name = _name_below(root, folder) or folder.name
    for n, one_series in enumerate(series, start=1):
        yield Case(name if len(series) == 1 else f"{name}-{n}", folder, one_series.uid)


def _name_below(root: Path, path: Path) -> str:
    return "_".join(path.relative_to(root).parts)


def _is_dicom(path: Path) -> bool:
    if not _DICOM.search(path.name):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_PREAMBLE + 4)
    except OSError:
        return False
    return head[_PREAMBLE:] == b"DICM"


def _bids_cases(root: Path) -> Iterator[Case]:
    """Yield the images of a BIDS data set but for label maps, derivatives and series in time."""
    for path in sorted(root.glob("sub-*/**/*.nii*")):
        in_time = set(_BIDS_IN_TIME) & set(path.relative_to(root).parts)
        if not in_time and _may_be_case(path) and not _BIDS_LABELS.search(path.name):
            yield Case(image_name(path), path, patient=path.relative_to(root).parts[0].removeprefix("sub-"))


def read_table(table: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Read a table of cases: the number of each line, and its cells without space around them by their columns.

    Args:
        table: values separated by commas, or by tabs in a .tsv, in UTF-8.
        columns: names in small letters; the table has them all, in small letters or capitals.

    Raises:
        InputError: the table cannot be read, or lacks a column.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if table.suffix.lower() == ".tsv" else ",", strict=True)
            header = [name.strip().lower() for name in next(reader, ())]
            cells = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise InputError(f"{table.name} cannot be read: {error.strerror or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{table.name} is no table in UTF-8: {error}") from error
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(f"{table.name} has no column {missing[0]!r}; it needs {', '.join(columns)}")
    blank = dict.fromkeys(header, "")
    return [(n, blank | dict(zip(header, map(str.strip, row), strict=False))) for n, row in cells]


def _table_cases(table: Path) -> Iterator[Case]:
    names = set()
    for line, values in read_table(table, ("image",)):
        if not values["image"]:
            raise InputError(f"{table.name}, line {line}: no image")
        image = table.parent / values["image"]
        prompts = table.parent / values["prompts"] if values.get("prompts") else None
        name = values.get("case") or image_name(image)
        if values.get("case") and name in names:
            raise InputError(f"{table.name}, line {line}: there is another case {name!r}")
        names.add(name)
        yield Case(name, image, values.get("series") or None, prompts, values.get("patient", ""))


def _with_own_names(cases: Iterable[Case]) -> Iterator[Case]:
    """Make the names safe as file names; of equal ones, the later get a number."""
    taken: set[str] = set()
    for case in cases:
        name = re.sub(r"[^A-Za-z0-9._+-]+", "_", case.name).strip("._ ")[:100] or "case"
        name = name if is_safe_name(name) else f"case-{name}"
        number, own = 1, name
        while own.lower() in taken:  # some file systems do not tell capitals apart
            number += 1
            own = f"{name}-{number}"
        taken.add(own.lower())
        yield replace(case, name=own)


def files_of(case: Case) -> tuple[Path, ...]:
    """List the files that hold an image: several for a series, and for formats of a header and voxels beside it.

    Raises:
        InputError: there is no such file, series, or folder.
    """
    if case.image.is_dir():
        from ..io.dicom import choose_series, find_series

        series = choose_series(find_series(case.image), case.series)
        return tuple(header.path for header in series.slices)
    if not case.image.is_file():
        raise InputError(f"{case.image.name} does not exist")
    if case.image.suffix.lower() not in (".mhd", ".nhdr", ".hdr", ".img"):
        return (case.image,)
    stem = image_name(case.image)
    return tuple(sorted(path for path in case.image.parent.iterdir() if path.is_file() and image_name(path) == stem))


def content_key(case: Case, settings: str, more: Sequence[Path] = ()) -> str:
    """Return the hash of what a result depends on: the bytes of the image and of ``more`` files, and the settings.

    Names and folders have no part in it, so that a case that was moved stays what it is.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    whole = hashlib.sha256(settings.encode())
    for path in (*files_of(case), *more):
        try:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(f"{path.name} cannot be read: {error.strerror}") from error
    return whole.hexdigest()


def stamp(case: Case, settings: str, more: Sequence[Path] = ()) -> str:
    """Return a hash of settings, places, sizes and times of change: where it is as before, so is the content.

    Cheap, since no file is opened. Empty where a file is missing.
    """
    paths = sorted(case.image.iterdir()) if case.image.is_dir() else [case.image]
    try:
        states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in (*paths, *more)]
    except OSError:
        return ""
    return hashlib.sha256(repr((settings, case.series, states)).encode()).hexdigest()
