"""The legend: what each segment is called, its colour and its volume."""

from collections.abc import Sequence
from dataclasses import dataclass

from .labels import BLACK, Colour, Pen
from .subjects import Subject

_BACKGROUND_OPACITY = 0.45
_WIDEST_PART = 0.3
_TALLEST_PART = 0.55


@dataclass(frozen=True, slots=True)
class _Row:
    colour: Colour | None
    name: str
    amount: str


def draw_legend(pen: Pen, subjects: Sequence[Subject], with_volumes: bool = True) -> tuple[float, float]:
    """Draw it in the upper left corner of a panel; a last row ``+n`` counts the segments that found no room.

    Returns:
        The width and height that it takes from the corner, in pixels, with a margin.
    """
    rows = _rows(pen, subjects, with_volumes)
    if not rows:
        return 0.0, 0.0
    line, space = pen.font_px * 1.5, pen.font_px * 0.6
    _, top = pen.renderer.GetSize()
    names = max(pen.width(row.name) for row in rows)
    amounts = max(pen.width(row.amount) for row in rows) + 2 * space if with_volumes else 0.0
    right, bottom = line + names + amounts + 2 * space, top - 2 * space - line * len(rows)
    pen.fill((space, bottom, right, top - space), BLACK, _BACKGROUND_OPACITY)
    for number, row in enumerate(rows):
        middle = top - 1.5 * space - line * (number + 0.5)
        if row.colour is not None:
            pen.fill((1.6 * space, middle - space * 0.6, 2.8 * space, middle + space * 0.6), row.colour)
        pen.write(row.name, (1.6 * space + line, middle), ("left", "centre"))
        pen.write(row.amount, (right - space, middle), ("right", "centre"))
    return right + space, top - bottom + space


def _rows(pen: Pen, subjects: Sequence[Subject], with_volumes: bool) -> list[_Row]:
    width, height = pen.renderer.GetSize()
    room = max(2, int(_TALLEST_PART * height / (pen.font_px * 1.5)))
    shown = subjects if len(subjects) <= room else subjects[: room - 1]
    rows = [
        _Row(s.colour, pen.shorten(s.name, _WIDEST_PART * width), format_volume(s.volume_mm3) if with_volumes else "")
        for s in shown
    ]
    if len(shown) < len(subjects):
        rows.append(_Row(None, f"+{len(subjects) - len(shown)}", ""))
    return rows


def format_volume(volume_mm3: float) -> str:
    """Millilitres with three digits, or all digits where there are more before the point: ``"0.042 ml"``."""
    volume_ml = volume_mm3 / 1000
    return f"{volume_ml:.0f} ml" if volume_ml >= 100 else f"{volume_ml:.3g} ml"
