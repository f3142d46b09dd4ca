"""`python -m FoundationSegLib`: the command line."""

import os
import signal
import sys

# Until the command line can say it better, Ctrl-C ends the program without a word; unless it is to be ignored, as in
# the background of a script.
_INTERRUPTIBLE = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _INTERRUPTIBLE:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# ITK and VTK take names of files in UTF-8 alone: another encoding, as LC_ALL=C may bring, would end them in an abort.
if sys.platform != "win32" and sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})

from .commands.outputs import report_wrong_python  # noqa: E402 - after the line above, since imports take their time

try:
    from .commands.cli import main
except ModuleNotFoundError as error:
    sys.exit(report_wrong_python(error))

if __name__ == "__main__":
    if _INTERRUPTIBLE:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
