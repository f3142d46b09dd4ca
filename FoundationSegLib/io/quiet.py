"""ITK and the C libraries below it, kept off the terminal."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

import SimpleITK as sitk

# The descriptors belong to the whole process: two threads that turn them aside at once would restore them wrongly.
_ONE_AT_A_TIME = threading.RLock()
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep what ITK has to say off standard output and standard error; the list holds those lines after the block.

    ITK's own warnings can be switched off, but libtiff, libjpeg, MetaIO and HDF5 write to the descriptors themselves,
    and some damage ("Premature end of JPEG file") is told nowhere else.
    """
    lines: list[str] = []
    with _ONE_AT_A_TIME, _without_itk_warnings(), TemporaryFile() as sink:
        try:
            with _sent_to(sink.fileno(), _STANDARD_OUTPUT), _sent_to(sink.fileno(), _STANDARD_ERROR):
                yield lines
        finally:
            sink.seek(0)
            lines += sink.read().decode(errors="replace").splitlines()


@contextmanager
def _without_itk_warnings() -> Iterator[None]:
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


@contextmanager
def _sent_to(sink: int, descriptor: int) -> Iterator[None]:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a process without a console has none
            stream.flush()
    try:
        saved = os.dup(descriptor)
    except OSError:  # nor the descriptor, and nothing to keep quiet
        yield
        return
    os.dup2(sink, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
