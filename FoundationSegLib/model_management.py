"""For panels and scripts: which models there are, what each still needs, and how it comes and goes. Nothing here is Qt.

What waits is for scripts and says so; a panel submits the same request to a client and polls it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import __version__
from .catalog.catalogue import find_card, has_adapter, read_catalogue
from .catalog.model_cards import ModelCard
from .codec import to_document
from .errors import FoundationSegError
from .hub.fetch import is_accepted, must_accept, require_fetchable
from .hub.hugging_face import has_login
from .hub.plan import plan_removal, remove
from .hub.store import Store, default_store_folder, free_bytes
from .installation.inspection import PythonReport, inspect_python, without_paths
from .installation.packages import requirement_name, requirements_of
from .installation.readiness import Readiness, Stored, assess
from .progress import ProgressReport
from .requests.maintenance import DownloadRequest, InspectRequest
from .requests.worker_settings import DeviceChoice
from .worker.client import Client, ask
from .worker.process import wants_offline, worker_command
from .worker.process_client import ProcessClient

_OF_INTEREST = ("torchvision", "SimpleITK", "safetensors", "pip")


def open_store(folder: Path | None = None) -> Store:
    """The store of checkpoints in a folder; in the user's usual one, unless given."""
    return Store(folder or default_store_folder())


def describe(card: ModelCard, store: Store) -> dict[str, Any]:
    """A card's line in ``models list --json``.

    ``runnable`` says whether this version can run it. ``bytes`` counts what is known of the download: ``bytes_known``
    is false where a file is missing from it. ``unverified`` names the fields that are not certain.
    """
    return {
        "id": card.id,
        "title": card.title,
        "task": card.task,
        "family": card.family,
        "prompts": list(card.prompts),
        "dimensions": list(card.dimensions),
        "license": card.license.name,
        "commercial_use": card.license.commercial_use,
        "gated": card.gated,
        "status": store.status(card),
        "bytes": card.source.bytes,
        "bytes_known": card.source.bytes_known,
        "runnable": has_adapter(card),
        "must_accept": card.license.must_accept,
        "unverified": list(card.unverified),
    }


def package_names(catalogue: Mapping[str, ModelCard]) -> tuple[str, ...]:
    """Every package that some model needs, and some that a diagnosis tells; each once."""
    needed = (text for card in catalogue.values() for text in requirements_of(card, to_download=True))
    return tuple(dict.fromkeys([*map(requirement_name, needed), *_OF_INTEREST]))


def stored(store: Store, card: ModelCard, inherited: Mapping[str, str] | None = None) -> Stored:
    """What the store knows of a model; ``inherited`` is the worker's environment, where a login may be."""
    return Stored(
        store.status(card),
        store.bytes_here(card),
        free_bytes(store.folder),
        must_accept(card),
        is_accepted(store, card),
        has_login(inherited),
    )


def readiness(
    card: ModelCard,
    store: Store,
    python: PythonReport | None,
    device: DeviceChoice = "auto",
    inherited: Mapping[str, str] | None = None,
) -> Readiness:
    """What is missing before a model can be used; see :func:`.core.readiness.assess`."""
    return assess(card, python, stored(store, card, inherited), device)


def inspect(
    catalogue: Mapping[str, ModelCard],
    python: str = "",
    inherited: Mapping[str, str] | None = None,
    *,
    devices: bool = False,
) -> PythonReport:
    """What the worker's Python has. For scripts: it waits, where that is not the running Python, about 0.1 s.

    With ``devices`` also what PyTorch can compute on, for which it is imported there: seconds.

    Raises:
        InputError: there is no such Python, or it is none.
    """
    names = package_names(catalogue)
    if not python and not devices:
        return inspect_python(names)
    with closing(ProcessClient(command=worker_command(python), inherited=inherited)) as client:
        report: PythonReport = ask(client, InspectRequest(1, names, devices))
    return report


def models(store: Store, python: PythonReport | None) -> list[dict[str, Any]]:
    """Every model, as :func:`describe` tells it, with ``ready`` and what it ``lacks``."""
    return [model_state(card, store, python) for card in read_catalogue().values()]


def model_state(card: ModelCard, store: Store, python: PythonReport | None) -> dict[str, Any]:
    """One model, with ``ready`` and what it ``lacks``, in the order in which to deal with it."""
    found = readiness(card, store, python)
    lacks = [{"need": lack.need, "bytes": lack.bytes, "items": list(lack.items)} for lack in found.lacks]
    return describe(card, store) | {"ready": found.is_ready, "lacks": lacks}


def download_model(
    model_id: str,
    store: Store,
    client: Client,
    *,
    accept_license: bool = False,
    on_progress: Callable[[ProgressReport], None] | None = None,
) -> None:
    """Download a model's checkpoint, and wait for it; one that is there is left alone.

    Args:
        model_id: the card's id.
        store: the same that the client's worker uses.
        client: who downloads; whatever it was asked before fails as cancelled.
        accept_license: the user accepts the model's terms now.
        on_progress: told of each report.

    Raises:
        UnknownModelError: no card has that id.
        CheckpointError: its terms have to be accepted first, or the download fails.
    """
    card = find_card(read_catalogue(), model_id)
    require_fetchable(card, accept_license=accept_license, store=store)
    ask(client, DownloadRequest(1, card.id, accept_license), on_progress)


def remove_model(model_id: str, store: Store) -> int:
    """Remove everything that the store has of a model; the room that this frees, in bytes.

    Raises:
        UnknownModelError: no card has that id.
        CheckpointError: another program is downloading it right now, or a folder cannot be removed.
    """
    card = find_card(read_catalogue(), model_id)
    made = plan_removal(store, card)
    if made.folders:
        remove(store, card, made)
    return made.bytes_freed


def removable(store: Store, cards: Iterable[ModelCard]) -> list[tuple[ModelCard, int]]:
    """The models of which the store has anything, with the room that removing each frees, in bytes."""
    plans = [(card, plan_removal(store, card)) for card in cards]
    return [(card, plan.bytes_freed + plan.bytes_shared) for card, plan in plans if plan.folders]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What somebody who helps needs to know of this computer. It names no folder and no person.

    Attributes:
        software: versions by name, FoundationSeg's first.
        python: the worker's Python; None where it gave no answer, and ``problem`` says why.
        is_own_python: it is the Python that Slicer, or the script, runs in.
        store_bytes: what the checkpoints take; ``free_bytes`` is the room on their disk.
        store_is_usual: they are in the user's usual folder.
        models: the status of every model of which anything is stored.
        is_offline: the user's own offline mode is on.
    """

    software: Mapping[str, str]
    python: PythonReport | None
    problem: str
    is_own_python: bool
    store_bytes: int
    free_bytes: int
    store_is_usual: bool
    models: Mapping[str, str] = field(default_factory=dict)
    is_offline: bool = False

    def to_document(self) -> dict[str, Any]:
        """As JSON values; texts that other programs wrote are without folders and names."""
        document: dict[str, Any] = to_document(replace(self, problem=without_paths(self.problem)))
        if self.python is not None and self.python.devices is not None:
            document["python"]["devices"]["problem"] = without_paths(self.python.devices.problem)
        return document


def diagnose(
    store: Store,
    python: PythonReport | FoundationSegError,
    *,
    is_own_python: bool,
    software: Sequence[tuple[str, str]] = (),
    inherited: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Put a diagnosis together.

    Args:
        store: of the checkpoints.
        python: what the worker's Python answered, or why it did not.
        is_own_python: see :class:`Diagnosis`.
        software: names and versions of what runs this.
        inherited: the worker's environment.
    """
    cards = read_catalogue().values()
    there = removable(store, cards)
    failed = isinstance(python, FoundationSegError)
    return Diagnosis(
        dict([("FoundationSeg", __version__), *software]),
        None if failed else python,
        str(python) if failed else "",
        is_own_python,
        sum(count for _, count in there),
        free_bytes(store.folder),
        store.folder == default_store_folder(),
        {card.id: store.status(card) for card, _ in there},
        wants_offline(inherited),
    )


def run_diagnosis(
    store: Store,
    python: str = "",
    inherited: Mapping[str, str] | None = None,
    software: Sequence[tuple[str, str]] = (),
) -> Diagnosis:
    """Ask the worker's Python for everything, and wait: some seconds, since PyTorch is imported there."""
    answer: PythonReport | FoundationSegError
    try:
        answer = inspect(read_catalogue(), python, inherited, devices=True)
    except FoundationSegError as error:
        answer = error
    return diagnose(store, answer, is_own_python=not python, software=software, inherited=inherited)
