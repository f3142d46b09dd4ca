"""The way from "the user wants this model" to "the worker can run it": which step is next. Each can be repeated."""

from typing import Literal

from .packages import FROM_EXTENSION, canonical
from .readiness import Readiness
from .requirements import requirement_name

# "blocked": nothing that is installed or downloaded would help. "torch": the PyTorch extension installs PyTorch in
# Slicer's own Python. "packages": pip installs the others. "license": the terms have to be accepted. "gate": the user
# has to log in to the Hub. "weights": the checkpoint is downloaded. "done": the model is ready.
Step = Literal["blocked", "torch", "packages", "license", "gate", "weights", "done"]


def next_step(readiness: Readiness, *, is_own_python: bool, with_weights: bool = True) -> Step:
    """What to do next, by what is missing now; whatever was done before, and wherever it was stopped.

    Args:
        readiness: of the model, with the worker's Python asked.
        is_own_python: models run in Slicer's own Python, in which pip must not touch PyTorch.
        with_weights: the checkpoint is wanted, too.
    """
    if readiness.lack("adapter") or readiness.lack("python"):
        return "blocked"
    if is_own_python and lacks_torch(readiness):
        return "torch"
    if readiness.missing_packages:
        return "packages"
    if not with_weights:
        return "done"
    for need, step in _OF_WEIGHTS.items():
        if readiness.lack(need):
            return step
    return "done"


_OF_WEIGHTS: dict[Literal["room", "license", "gate", "weights"], Step] = {
    "room": "blocked",
    "license": "license",
    "gate": "gate",
    "weights": "weights",
}


def lacks_torch(readiness: Readiness) -> bool:
    """True where what the PyTorch extension installs is missing, or too old."""
    return any(canonical(requirement_name(text)) in FROM_EXTENSION for text in readiness.missing_packages)
