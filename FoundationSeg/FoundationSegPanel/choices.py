"""Combo boxes whose entries stand for values, with texts for people."""

from collections.abc import Callable, Sequence
from typing import Any


class ChoiceBox:
    """Keeps a combo box and a value in step; signals caused by showing are not reported.

    Args:
        box: the `QComboBox`.
        on_chosen: told the value that the user has chosen.
    """

    def __init__(self, box: Any, on_chosen: Callable[[str], None]) -> None:
        self._box, self._on_chosen = box, on_chosen
        self._values: tuple[str, ...] = ()
        box.connect("activated(int)", self._activated)

    def fill(self, entries: Sequence[tuple[str, str]]) -> None:
        """Show these values with their texts, unless they are shown already."""
        if self._values == tuple(value for value, _ in entries):
            return
        self._box.clear()
        self._values = tuple(value for value, _ in entries)
        for _, text in entries:
            self._box.addItem(text)

    def show(self, value: str) -> None:
        """Show a value; one that is not among the entries shows none."""
        index = self._values.index(value) if value in self._values else -1
        if self._box.currentIndex != index:
            self._box.setCurrentIndex(index)

    def _activated(self, index: int) -> None:
        if 0 <= index < len(self._values):
            self._on_chosen(self._values[index])
