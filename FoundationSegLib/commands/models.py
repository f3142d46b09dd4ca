"""`models`: list, show, verify, remove, import and export the models of the catalogue."""

import argparse
import textwrap
from collections.abc import Callable, Iterator, Sequence

from ..api import describe, model_document
from ..catalog.catalogue import has_adapter
from ..catalog.class_lists import classes_of
from ..catalog.model_cards import CheckpointFile, ModelCard, find_card
from ..errors import CheckpointError, InputError, counted
from ..hub.exchange import export_checkpoint, import_adapted, import_checkpoint
from ..hub.plan import plan_partial_removal, plan_removal, remove
from ..hub.store import Store, default_store_folder
from ..progress import Progress, bytes_text
from .arguments import path_argument
from .downloads import run_download, run_plan, size_text, source_text
from .outputs import COLUMNS, ProgressLine, fit, print_result, say

_HEADER = ("ID", "PROMPTS", "LICENCE", "COMMERCIAL", "SIZE", "STATUS")
_GAP = "  "
_ELASTIC = ("PROMPTS", "LICENCE", "ID")  # the columns that give way, in this order, where a line would be too long
_NARROWEST = 8
_LABEL_WIDTH = 14
_COMMERCIAL = {"yes": "allowed", "no": "not allowed", "unclear": "unclear: the texts conflict or leave it open"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(
        name: str, run: Callable[[argparse.Namespace], None], purpose: str, *, json: bool = True
    ) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(name, help=purpose)
        action.add_argument("--debug", action="store_true", help="show tracebacks")
        if json:
            action.add_argument("--json", action="store_true", help="as JSON")
        action.set_defaults(run=run)
        return action

    add("list", _list, "show every model, and whether it is downloaded")
    add("show", _show, "tell everything about one model before it is downloaded").add_argument("model", metavar="ID")
    plan = add("plan", run_plan, "show what a download would take, and on what terms")
    plan.add_argument("model", metavar="ID")
    plan.add_argument("--packages", action="store_true", help="also ask pip what the model's packages would bring")
    download = add("download", run_download, "download a model's checkpoint, or what is damaged of it", json=False)
    download.add_argument("model", metavar="ID")
    download.add_argument("--with-packages", action="store_true", help="also install the model's Python packages")
    verify = add("verify", _verify, "hash a downloaded model's files again, or those of all")
    verify.add_argument("model", metavar="ID", nargs="?")
    removal = add("remove", _remove, "show what removing a model frees, and remove it with --yes")
    removal.add_argument("model", metavar="ID", nargs="?", help="needed unless --partial is given")
    removal.add_argument("--partial", action="store_true", help="half downloads only")
    removal.add_argument("--yes", action="store_true", help="do it")
    incoming = add("import", _import, "take a model's checkpoint from a folder or an archive", json=False)
    outgoing = add("export", _export, "write a model's checkpoint to a folder or an archive", json=False)
    for action in (incoming, outgoing):
        action.add_argument("model", metavar="ID")
        action.add_argument(
            "path", metavar="PATH", type=path_argument, help="a folder, or a .zip, .tar or .tar.gz file"
        )
    for action in (download, incoming):
        action.add_argument("--accept-license", action="store_true", help="accept the terms that the model asks for")


def _store() -> Store:
    return Store(default_store_folder())


def _cards(options: argparse.Namespace, model: str | None = None) -> list[ModelCard]:
    catalogue = options.catalogue()
    return [find_card(catalogue, model)] if model else list(catalogue.values())


def _list(options: argparse.Namespace) -> None:
    store, cards = _store(), _cards(options)
    print_result([describe(card, store) for card in cards], table(cards, store), as_json=options.json)


def table(cards: Sequence[ModelCard], store: Store) -> list[str]:
    """Return the catalogue as lines of at most :data:`~.outputs.COLUMNS` characters, what can be run first."""
    rows = {card.id: _row(card, store) for card in cards}
    widths = _widths([_HEADER, *rows.values()])
    lines = [_line(_HEADER, widths), *(_line(rows[card.id], widths) for card in cards if has_adapter(card))]
    others = [_line(rows[card.id], widths) for card in cards if not has_adapter(card)]
    if others:
        lines += ["", "Described, but this version cannot run them yet:", *others]
    remarks = []
    if any(card.gated for card in cards):
        remarks.append("* its conditions must be accepted on the Hub, with an account")
    if any(size_text(card).startswith("~") for card in cards):
        remarks.append("~ not certain; the Hub is asked before anything is downloaded")
    if any(card.unverified or card.license.note for card in cards):
        remarks.append("'foundationseg models show ID' tells the terms, the memory it takes, and what was not verified")
    return [*lines, "", *remarks] if remarks else lines


def _row(card: ModelCard, store: Store) -> tuple[str, ...]:
    terms = f"{card.license.name}{' *' if card.gated else ''}"
    prompts = f"{'' if card.task == 'segment' else 'classifies by '}{' '.join(card.prompts)}"
    return card.id, prompts, terms, card.license.commercial_use, size_text(card), store.status(card)


def _widths(rows: Sequence[tuple[str, ...]]) -> list[int]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name in _ELASTIC:
        excess = sum(widths) + len(_GAP) * (len(widths) - 1) - COLUMNS
        n = _HEADER.index(name)
        widths[n] = max(min(_NARROWEST, widths[n]), widths[n] - max(0, excess))
    return widths


def _line(row: tuple[str, ...], widths: Sequence[int]) -> str:
    return _GAP.join(fit(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _show(options: argparse.Namespace) -> None:
    card, store = find_card(options.catalogue(), options.model), _store()
    lines = [f"{card.title} ({card.id})", *(_paragraph(label, text) for label, text in _facts(card, store))]
    print_result(model_document(card, store), lines, as_json=options.json)


def _facts(card: ModelCard, store: Store) -> Iterator[tuple[str, str]]:
    """Yield labels and texts, in the order in which they matter."""
    yield "Runs here", "yes" if has_adapter(card) else f"no, this version has no adapter for {card.family!r}"
    yield "Status", store.status(card)
    yield "Good at", card.good_at
    yield "Bad at", card.bad_at
    yield "Task", f"{card.task}, on {' and '.join({2: 'slices', 3: 'volumes'}[n] for n in card.dimensions)}"
    negative = f"; also as 'not this': {', '.join(card.negative)}" if card.negative else ""
    yield "Prompts", f"{', '.join(card.prompts) or 'none'}{negative}"
    if card.classes:
        yield "Classes", "; ".join(f"{entry.number} {entry.name}" for entry in classes_of(card).classes)
    if card.translations:
        yield "Translated", ", ".join(f"{kind} to {words}" for kind, words in card.translations.items())
    yield "Trained on", ", ".join(card.modalities) or "no medical images"
    colours = {(1,): "grey", (3,): "colour"}.get(card.channels, "grey and colour")
    yield "Sees", f"{colours}{', 8 bits' if card.input_8bit else ''}, intensity policy {card.intensity!r}"
    basis = card.memory_basis or {}
    amounts = [f"{device}: {amount} MB ({basis[device]})" for device, amount in (card.memory_mb or {}).items()]
    yield "Memory", ", ".join(amounts) or "not known"
    yield "Packages", ", ".join(card.packages) or "none"
    origin = f"{source_text(card)}: {card.source.repository}, revision {card.source.revision}"
    yield "Download", f"{size_text(card)} from {origin}"
    for n, file in enumerate(card.source.files):
        yield "File", _file_text(card, n, file)
    if card.full_pickle:
        yield "Pickle", "loading the checkpoint can run code that is in it: only if you trust its makers"
    terms = card.license
    yield "Licence", f"{terms.name}{'; must be accepted before the download' if terms.must_accept else ''}"
    yield "Commercial", _COMMERCIAL[terms.commercial_use]
    if terms.note:
        yield "Terms", terms.note
    if terms.url:
        yield "Text", terms.url
    gate = "its conditions must be accepted on the Hub, with an account" if card.gated else "open to everybody"
    yield "Gate", gate
    yield "Cite", card.citation
    for note in card.notes:
        yield "Note", note
    if card.unverified:
        yield "Not verified", f"{', '.join(card.unverified)}; what the source can tell is asked before a download"


def _file_text(card: ModelCard, number: int, file: CheckpointFile) -> str:
    """Describe one file of a checkpoint: its path, its size, and what is not known of it."""
    field = f"source.files[{number}]"
    size = "size unknown" if file.bytes is None else bytes_text(file.bytes)
    if file.bytes is not None and card.is_unverified(f"{field}.bytes"):
        size = f"~{size}"
    doubt = " but not certain" if card.is_unverified(f"{field}.sha256") else ""
    remarks = [size, f"sha256 known{doubt}" if file.sha256 else "sha256 not known"]
    if file.repository:
        remarks.append(f"from {file.repository} {file.revision}")
    return f"{file.path} ({', '.join(remarks)})"


def _paragraph(label: str, text: str) -> str:
    first, indent = f"{label}:".ljust(_LABEL_WIDTH), " " * _LABEL_WIDTH
    return textwrap.fill(
        text, COLUMNS, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _verify(options: argparse.Namespace) -> None:
    store = _store()
    cards = [card for card in _cards(options, options.model) if options.model or store.status(card) != "absent"]
    results = [{"id": card.id, "problem": _problem(store, card), "status": store.status(card)} for card in cards]
    lines = [f"{result['id']}: {result['problem'] or 'every file has the right hash'}" for result in results]
    print_result(results, lines, as_json=options.json)
    problems = [result["problem"] for result in results if result["problem"]]
    if problems:
        raise CheckpointError(f"not whole: {counted(len(problems), 'model')} of {len(cards)}")


def _problem(store: Store, card: ModelCard) -> str:
    """Hash a model's files; return what is wrong with them, or an empty text."""
    with ProgressLine() as line:
        try:
            store.verify(card, Progress(line.show))
        except CheckpointError as error:
            return str(error)
    return ""


def _remove(options: argparse.Namespace) -> None:
    if not options.model and not options.partial:
        raise InputError(
            "name a model, or --partial for the half downloads of all (see 'foundationseg models remove --help')"
        )
    store, make_plan = _store(), plan_partial_removal if options.partial else plan_removal
    plans = [(card, make_plan(store, card)) for card in _cards(options, options.model)]
    plans = [(card, plan) for card, plan in plans if plan.folders]
    for card, plan in plans if options.yes else ():
        remove(store, card, plan)
    documents, lines = [], []
    for _, plan in plans:
        shared = f"; {bytes_text(plan.bytes_shared)} stay, as the Hugging Face cache has them too"
        verb = "freed" if options.yes else "frees"
        lines.append(f"{plan.model}: {verb} {bytes_text(plan.bytes_freed)}{shared if plan.bytes_shared else ''}")
        folders = [folder.name for folder in plan.folders]
        sizes = {"bytes_freed": plan.bytes_freed, "bytes_shared": plan.bytes_shared}
        documents.append({"id": plan.model, **sizes, "folders": folders, "removed": options.yes})
    print_result(documents, lines, as_json=options.json)
    if not options.json and not (plans and options.yes):
        say("nothing was removed; --yes does it" if plans else "there is nothing to remove")


def _import(options: argparse.Namespace) -> None:
    catalogue = options.catalogue()
    with ProgressLine() as line:
        progress = Progress(line.show)
        if "+" in options.model:
            card = import_adapted(_store(), catalogue, options.model, options.path, progress)
        else:
            card = find_card(catalogue, options.model)
            import_checkpoint(_store(), card, options.path, progress, accept_license=options.accept_license)
    say(f"{card.title} is ready")


def _export(options: argparse.Namespace) -> None:
    card = find_card(options.catalogue(), options.model)
    with ProgressLine() as line:
        export_checkpoint(_store(), card, options.path, Progress(line.show))
    say(f"{card.title} was written to {options.path.name}")
