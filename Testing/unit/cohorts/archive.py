"""A real archive on loopback, Orthanc with its DICOMweb plug-in, and a connection to it that breaks."""

import json
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from pydicom.uid import generate_uid

from Testing.unit.cohorts.conftest import BLOCK, SHAPE
from Testing.unit.io.conftest import AXIAL, dicom_image

USER, PASSWORD = "radiology", "pass-word-that-stays-secret"
PROGRAMS = ("Orthanc", "/usr/sbin/Orthanc", "/usr/local/sbin/Orthanc")
PLUGINS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc/plugins", "/usr/local/share/orthanc/plugins")


def find_orthanc() -> tuple[str, str] | None:
    """The program and its plug-in; None where either is missing (Debian: orthanc, orthanc-dicomweb)."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    plugins = (path for folder in PLUGINS for path in Path(folder).glob("libOrthancDicomWeb.so*"))
    plugin = next(plugins, None)
    return (program, str(plugin)) if program and plugin else None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def orthanc(folder: Path, program: str, plugin: str) -> Iterator[int]:
    """Run an archive with a configuration of its own on a free port."""
    port = free_port()
    configuration = {
        "Name": "tests",
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "Plugins": [plugin],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        while True:
            assert process.poll() is None, (folder / "log").read_text(errors="replace")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/system")
            except urllib.error.HTTPError as error:
                assert error.code == 401
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def write_study(folder: Path, number: int) -> str:
    """A CT series of a few slices with a block of tissue in air; returns the study's UID."""
    study, series, frame = (generate_uid(entropy_srcs=[f"{kind} {number}"]) for kind in ("study", "series", "frame"))
    array = np.full(SHAPE, -1000, np.int16)
    array[BLOCK] = 200 + number
    (folder / study).mkdir(parents=True)
    common = {"PatientBirthDate": "", "PatientSex": "", "StudyID": "", "AccessionNumber": "", "StudyTime": ""}
    common |= {"StudyInstanceUID": study, "SeriesInstanceUID": series, "FrameOfReferenceUID": frame}
    common |= {"PatientID": f"secret-{number}", "StudyDate": "20260101", "SpecificCharacterSet": ""}
    common |= {"ImageOrientationPatient": list(AXIAL), "PixelSpacing": [1, 1], "SliceThickness": "1"}
    for k, pixels in enumerate(array):
        image = dicom_image(pixels, ImagePositionPatient=[0, 0, k], InstanceNumber=k + 1, **common)
        image.save_as(folder / study / f"{k}.dcm", enforce_file_format=True)
    return str(study)


class BreakingConnection:
    """A way to a port of this computer that breaks a number of times, each after so many bytes that nobody foresees."""

    def __init__(self, port: int, seed: int, most_bytes: int) -> None:
        self.target, self.most_bytes, self.chance = port, most_bytes, random.Random(seed)
        self.breaks_left = self.breaks = 0
        self._lock = threading.Lock()
        self._until_break = self.chance.randrange(most_bytes)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                part = data[: self._count(len(data))]
                target.sendall(part)
                if len(part) < len(data):
                    for end in (source, target):  # a reset, not an orderly end
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        end.shutdown(socket.SHUT_RDWR)
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _count(self, length: int) -> int:
        """How many of these bytes go through; all of them unless the connection breaks within."""
        with self._lock:
            self._until_break -= length
            if self._until_break > 0 or not self.breaks_left:
                return length
            self.breaks_left, self.breaks = self.breaks_left - 1, self.breaks + 1
            passed = max(0, min(length - 1, length + self._until_break))
            self._until_break = self.chance.randrange(self.most_bytes)
            return passed
