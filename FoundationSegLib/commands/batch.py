"""`batch`: a cohort in; for each case a result and a report, and for all of them a table and a page to look over."""

import argparse
import contextlib
import copy
import functools
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..catalog.catalogue import require_adapter
from ..catalog.model_cards import ModelCard, find_card
from ..cohorts.cases import Case, content_key, files_of, find_cases, stamp
from ..cohorts.cluster import ClusterSize, Outcome, choose_size, compute, import_distributed, join_cluster, open_cluster
from ..errors import Cancelled, InferenceError, InputError, MemoryShortageError, OutputError, write_failure
from ..folders import TEMPORARY, Locked, locked, replace_atomically
from ..hub.store import Store, default_store_folder
from ..page import THUMBNAIL_PX, Card, contact_sheet, thumbnail
from ..progress import ProgressReport, bytes_of, bytes_text
from ..prompts.capabilities import require_task
from ..requests.classification_answer import MOST_SHOWN, csv_text
from ..requests.heads import head_path, read_head
from ..requests.maintenance import WorkerSettings
from ..worker.client import Client, InlineClient
from ..worker.process_client import ProcessClient
from . import classify, pacs, segment
from .arguments import (
    ALL_FRAMES,
    add_model_arguments,
    add_prompt_arguments,
    mask_files,
    path_argument,
    read_prompt_options,
)
from .models import require_checkpoint
from .outputs import ProgressLine, one_line, report_text, say, text_writers, write_together

FORMATS = ("seg.nrrd", "nii.gz", "nrrd", "dcm")
TABLE, PAGE, STUDIES = "cohort.csv", "cohort.html", "studies"
DONE, FAILED = "done", "failed"
# Options that change no voxel and no score.
_WITHOUT_EFFECT = (
    *("inputs", "output", "scheduler", "workers", "insecure", "with_patient", "download", "debug", "device"),
    *("memory_limit", "measurements", "prompts", "run", "connect", "catalogue", "pip", "command"),
    *("pacs", "study", "send"),
)
_SAVE_S = 10.0  # the table is written this often while the cluster computes
# An image is read, converted and kept in the engine: this many times its voxels' bytes.
_COPIES = 3


@dataclass(frozen=True, slots=True)
class CaseTask:
    """A case as a worker gets it.

    Attributes:
        case: the case.
        options: of `segment` or `classify`; the image and the files of the result are still to be named.
        folder: that of the results.
        settings: what determines the result beside image and files, as a hash.
        files: other files that it depends on: prompts, and masks in them.
        worker_bytes: the memory of a worker; None where it is not known.
        connect: makes the client that computes; None for an engine in the worker itself.
        catalogue: reads the cards of the models.
    """

    case: Case
    options: argparse.Namespace
    folder: Path
    settings: str
    files: tuple[Path, ...]
    worker_bytes: int | None
    connect: Callable[[WorkerSettings], Client] | None
    catalogue: Callable[[], Mapping[str, ModelCard]]

    @property
    def report(self) -> Path:
        """The report of the case, which is written last: where it is, everything is."""
        return self.folder / f"{self.case.name}.json"

    @property
    def picture(self) -> Path:
        """The picture of the case."""
        return self.folder / f"{self.case.name}.jpg"

    @property
    def result(self) -> Path | None:
        """The file with the segments; None for a classification."""
        kind = getattr(self.options, "format", None)
        return self.folder / f"{self.case.name}.{kind}" if kind else None

    @property
    def is_there(self) -> bool:
        """True where no file of the result is missing."""
        paths = [self.report, self.picture, self.result]
        if self.result is not None and self.options.measurements:
            paths.append(segment.measurements_path(self.result))
        return all(path.is_file() for path in paths if path is not None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "inputs",
        metavar="INPUTS",
        nargs="*",
        type=path_argument,
        help="folders, images, or a table (column 'image')",
    )
    parser.add_argument("--pacs", metavar="URL", help="fetch the images of an archive: https://HOST/PATH (DICOMweb)")
    parser.add_argument("--study", metavar="UID", action="append", default=[], help="of the archive; once for each")
    parser.add_argument("--send", action="store_true", help="store the segmentations in the archive (--format dcm)")
    parser.add_argument("--model", metavar="ID", required=True, help="a model of 'foundationseg models list'")
    add_prompt_arguments(parser)
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument("--label-set", metavar="ID", help="classify with these labels")
    labels.add_argument("--label", metavar="TEXT", action="append", help="classify with your own labels; once for each")
    labels.add_argument("--head", metavar="NAME", help="classify with labels that were learned")
    parser.add_argument("--output", metavar="FOLDER", type=path_argument, required=True, help="where the results go")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the segmentations (seg.nrrd)")
    segment.add_method_arguments(parser)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster that runs already: tls://HOST:PORT")
    parser.add_argument("--insecure", action="store_true", help="allow a scheduler that does not encrypt")
    parser.add_argument("--workers", metavar="N", type=int, help="how many cases at once on this machine")
    parser.add_argument("--with-patient", action="store_true", help="put the patient of a table into the results")
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compute what is missing or changed, then write the table and the page.

    Raises:
        InferenceError: some cases failed; all the others are there.
        Cancelled: the user stopped it; what is done stays.
    """
    import_distributed()
    card = find_card(options.catalogue(), options.model)
    files, case_options = _check(options, card)
    archive = pacs.open_archive(options.pacs, insecure=options.insecure) if options.pacs else None
    folder = _make_folder(options.output)
    require_checkpoint(card, options)
    with ProgressLine() as line:
        inputs, leave_out = options.inputs, folder
        if archive is not None:  # what was fetched lies in that folder
            series = pacs.fetch_studies(archive, options.study, folder / STUDIES, options.series, line)
            inputs, leave_out = [path.parent for path in series], None
        cases = find_cases(
            list(dict.fromkeys(inputs)), leave_out=leave_out, report=functools.partial(_show_count, line)
        )
    settings = _settings(options, card)
    try:
        with locked(folder / ".batch.lock"):
            for path in folder.glob(f"{TEMPORARY}*"):  # of workers that were killed
                path.unlink(missing_ok=True)
            tasks = [_task(case, case_options, options, folder, settings, files) for case in cases]
            failure = _run(tasks, options, card)
            if archive is not None and options.send:
                with ProgressLine() as line:
                    results = [task.result for task in tasks if task.result is not None and task.is_there]
                    pacs.send_files(archive, results, line)
            if failure is not None:
                raise failure
    except Locked as error:
        raise OutputError(f"another program computes a cohort in {folder.name}; wait for it, or stop it") from error


def _check(options: argparse.Namespace, card: ModelCard) -> tuple[tuple[Path, ...], argparse.Namespace]:
    """Find what is wrong without any image; return the files that every case depends on, and the options of a case."""
    if options.workers is not None and not 1 <= options.workers <= 256:
        raise InputError("--workers must be a whole number from 1 to 256")
    if options.scheduler and options.workers:
        raise InputError("--workers is for a cluster on this machine, not for --scheduler")
    if options.frame == ALL_FRAMES:
        raise InputError("--frame all is for 'segment'; choose one frame with --frame N")
    if bool(options.pacs) == bool(options.inputs) or bool(options.pacs) != bool(options.study):
        raise InputError("name the images: files and folders, or --pacs URL with --study UID")
    head = None if options.head is None else read_head(options.head)
    is_classified = bool(options.label_set or options.label or head)
    if options.send and (not options.pacs or options.format != "dcm" or is_classified):
        raise InputError("--send stores DICOM segmentations: it needs --pacs and --format dcm")
    if is_classified and (options.prompts or options.classes or options.text or options.seed_from):
        raise InputError("either labels classify the cases, or prompts, classes and texts segment them")
    if head is None or head.checkpoint.model_id != card.id:
        require_task(card, "classify" if is_classified else "segment")
    require_adapter(card)
    if options.measurements and (is_classified or options.format != "dcm"):
        raise InputError("--measurements is for --format dcm")
    files: tuple[Path, ...]
    if is_classified:
        least = ["-", "--model", card.id, "--label", "-"]
        files = () if head is None else (head_path(head.name),)
        # The head itself goes along: the folder of heads is on this machine.
        return files, _complete(classify, options, least, label=options.label, head=head, format=None)
    of_each = any(path.suffix.lower() in (".csv", ".tsv") for path in options.inputs) and options.prompts is None
    files = ()
    if not (of_each and not (options.classes or options.text)):  # a table may name the prompts of each case
        prompts = read_prompt_options(options, card)
        own = [path for path in (options.prompts, options.seed_from) if path is not None]
        files = (
            *own,
            *mask_files(prompts, options.prompts.parent if options.prompts is not None else Path()),
        )
    return files, _complete(segment, options, ["-", "--output", "-"])


def _complete(command: Any, options: argparse.Namespace, least: list[str], **more: Any) -> argparse.Namespace:
    """Return the options of another command: its usual values, and over them those of this one."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    usual = vars(parser.parse_args(least))
    shared = {name: value for name, value in vars(options).items() if name in usual and name not in ("run", "output")}
    return argparse.Namespace(**{"format": options.format, **usual, **shared, **more})


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
        return folder.resolve()
    except OSError as error:
        raise OutputError(f"the folder {folder.name} cannot be made: {write_failure(error)}") from error


def _settings(options: argparse.Namespace, card: ModelCard) -> str:
    """Return a hash of everything but files that determines the results: model, checkpoint and options."""
    choices = {name: repr(value) for name, value in vars(options).items() if name not in _WITHOUT_EFFECT}
    sha256 = Store(default_store_folder()).sha256(card) or card.source.files[0].sha256 or card.source.revision
    return hashlib.sha256(json.dumps([card.id, sha256, sorted(choices.items())]).encode()).hexdigest()


def _task(
    case: Case,
    case_options: argparse.Namespace,
    options: argparse.Namespace,
    folder: Path,
    settings: str,
    files: tuple[Path, ...],
) -> CaseTask:
    connect = None if options.connect is ProcessClient else options.connect
    of_case = copy.copy(case_options)
    if case.prompts is not None:
        of_case.prompts, files = case.prompts, (case.prompts, *files)
    if not options.with_patient:
        case = replace(case, patient="")
    return CaseTask(case, of_case, folder, settings, files, options.memory_limit, connect, options.catalogue)


def _earlier_report(task: CaseTask) -> dict[str, Any]:
    """Read the report of an earlier run; its part ``batch`` is empty where a file of the result is missing."""
    if task.is_there:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            document = json.loads(task.report.read_text(encoding="utf-8"))
            return {**document, "batch": dict(document["batch"])}
    return {"batch": {}}


def _run(tasks: Sequence[CaseTask], options: argparse.Namespace, card: ModelCard) -> InferenceError | None:
    """Compute what is missing; return the error that says how many cases failed."""
    begin = time.monotonic()
    rows = _unchanged_rows(tasks)
    left = [task for task in tasks if task.case.name not in rows]
    say(f"{len(tasks)} cases" + (f", of which {len(rows)} are there" if rows else ""))
    computed, saved = 0, time.monotonic()
    try:
        with _cluster(options, card, left) as (client, worker_bytes), ProgressLine() as line:
            left = [replace(task, worker_bytes=task.worker_bytes or worker_bytes) for task in left]
            for outcome in compute(client, compute_case, left) if left else ():
                rows[outcome.item.case.name] = _row(outcome.item, outcome)
                computed += outcome.result == DONE
                pace = (time.monotonic() - begin) / max(1, len(rows) - len(tasks) + len(left))
                line.show(_progress(len(rows), len(tasks), pace))
                if outcome.error:
                    line.clear()
                    say(f"{outcome.item.case.name}: {outcome.error}")
                if time.monotonic() > saved + _SAVE_S:
                    saved = time.monotonic()
                    _write_table(_in_order(tasks, rows), options)
    except KeyboardInterrupt as error:
        count = f"{len(rows)} of {len(tasks)} cases"
        raise Cancelled(f"interrupted; {count} are done, and the same command goes on with the others") from error
    finally:  # some may be done without a word, where the cluster is gone
        rows |= _unchanged_rows([task for task in tasks if task.case.name not in rows])
        every = _in_order(tasks, rows)
        _write_table(every, options)
        _write_page(tasks, every, options, card)
    return _finish(every, computed, time.monotonic() - begin)


def _finish(rows: Sequence[Mapping[str, object]], computed: int, seconds: float) -> InferenceError | None:
    failed = [row for row in rows if row["status"] != DONE]
    peak = max((float(str(row.get("peak_mb") or 0)) for row in rows), default=0)
    pace = f", {computed / seconds * 60:.1f} a minute" if computed else ""
    memory = f"; the largest worker took {bytes_text(int(peak * 1e6))}" if peak else ""
    say(f"{len(rows) - len(failed)} of {len(rows)} cases are done, {computed} of them now{pace}{memory}")
    return InferenceError(f"{len(failed)} of {len(rows)} cases failed; {TABLE} says why") if failed else None


def _unchanged_rows(tasks: Sequence[CaseTask]) -> dict[str, dict[str, object]]:
    """Make the rows, by the names of the cases, of those whose results are there and whose files are as they were."""
    rows = {}
    for task in tasks:
        before = _earlier_report(task)
        if before["batch"] and before["batch"].get("stamp") == stamp(task.case, task.settings, task.files) != "":
            rows[task.case.name] = _row(task, Outcome(task, DONE), before)
    return rows


def _progress(done: int, total: int, pace_s: float) -> ProgressReport:
    minutes = (total - done) * pace_s / 60
    left = f"{minutes:.0f} min left" if minutes >= 1 else "less than a minute left"
    return ProgressReport("cases", done, total, f"{60 / max(pace_s, 1e-6):.1f} a minute, {left}")


def _show_count(line: ProgressLine, count: int) -> None:
    line.show(ProgressReport("find", 0, 0, f"{count} cases"))


@contextlib.contextmanager
def _cluster(
    options: argparse.Namespace, card: ModelCard, tasks: Sequence[CaseTask]
) -> Iterator[tuple[Any, int | None]]:
    """Open the cluster, with the memory of each of its workers; none where there is nothing to compute."""
    if not tasks:
        yield None, None
    elif options.scheduler:
        with join_cluster(options.scheduler, insecure=options.insecure) as client:
            yield client, None
    else:
        size = _local_size(options, card, len(tasks))
        say(f"computing on this machine: {size}")
        with open_cluster(size) as client:
            yield client, size.worker_bytes


def _local_size(options: argparse.Namespace, card: ModelCard, cases: int) -> ClusterSize:
    from ..engine.device import free_host_bytes, usable_processors

    devices = 0
    if options.device in ("auto", "cuda"):
        from ..engine.device import describe_devices

        devices = sum(device.kind == "cuda" for device in describe_devices().devices)
    memory = free_host_bytes() or bytes_of("8GB")
    return choose_size(cases, usable_processors(), memory, card.source.bytes or 0, devices, options.workers)


def compute_case(task: CaseTask) -> str:
    """Compute a case in a worker: result, picture and report, each whole or not there.

    Returns:
        ``"done"``; ``"there"`` where the same content was computed before, though it lay elsewhere.

    Raises:
        FoundationSegError: the image or the model is to blame, or the disk.
    """
    begin = time.perf_counter()
    key = content_key(task.case, task.settings, task.files)
    batch = {"key": key, "stamp": stamp(task.case, task.settings, task.files)}
    before = _earlier_report(task)
    if key == before["batch"].get("key"):  # from an earlier run, or a worker that died before it could say so
        _write_report(task, before, before["batch"] | batch)
        return "there"
    _require_room(task)
    with tempfile.TemporaryDirectory(prefix="foundationseg-") as name:
        report, overview = Path(name, "report.json"), Path(name, "overview.png")
        options = argparse.Namespace(**{**vars(task.options), "catalogue": task.catalogue, "connect": _kept(task)})
        options.volume, options.series = task.case.image, task.case.series
        options.report, options.overview, options.output = report, overview, task.result
        options.overview_px = THUMBNAIL_PX
        if task.worker_bytes is not None:
            options.memory_limit = int(task.worker_bytes * 0.85)
        command = classify if task.result is None else segment
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            command.run(options)
        with replace_atomically(task.picture) as path:
            path.write_bytes(thumbnail(overview))
        document = json.loads(report.read_text(encoding="utf-8"))
    from ..installation.inspection import peak_memory_mb

    batch |= {"seconds": round(time.perf_counter() - begin, 3), "peak_mb": round(peak_memory_mb() or 0)}
    _write_report(task, document, batch)
    return DONE


def _write_report(task: CaseTask, document: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    write_together(text_writers([(task.report, report_text({**document, "batch": dict(batch)}))]))


def _require_room(task: CaseTask) -> None:
    """Make sure, by the header alone, that a worker has the memory for an image.

    Raises:
        MemoryShortageError: it has not.
    """
    from ..io.dicom import header_bytes

    if task.worker_bytes is None:
        return
    paths = files_of(task.case) if task.case.image.is_dir() else (task.case.image,)
    needed = _COPIES * len(paths) * header_bytes(paths[0])  # the slices of a series are of one size
    if needed > task.worker_bytes:
        raise MemoryShortageError(
            f"the image needs about {bytes_text(needed)}, and a worker has {bytes_text(task.worker_bytes)}; "
            "use fewer --workers, or crop it"
        )


def _kept(task: CaseTask) -> Callable[[WorkerSettings], Client]:
    return functools.partial(_kept_client, task.connect)


@functools.lru_cache(maxsize=1)
def _kept_client(connect: Callable[[WorkerSettings], Client] | None, settings: WorkerSettings) -> Client:
    """Return the one engine of this worker process; closing it after a case lets go of the image alone."""
    if connect is not None:
        return connect(settings)
    from ..worker.server import open_engine

    return InlineClient(open_engine(settings))


def _row(task: CaseTask, outcome: Outcome | None, report: Mapping[str, Any] | None = None) -> dict[str, object]:
    """Make the row of a case; ``report`` is its report where that was read before."""
    row: dict[str, object] = {"case": task.case.name, "image": task.case.image.name}
    if task.case.patient:
        row["patient"] = task.case.patient
    if outcome is None:
        return row | {"status": "not computed"}
    if outcome.error:
        return row | {"status": FAILED, "error": one_line(outcome.error)}
    document = report or json.loads(task.report.read_text(encoding="utf-8"))
    model, batch = document["model"], document["batch"]
    row |= {"status": DONE, "seconds": batch["seconds"], "peak_mb": batch["peak_mb"]}
    row |= {name: model[name] for name in ("id", "revision", "sha256")} | {"notes": "; ".join(document["notes"])}
    for one in document.get("segments", ()):
        row |= {f"{one['name']} voxels": one["voxels"], f"{one['name']} ml": one["volume_ml"]}
        row[f"{one['name']} score"] = one["score"]
    if "labels" in document:
        row["verdict"] = document["verdict"] if isinstance(document["verdict"], str) else ", ".join(document["verdict"])
    return row | {f"{label['name']} score": label["score"] for label in document.get("labels", ())}


def _in_order(tasks: Sequence[CaseTask], rows: Mapping[str, dict[str, object]]) -> list[dict[str, object]]:
    return [rows.get(task.case.name) or _row(task, None) for task in tasks]


def _write_table(rows: Sequence[Mapping[str, object]], options: argparse.Namespace) -> None:
    columns = dict.fromkeys(("case", "image", "status", "error"))
    for row in rows:
        columns |= dict.fromkeys(row)
    write_together(text_writers([(options.output / TABLE, csv_text(rows, columns))]))
    with contextlib.suppress(ImportError):  # beside the table, for those who have pandas and pyarrow
        import pandas
        import pyarrow  # noqa: F401

        with replace_atomically(options.output / "cohort.parquet") as path:
            pandas.DataFrame(rows, columns=list(columns)).to_parquet(path)


def _write_page(
    tasks: Sequence[CaseTask], rows: Sequence[Mapping[str, object]], options: argparse.Namespace, card: ModelCard
) -> None:
    """Write the page: what failed first, then by the lowest score that the model gave itself."""

    def worth(row: Mapping[str, object]) -> tuple[bool, float]:
        scores = [float(str(value)) for name, value in row.items() if name.endswith(" score") and value is not None]
        return row["status"] == DONE, min(scores, default=0.0)

    cards = [_card(task, row) for row, task in sorted(zip(rows, tasks, strict=True), key=lambda pair: worth(pair[0]))]
    done = sum(row["status"] == DONE for row in rows)
    note = f"{done} of {len(rows)} cases, {card.title}; the least sure come first. For research only."
    page = contact_sheet(options.output.resolve().name, note, cards)
    write_together(text_writers([(options.output / PAGE, page)]))


def _card(task: CaseTask, row: Mapping[str, object]) -> Card:
    if row["status"] != DONE:
        return Card(task.case.name, error=str(row.get("error") or row["status"]))
    names = [name.removesuffix(" score") for name in row if name.endswith(" score")]
    names = names[: MOST_SHOWN if "verdict" in row else None]  # labels come the best first
    cells = [(name, _amount(row, name), _score(row[f"{name} score"])) for name in names]
    return Card(task.case.name, cells, task.picture.read_bytes(), note=str(row.get("verdict", "")))


def _amount(row: Mapping[str, object], name: str) -> str:
    if row.get(f"{name} ml") is not None:
        return f"{float(str(row[f'{name} ml'])):.2f} ml"
    return f"{row[f'{name} voxels']} px" if f"{name} voxels" in row else ""


def _score(score: object) -> str:
    return "" if score is None else f"{float(str(score)):.2f}"
