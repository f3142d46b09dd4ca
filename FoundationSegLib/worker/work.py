"""A request that is under way, as the client of a process sees it: how far it is, and what counts as its answer."""

import time
from dataclasses import dataclass, field

from ..core.classification import Classification
from ..core.classify_request import ClassifyRequest
from ..core.errors import GeometryError
from ..core.geometry import Box, array_axis
from ..core.progress import ProgressReport
from ..core.requests import PredictRequest, Request
from .classification_documents import classification_from_frame
from .documents import prediction_from_frame
from .frames import Frame
from .messages import Answered, Classified, Downloaded


@dataclass(slots=True)
class Work:
    """The request that is under way.

    Attributes:
        request: what was asked.
        ticket: what names it to the worker; numbers of requests may come again.
        extent: what a mask has to keep to: the image of a prediction. None for a download.
        stirred: when something was last heard of it, on the monotonic clock, in seconds.
        point: the last report of progress, ``died_at`` that of the worker that died last.
        deaths: how often in a row it ended at that point, ``restarts`` how often in all.
        has_asked_twice: the worker had let go of the image, and was sent it again.
    """

    request: Request
    ticket: int
    extent: Box | None = None
    stirred: float = field(default_factory=time.monotonic)
    point: ProgressReport | None = None
    died_at: ProgressReport | None = None
    deaths: int = 0
    restarts: int = 0
    has_asked_twice: bool = False

    def answer(self, frame: Frame) -> Answered | Classified | Downloaded:
        """The event that a frame ends this request with.

        Raises:
            KeyError, ValueError, GeometryError: it is no answer to this request.
        """
        kind, number = frame.header["type"], self.request.request_id
        if self.extent is None and kind == "downloaded":
            return Downloaded(number)
        if self.extent is not None and kind == "classified" and isinstance(self.request, ClassifyRequest):
            answer = classification_from_frame(frame)
            self._require_fit(answer, self.request, self.extent)
            return Classified(number, answer)
        if self.extent is None or kind != "answered" or not isinstance(self.request, PredictRequest):
            raise ValueError(f"{kind!r} is no answer to what was asked")
        prediction = prediction_from_frame(frame)
        if len(prediction.segments) != len(self.request.segments):
            raise ValueError("there are more or fewer segments than were asked for")
        if not all(self.extent.contains(segment.mask.box) for segment in prediction.segments):
            raise GeometryError("a mask reaches out of the image")
        return Answered(number, prediction)

    @staticmethod
    def _require_fit(answer: Classification, request: ClassifyRequest, extent: Box) -> None:
        if tuple(one.name for one in answer.scores) != request.labels.names or answer.axis != request.subject.axis:
            raise ValueError("the answer is about other labels than were asked for")
        there = range(extent.stop_kji[array_axis(answer.axis)])
        if not all(index in there for one in (answer, *answer.evidence) for index in one.slices):
            raise GeometryError("a slice lies outside of the image")
