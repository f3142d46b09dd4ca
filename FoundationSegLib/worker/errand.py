"""An errand: one task in a process of a chosen Python, which may have no packages at all. Whoever asks never waits.

What a worker is for (requests about images, one after the other) is none of it: an errand looks what a Python has,
installs packages there, or moves checkpoints, while the worker goes on or is stopped.
"""

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from ..core.errors import Cancelled, FoundationSegError, InputError
from ..core.progress import ProgressReport
from .documents import error_from_frame
from .frames import Frame
from .processes import kill_tree, spawn

Task = Literal["inspect", "plan_packages", "install_packages", "import_checkpoint", "remove_checkpoints"]

_CANCEL_S = 2.0  # what it may take to stop by itself: pip has to clean up
_LOG_TAIL = 4000
_WAIT_S = 0.02


@dataclass(slots=True)
class Errand:
    """A task under way. Made by :meth:`start`; :meth:`poll` until :attr:`is_done`, then :meth:`result`.

    Attributes:
        process: the process that does it.
    """

    process: subprocess.Popen[bytes]
    _folder: tempfile.TemporaryDirectory[str]
    _output: IO[bytes]
    _rest: bytes = b""
    _ended: bool = False
    _result: Any = None
    _error: FoundationSegError | None = None
    _must_end: float | None = None
    _reports: list[ProgressReport] = field(default_factory=list)

    @staticmethod
    def start(
        command: Sequence[str],
        task: Task,
        arguments: Mapping[str, Any],
        inherited: Mapping[str, str] | None = None,
    ) -> "Errand":
        """Start an errand; returns at once.

        Args:
            command: :func:`~.settings.worker_command` with the module ``"errand_main"``.
            task: what to do.
            arguments: what the task needs, as JSON values.
            inherited: see :func:`~.processes.environment`.

        Raises:
            InputError: there is no such Python, or it cannot be started.
        """
        with contextlib.ExitStack() as undo:
            folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            undo.callback(folder.cleanup)
            output, log = Path(folder.name) / "output", Path(folder.name) / "log"
            try:
                # Opened twice: a place that both processes share would be moved by reading.
                with output.open("wb") as writing, log.open("wb") as logging:
                    process = spawn(command, writing, logging, inherited)
                reading = output.open("rb")
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise InputError(f"the Python {Path(command[0]).name!r} cannot be started: {reason}") from error
            undo.pop_all()
        assert process.stdin is not None  # it was asked for; it stays open, and where it closes the errand ends
        with contextlib.suppress(OSError):  # it may have ended already, which is found out soon
            process.stdin.write(json.dumps({"task": task, "arguments": dict(arguments)}).encode() + b"\n")
            process.stdin.flush()
        return Errand(process, folder, reading)

    @property
    def is_done(self) -> bool:
        """True once there is a result, or a failure."""
        return self._ended

    def poll(self) -> tuple[ProgressReport, ...]:
        """How far it is: the reports since the last call. Never waits."""
        if self._ended:
            return ()
        if self._must_end is not None and time.monotonic() > self._must_end:
            kill_tree(self.process)
        code = self.process.poll()
        for line in self._lines():
            self._take(line)
        if code is not None:
            self._end(code)
        reports, self._reports = tuple(self._reports), []
        return reports

    def result(self) -> Any:
        """What the task brought, as JSON values.

        Raises:
            FoundationSegError: it failed, or was stopped.
        """
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        """Stop it: it fails as cancelled. It has a moment to clean up before it is killed."""
        if self._ended or self._must_end is not None:
            return
        self._error = Cancelled("stopped on request")
        self._must_end = time.monotonic() + _CANCEL_S
        self._hang_up()

    def close(self) -> None:
        """Kill it, if it has not ended, with all its children. May be called twice."""
        if not self._ended:
            self._error = Cancelled("stopped on request")
            kill_tree(self.process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            self._clear()

    def finish(self) -> Any:
        """Wait until it is done, and return its result. For scripts, not for panels.

        Raises:
            FoundationSegError: it failed.
        """
        try:
            while not self._ended:
                self.poll()
                time.sleep(_WAIT_S)
        finally:
            self.close()
        return self.result()

    def _lines(self) -> Iterator[bytes]:
        *whole, self._rest = (self._rest + self._output.read()).split(b"\n")
        yield from whole

    def _take(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            if "progress" in told:
                self._reports.append(ProgressReport(**told["progress"]))
            elif self._error is None and "error" in told:
                self._error = error_from_frame(Frame(told["error"]))
            elif "result" in told:
                self._result = told["result"]
        except (ValueError, TypeError, KeyError):
            return  # no word of ours; what is missing is found out at the end

    def _end(self, code: int) -> None:
        log = Path(self._folder.name, "log").read_bytes()[-_LOG_TAIL:].decode(errors="replace")
        if self._error is None and self._result is None:
            self._error = InputError(_reason(code, log))
            self._error.add_note(log)
        kill_tree(self.process)  # what it may have left behind
        self._clear()

    def _clear(self) -> None:
        self._ended = True
        self._hang_up()
        self._output.close()
        self._folder.cleanup()

    def _hang_up(self) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


def _reason(code: int, log: str) -> str:
    if code < 0:
        return f"the errand was ended from outside (signal {-code}), or met a fault of this Python; try again"
    if "nknown option: -P" in log or "option -P" in log:
        return "this Python is too old; it has to be 3.11 or newer"
    if "FoundationSegLib" in log and "No module named" in log:
        return "this Python does not find FoundationSeg; it may be in a sandbox that does not see Slicer's folders"
    return f"this Python ended with code {code} before it had an answer; is it a Python?"
