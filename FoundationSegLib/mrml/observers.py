"""Observers of VTK objects that are removed together and keep nobody alive."""

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

import vtk


class Observers:
    """Calls methods when VTK objects report events.

    The methods' owner is not kept alive: who is dropped without :meth:`remove` is not called any more. Observers that
    did keep it would be called on an object that Python's garbage collector has already emptied.
    """

    def __init__(self) -> None:
        self._tags: list[tuple[Any, int]] = []

    def __bool__(self) -> bool:
        return bool(self._tags)

    def add(self, observed: Any, event: int | str, method: Callable[..., Any], *arguments: Any) -> None:
        """Call a method with these arguments at every such event."""
        weak = WeakMethod(method)

        def call(*_: Any) -> None:
            if (alive := weak()) is not None:
                alive(*arguments)

        self._tags.append((observed, observed.AddObserver(event, call)))

    def add_for_nodes(self, scene: Any, event: int, method: Callable[[Any], Any]) -> None:
        """Call a method with the node that an event of a scene is about."""
        weak = WeakMethod(method)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def call(_scene: Any, _event: str, node: Any) -> None:
            if (alive := weak()) is not None:
                alive(node)

        self._tags.append((scene, scene.AddObserver(event, call)))

    def add_first(self, interactor: Any, event: str, method: Callable[..., bool], *arguments: Any) -> None:
        """Call a method before Slicer acts on an event of a view; where it returns True, Slicer does not act at all."""
        weak = WeakMethod(method)

        def call(*_: Any) -> None:
            command = interactor.GetCommand(tag)  # now, because the method may remove the observer
            if (alive := weak()) is not None and alive(*arguments):
                command.SetAbortFlag(1)

        # Slicer's own reactions have priority 0 (vtkMRMLViewInteractorStyle::SetInteractor).
        tag = interactor.AddObserver(event, call, 10.0)
        self._tags.append((interactor, tag))

    def remove(self) -> None:
        """Remove them all."""
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags = []
