"""The functions of the tasks, in the process that does them. Each imports what it needs when it is called.

Their names, requests and answers are those of :data:`.protocol.TASKS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import PackageError
from ..installation import packages
from ..installation.inspection import PythonReport, inspect_python
from ..progress import Progress, ProgressReport
from ..requests import maintenance
from ..requests.worker_settings import WorkerSettings

if TYPE_CHECKING:
    from ..hub.store import Store


class Workplace(Protocol):
    """The worker, as its tasks see it."""

    settings: WorkerSettings

    def need_engine(self) -> Any:
        """The engine, made if need be."""


Perform = Callable[[Any, Workplace, Progress], Any]


def open_store(settings: WorkerSettings) -> "Store":
    """The store of checkpoints that the settings name."""
    from ..hub.store import Store, default_store_folder

    return Store(settings.store_folder or default_store_folder())


def _inspect(request: maintenance.InspectRequest, _: Workplace, progress: Progress) -> PythonReport:
    """Look up the packages, and with them the devices, for which alone PyTorch is imported."""
    report = inspect_python(request.packages)
    if not request.devices:
        return report
    progress.report(ProgressReport("devices", 0, 0))
    from ..engine.device import describe_devices

    return replace(report, devices=describe_devices())


def _install(request: maintenance.InstallPackagesRequest, _: Workplace, progress: Progress) -> packages.PackagePlan:
    note = packages.interrupted_installation()
    packages.repair_installation(note, packages.PipTool().reinstall, progress)
    plan = packages.plan_packages(request.requirements, packages.PipTool(), progress, size_of=lambda _: 0)
    unwanted = {packages.canonical(name) for name in request.from_elsewhere}
    coming = [package.name for package in plan.packages if packages.canonical(package.name) in unwanted]
    if coming:
        raise PackageError(f"{' and '.join(coming)} would come from pip; the extension 'PyTorch' has to install them")
    with packages.noted_installation(note, plan):
        packages.install_packages(plan, packages.PipTool(), progress)
    return plan


def _import(request: maintenance.ImportRequest, workplace: Workplace, progress: Progress) -> None:
    from ..catalog.catalogue import read_catalogue
    from ..catalog.model_cards import find_card
    from ..hub.exchange import import_adapted, import_checkpoint

    store, catalogue = open_store(workplace.settings), read_catalogue()
    if "+" in request.model_id:
        import_adapted(store, catalogue, request.model_id, request.source, progress)
        return
    card, accepts = find_card(catalogue, request.model_id), request.accept_license
    import_checkpoint(store, card, request.source, progress, accept_license=accepts)


def _remove(
    request: maintenance.RemoveRequest, workplace: Workplace, progress: Progress
) -> maintenance.RemovedCheckpoints:
    from ..catalog.catalogue import read_catalogue
    from ..catalog.model_cards import find_card
    from ..hub.plan import plan_removal, remove

    store, catalogue, freed = open_store(workplace.settings), read_catalogue(), 0
    for n, model_id in enumerate(request.model_ids):
        progress.step("remove", n, len(request.model_ids))
        card = find_card(catalogue, model_id)
        plan = plan_removal(store, card)
        remove(store, card, plan)
        freed += plan.bytes_freed
    return maintenance.RemovedCheckpoints(freed)


FUNCTIONS: Mapping[str, Perform] = {
    "inspect": _inspect,
    "plan": lambda request, _, progress: packages.plan_packages(request.requirements, packages.PipTool(), progress),
    "install": _install,
    "download": lambda request, workplace, progress: workplace.need_engine().download(request, progress),
    "import": _import,
    "remove": _remove,
    "predict": lambda request, workplace, progress: workplace.need_engine().predict(request, progress),
    "classify": lambda request, workplace, progress: workplace.need_engine().classify(request, progress),
    "adapt": lambda request, workplace, progress: workplace.need_engine().adapt(request, progress),
}
