"""Ctrl-C where it must not strike."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C count at the end of the block only.

    For the imports of extension modules: interrupted in their midst, VTK's end in a broken import, or in a crash of the
    interpreter (14 of 47 tries).

    Raises:
        KeyboardInterrupt: at the end, if it came.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    came: list[bool] = []
    previous = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if came:
        raise KeyboardInterrupt
