"""A real worker process that answers sessions as their fake client does; run as a module."""

import sys
import time

from FoundationSegLib.errors import VolumeMissingError
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.segmentation import Prediction, PredictRequest
from FoundationSegLib.worker import server
from Testing.unit.session.session_cases import FakeClient

COMMAND = (sys.executable, "-P", "-m", "Testing.unit.worker.session_worker")


class SessionEngine:
    """The answers of :class:`Testing.unit.core.session_cases.FakeClient`, in a few slow steps."""

    def __init__(self) -> None:
        self.volumes: dict[str, Volume] = {}

    def add_volume(self, volume: Volume) -> None:
        self.volumes[volume.key] = volume

    def remove_volume(self, volume_key: str) -> None:
        self.volumes.pop(volume_key, None)

    def prepare(self, model_id: str, progress: Progress) -> None:
        """Is ready."""

    def encode_ahead(self, progress: Progress) -> bool:
        return False

    def predict(self, request: PredictRequest, progress: Progress) -> Prediction:
        if request.volume_key not in self.volumes:
            raise VolumeMissingError()
        for done in range(4):
            progress.step("slices", done, 4)
            time.sleep(0.005)
        return FakeClient(self.volumes[request.volume_key]).prediction(request)


if __name__ == "__main__":
    server.main(lambda settings: SessionEngine())
