"""The command line's frame: arguments, exit codes, and one clear line for every error."""

import argparse
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn

from .. import __version__
from ..catalog.catalogue import read_catalogue
from ..catalog.model_cards import ModelCard
from ..errors import FoundationSegError, did_you_mean
from ..installation.packages import PipTool
from ..requests.maintenance import WorkerSettings
from ..worker.client import Client
from ..worker.process_client import ProcessClient
from . import adapt, batch, classify, classify_evaluate, evaluate, heads, mcp, models, pacs, report, segment
from .outputs import BAD_INPUT, FAILED, INTERRUPTED, SUCCESS, one_line, report_wrong_python, say

PROGRAM = "foundationseg"


_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)")


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one line, and asks whether a word that is nearly one of its own was meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, and refuse what is left over here, where the options are known."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near and f'; {near}'}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        choice = _CHOICE.search(message)
        near = did_you_mean(choice[1], re.findall(r"[\w.+-]+", choice[2])) if choice else ""
        message += near and f"; {near}"
        self.exit(BAD_INPUT, one_line(f"{PROGRAM}: {message} (see '{self.prog} --help')") + "\n")


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of every command; each command's function is in ``run``."""
    parser = _Parser(prog="python -m FoundationSegLib", description="Segment medical images with foundation models.")
    parser.add_argument("--version", action="version", version=f"FoundationSeg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, add_arguments, purpose in (
        ("segment", segment.add_arguments, "segment an image from prompts"),
        ("batch", batch.add_arguments, "segment or classify many images, on all cores or a cluster"),
        ("report", report.add_arguments, "write a page about a case or a scene"),
        ("classify", classify.add_arguments, "score labels in an image, by words"),
        ("classify-evaluate", classify_evaluate.add_arguments, "how good the scores of 'classify' are"),
        ("heads", heads.add_arguments, "learn labels from few examples, for 'classify --head'"),
        ("label-sets", classify.add_label_set_arguments, "list and show the labels to classify with"),
        ("evaluate", evaluate.add_arguments, "compare models on an image with a known truth"),
        ("adapt", adapt.add_arguments, "adapt a model to corrected segments, and keep it if it is better"),
        ("mcp", mcp.add_arguments, "serve agents on standard streams or on loopback"),
        ("pacs", pacs.add_arguments, "find, fetch and store studies in an archive over DICOMweb"),
        ("models", models.add_arguments, "list, explain and download models"),
    ):
        add_arguments(commands.add_parser(name, help=purpose))
    return parser


def main(
    arguments: Sequence[str] | None = None,
    connect: Callable[[WorkerSettings], Client] = ProcessClient,
    catalogue: Callable[[], Mapping[str, ModelCard]] = read_catalogue,
    pip: Callable[[], PipTool] = PipTool,
) -> int:
    """Run a command.

    Args:
        arguments: those of the command line.
        connect: makes the client that does the work; by default a worker process of its own.
        catalogue: reads the cards of the models.
        pip: makes the installer of packages.

    Returns:
        The exit code: 0 success, 1 failed, 2 bad usage or bad input, 3 model missing, not accepted or damaged, 130
        interrupted.
    """
    options = argparse.Namespace(debug=False, connect=connect, catalogue=catalogue, pip=pip)
    try:
        build_parser().parse_args(arguments, options)
        if not options.debug:
            sys.excepthook = _report_unexpected
            warnings.simplefilter("ignore")  # what libraries tell their developers is not for the user
        run: Callable[[argparse.Namespace], None] = options.run
        run(options)
    except FoundationSegError as error:
        return _fail(options, error, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        if options.debug:
            traceback.print_exception(error)
        return report_wrong_python(error)
    except OSError as error:
        return _fail(options, error, error.strerror or type(error).__name__, FAILED)
    except KeyboardInterrupt as error:
        return _fail(options, error, "interrupted; nothing was written", INTERRUPTED)
    return SUCCESS


def _fail(options: argparse.Namespace, error: BaseException, message: str, code: int) -> int:
    if options.debug:
        traceback.print_exception(error)
    say(f"{PROGRAM}: {message}")
    return code


def _report_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    del trace
    say(f"{PROGRAM}: unexpected {kind.__name__}: {error}; run again with --debug to see where")
