"""The boundary between Qt and Python: what goes wrong in a slot is told to the user, and never lost."""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from FoundationSegLib.errors import FoundationSegError


class Telling(Protocol):
    """Whoever has slots: it can tell the user of an error."""

    def tell(self, error: FoundationSegError) -> None:
        """Show an error."""
        ...


Owner = TypeVar("Owner", bound=Telling)
Arguments = ParamSpec("Arguments")


def slot(method: Callable[Concatenate[Owner, Arguments], None]) -> Callable[..., None]:
    """A method that signals may be connected to.

    An error is told by its owner's ``tell`` instead of ending in the log. Arguments that a signal has and the method
    does not want are dropped, as PythonQt does it for plain functions.
    """
    wanted = len(inspect.signature(method).parameters) - 1

    @functools.wraps(method)
    def guarded(self: Owner, *arguments: Any) -> None:
        try:
            method(self, *arguments[:wanted])  # type: ignore[call-arg]
        except FoundationSegError as error:
            self.tell(error)
        except Exception as error:  # the GUI's boundary: a defect must not be silent, and must not end the session
            logging.getLogger("FoundationSeg").exception("a defect of FoundationSeg")
            self.tell(FoundationSegError(f"a defect of FoundationSeg: {type(error).__name__}: {error}"))

    return guarded
