"""What comes back from an engine: plain values, in the order in which they happened."""

from dataclasses import dataclass

from ..core.classification import Classification
from ..core.errors import FoundationSegError
from ..core.progress import ProgressReport
from ..core.requests import Prediction


@dataclass(frozen=True, slots=True)
class Progressed:
    """A request is under way."""

    request_id: int
    report: ProgressReport


@dataclass(frozen=True, slots=True)
class Answered:
    """A request is answered."""

    request_id: int
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Classified:
    """A request to classify is answered."""

    request_id: int
    classification: Classification


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The checkpoint that a request asked for is there, whole and right."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A request could not be answered, or was stopped (:class:`~FoundationSegLib.core.errors.Cancelled`)."""

    request_id: int
    error: FoundationSegError


Event = Progressed | Answered | Classified | Downloaded | Failed
