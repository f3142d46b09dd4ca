"""A real worker process around an engine without weights; run as a module, or imported for its engine.

The name of a segment, the title of a label set, or the model to download, is a script: words such as
``steps=5 pause=0.01`` that are done in order before the answer.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from FoundationSegLib.errors import DeviceLostError, InferenceError, PromptError, VolumeMissingError
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.classification import ClassifyRequest
from FoundationSegLib.requests.classification_answer import Classification
from FoundationSegLib.requests.maintenance import DownloadRequest
from FoundationSegLib.requests.segmentation import (
    CheckpointRecord,
    PartialPrediction,
    Prediction,
    PredictRequest,
    SegmentPrediction,
)
from FoundationSegLib.worker import server
from FoundationSegLib.worker.protocol import Request
from Testing.unit.requests.classification_cases import answer

COMMAND = (sys.executable, "-P", "-m", "Testing.unit.worker.fake_worker")


class ScriptedEngine:
    """Answers with the voxels above zero, after doing what the segment's name says."""

    def __init__(self, keep: int = 100) -> None:
        self.keep = keep
        self.volumes: dict[str, Volume] = {}
        self.ahead = 0
        self.prepared = ""
        self.pause_s = 0.01

    def add_volume(self, volume: Volume) -> None:
        self.volumes[volume.key] = volume
        while len(self.volumes) > self.keep:
            self.volumes.pop(next(iter(self.volumes)))

    def remove_volume(self, volume_key: str) -> None:
        self.volumes.pop(volume_key, None)

    def prepare(self, model_id: str, progress: Progress) -> None:
        self.prepared = model_id

    def encode_ahead(self, progress: Progress) -> bool:
        if self.ahead <= 0:
            return False
        self.ahead -= 1
        for _ in range(100):
            time.sleep(0.01)
            progress.check()
        return True

    def predict(self, request: PredictRequest, progress: Progress) -> Prediction:
        if request.volume_key not in self.volumes:
            raise VolumeMissingError()
        volume = self.volumes[request.volume_key]
        self.follow(request.segments[0].name, request, progress)
        checkpoint = CheckpointRecord("fake", "fake-wheel", "1.0", "ab")
        found = (SegmentPrediction(pack_mask(volume.array_kji > 0), 0.5),) * len(request.segments)
        counts = {"pid": os.getpid(), "volumes": len(self.volumes), "ahead": self.ahead}
        return Prediction(
            request.request_id, found, {"rule": "none"}, checkpoint, "cpu", self.prepared, ("a note",), {}, counts
        )

    def classify(self, request: ClassifyRequest, progress: Progress) -> Classification:
        if request.volume_key not in self.volumes:
            raise VolumeMissingError()
        self.follow(request.labels.title, request, progress)
        counts = {"pid": os.getpid(), "labels": len(request.labels.labels)}
        return answer(request_id=request.request_id, counts=counts)

    def download(self, request: DownloadRequest, progress: Progress) -> None:
        self.follow(request.model_id, request, progress)

    def follow(self, script: str, request: Request, progress: Progress) -> None:
        for word in script.split():
            name, _, value = word.partition("=")
            getattr(self, f"do_{name}")(value, request, progress)

    def do_parts(self, value: str, request: Request, progress: Progress) -> None:
        """Tell of a further slice at each step, until it is to finish."""
        n = 0
        while n < int(value) and not progress.token.is_finishing:
            progress.partial(PartialPrediction((pack_mask(np.ones((1, 2, 2), bool), (n % 2, 0, 0)),)))
            progress.step("slices", n, int(value))
            n += 1
            time.sleep(self.pause_s)

    def do_answer(self, value: str, request: Request, progress: Progress) -> None:
        """Nothing more."""

    def do_pause(self, value: str, request: Request, progress: Progress) -> None:
        self.pause_s = float(value)

    def do_steps(self, value: str, request: Request, progress: Progress) -> None:
        for done in range(int(value)):
            progress.step("slices", done, int(value))
            time.sleep(self.pause_s)

    def do_hang(self, value: str, request: Request, progress: Progress) -> None:
        """Deaf to cancel."""
        time.sleep(float(value))

    def do_freeze(self, value: str, request: Request, progress: Progress) -> None:
        """The whole process, threads included."""
        os.kill(os.getpid(), signal.SIGSTOP)

    def do_die(self, value: str, request: Request, progress: Progress) -> None:
        sys.stderr.write("last words")
        sys.stderr.flush()
        os._exit(int(value))

    def do_lose(self, value: str, request: Request, progress: Progress) -> None:
        """The device, for good."""
        raise DeviceLostError(value)

    def do_die_once(self, value: str, request: Request, progress: Progress) -> None:
        if not Path(value).exists():
            Path(value).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def do_jitter(self, value: str, request: Request, progress: Progress) -> None:
        """So many steps in unequal times."""
        for done in range(int(value)):
            progress.step("slices", done, 999)
            time.sleep(random.uniform(0, 0.01))

    def do_spam(self, value: str, request: Request, progress: Progress) -> None:
        """What a library may print that warns in a loop."""
        sys.stderr.write("x" * int(value))

    def do_spawn(self, value: str, request: Request, progress: Progress) -> None:
        """A child that would live for minutes; its number goes to a file."""
        child = subprocess.Popen((sys.executable, "-c", "import time; time.sleep(150)"))
        Path(value).write_text(str(child.pid))

    def do_ahead(self, value: str, request: Request, progress: Progress) -> None:
        self.ahead = int(value)

    def do_fail(self, value: str, request: Request, progress: Progress) -> None:
        raise InferenceError(value)

    def do_refuse(self, value: str, request: Request, progress: Progress) -> None:
        raise PromptError(value, "segments[0].prompts[0]")

    def do_stumble(self, value: str, request: Request, progress: Progress) -> None:
        raise ZeroDivisionError(value)


def positive_mask(volume: Volume) -> NDArray[np.bool_]:
    return volume.array_kji > 0


if __name__ == "__main__":
    server.main(lambda settings: ScriptedEngine(keep=settings.budget.volumes))
