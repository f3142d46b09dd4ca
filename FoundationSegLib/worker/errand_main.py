"""The process of an errand: one task, in the Python that has to do it. It starts with the standard library alone.

The task is the first line of the standard input; where the input ends, the errand is not wanted any more. Every line of
the output is one JSON value: ``{"progress": ...}``, then ``{"result": ...}`` or ``{"error": ...}``.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from ..core.errors import FoundationSegError, PackageError
from ..core.inspection import inspect_python
from ..core.packages import PackagePlan, PipTool, canonical, install_packages, plan_packages
from ..core.progress import CancelToken, Progress, ProgressReport

_LAST_BREATH_S = 1.5
_REPORT_S = 0.05


def inspect(arguments: Mapping[str, Any], progress: Progress) -> Any:
    """What this Python has, and, if they are asked for, the devices: PyTorch is imported for those alone."""
    report = inspect_python(arguments["packages"])
    if arguments["devices"]:
        progress.report(ProgressReport("devices", 0, 0))
        from ..engine.device import describe_devices

        report = replace(report, devices=describe_devices())
    return report.to_document()


def plan(arguments: Mapping[str, Any], progress: Progress) -> Any:
    """What pip would install."""
    return asdict(plan_packages(arguments["requirements"], PipTool(), progress))


def install(arguments: Mapping[str, Any], progress: Progress) -> Any:
    """Have pip install what is missing, unless that would harm.

    ``from_elsewhere`` names what pip must not install, since it has another source.
    """
    made = plan_packages(arguments["requirements"], PipTool(), progress, size_of=lambda _: 0)
    _require_absent(made, {canonical(name) for name in arguments["from_elsewhere"]})
    install_packages(made, PipTool(), progress)
    return asdict(made)


def _require_absent(made: PackagePlan, unwanted: set[str]) -> None:
    coming = [package.name for package in made.packages if canonical(package.name) in unwanted]
    if coming:
        raise PackageError(f"{' and '.join(coming)} would come from pip; the extension 'PyTorch' has to install them")


def import_checkpoint(arguments: Mapping[str, Any], progress: Progress) -> Any:
    """Bring a checkpoint in from a folder or an archive."""
    from ..core.cards import find_card, read_catalogue
    from ..hub import exchange
    from ..hub.store import Store

    card = find_card(read_catalogue(), arguments["model"])
    store, accepts = Store(Path(arguments["store"])), bool(arguments["accept_license"])
    exchange.import_checkpoint(store, card, Path(arguments["source"]), progress, accept_license=accepts)
    return {}


def remove_checkpoints(arguments: Mapping[str, Any], progress: Progress) -> Any:
    """Remove everything that the store has of some models."""
    from ..core.cards import find_card, read_catalogue
    from ..hub.plan import plan_removal, remove
    from ..hub.store import Store

    store, catalogue, freed = Store(Path(arguments["store"])), read_catalogue(), 0
    for n, model in enumerate(arguments["models"]):
        progress.step("remove", n, len(arguments["models"]))
        card = find_card(catalogue, model)
        made = plan_removal(store, card)
        remove(store, card, made)
        freed += made.bytes_freed
    return {"bytes_freed": freed}


_TASKS: Mapping[str, Callable[[Mapping[str, Any], Progress], Any]] = {
    "inspect": inspect,
    "plan_packages": plan,
    "install_packages": install,
    "import_checkpoint": import_checkpoint,
    "remove_checkpoints": remove_checkpoints,
}


@dataclass(slots=True)
class _Voice:
    """Where the errand says how far it is; not more often than can be seen."""

    stream: TextIO
    _stage: str = ""
    _item: str = ""
    _said: float = 0.0

    def say(self, told: Mapping[str, Any]) -> None:
        self.stream.write(json.dumps(told) + "\n")
        self.stream.flush()

    def report(self, report: ProgressReport) -> None:
        now = time.monotonic()
        is_new = (report.stage, report.item) != (self._stage, self._item)
        if is_new or report.done == report.total > 0 or (report.total and now > self._said + _REPORT_S):
            self._stage, self._item, self._said = report.stage, report.item, now
            self.say({"progress": asdict(report)})


def _watch(token: CancelToken) -> None:
    """Stop where nobody wants the result any more, in good order if that is possible."""
    sys.stdin.read()
    token.cancel()
    time.sleep(_LAST_BREATH_S)
    os._exit(1)


def _apart() -> TextIO:
    """The output for us alone: what libraries print goes to the log."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def main() -> None:
    """Do the task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asked, who ends this in another way
    voice, token = _Voice(_apart()), CancelToken()
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch, args=(token,), daemon=True).start()
    try:
        voice.say({"result": _TASKS[asked["task"]](asked["arguments"], Progress(voice.report, token))})
    except FoundationSegError as error:
        told = {"kind": type(error).__name__, "message": str(error), "place": "", "detail": traceback.format_exc()}
        voice.say({"error": told})
    os._exit(0)  # the watching thread still reads


if __name__ == "__main__":
    main()
