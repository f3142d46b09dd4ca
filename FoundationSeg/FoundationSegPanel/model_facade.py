"""Models for scripts in Slicer's Python console: what the dialogs do, with the panel's settings, and waiting for it."""

import contextlib
from collections.abc import Callable
from typing import Any

from FoundationSegLib import model_management
from FoundationSegLib.catalog.catalogue import find_card, read_catalogue
from FoundationSegLib.installation.inspection import PythonReport
from FoundationSegLib.progress import ProgressReport

from .diagnosis_dialog import software
from .settings import Settings, inherited_environment, open_client, read_settings, store_folder


def models() -> list[dict[str, Any]]:
    """Every model: what it is, whether it is ready, and what it lacks, in the order in which to deal with it.

    Raises:
        InputError: the Python that was chosen for the models gives no answer.
    """
    settings = read_settings()
    return model_management.models(_store(settings), _inspect(settings))


def model_state(model_id: str) -> dict[str, Any]:
    """One model, as :func:`models` tells it.

    Raises:
        UnknownModelError: no card has that id.
        InputError: the Python that was chosen for the models gives no answer.
    """
    settings, card = read_settings(), find_card(read_catalogue(), model_id)
    return model_management.model_state(card, _store(settings), _inspect(settings))


def download_model(
    model_id: str, *, accept_license: bool = False, on_progress: Callable[[ProgressReport], None] | None = None
) -> None:
    """Download a model, and wait for it; segmenting goes on meanwhile, by a worker of its own.

    Raises:
        UnknownModelError: no card has that id.
        CheckpointError: its terms have to be accepted first, or the download fails; what has arrived is kept.
    """
    settings = read_settings()
    with contextlib.closing(open_client(settings)) as client:
        model_management.download_model(
            model_id, _store(settings), client, accept_license=accept_license, on_progress=on_progress
        )


def remove_model(model_id: str) -> int:
    """Remove a model from this computer; the room that this frees, in bytes. A worker that has it must be ended first.

    Raises:
        UnknownModelError: no card has that id.
        CheckpointError: another program is downloading it right now, or a file cannot be removed.
    """
    return model_management.remove_model(model_id, _store(read_settings()))


def diagnosis() -> dict[str, Any]:
    """Versions, devices, memory and the store, as JSON values; no folders, no names of persons. Takes some seconds."""
    settings = read_settings()
    found = model_management.run_diagnosis(
        _store(settings), settings.worker_python, inherited_environment(settings), software()
    )
    return found.to_document()


def _store(settings: Settings) -> model_management.Store:
    return model_management.open_store(store_folder(settings))


def _inspect(settings: Settings) -> PythonReport:
    return model_management.inspect(read_catalogue(), settings.worker_python, inherited_environment(settings))
