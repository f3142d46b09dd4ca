"""How prompts look: a green plus for what belongs to the segment, a red minus for what does not."""

from collections.abc import Mapping
from typing import Any

from ..core.prompts import PointPrompt, Polarity, Prompt

Colour = tuple[float, float, float]

# Bright on grey images, and apart in lightness for those who see no difference between red and green.
COLOURS: Mapping[Polarity, Colour] = {Polarity.POSITIVE: (0.35, 1.0, 0.45), Polarity.NEGATIVE: (1.0, 0.3, 0.2)}

_ACTIVE: Colour = (1.0, 0.9, 0.2)
_GLYPHS: Mapping[Polarity, str] = {Polarity.POSITIVE: "ThickCross2D", Polarity.NEGATIVE: "Dash2D"}
# In percent of the screen's diagonal, as Slicer counts glyphs, and in parts of a glyph. Lines are as wide as Slicer's
# own, 0.2 of a glyph of 3: it draws them as bands, which have gaps where they are much narrower than two pixels.
_POINT_SIZE, _CORNER_SIZE, _LINE_THICKNESS = 3.0, 1.0, 0.6
_FADING_MM = 0.1


def style_node(node: Any, prompt: Prompt) -> None:
    """Give the display of a markups node the look of its prompt; it must have one."""
    display = node.GetDisplayNode()
    colour = COLOURS[prompt.polarity]
    display.SetColor(*colour)
    display.SetSelectedColor(*colour)  # of control points that are "selected", as all of them are at first
    display.SetActiveColor(*_ACTIVE)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetHandlesInteractive(False)
    display.SetFillVisibility(False)
    display.SetSnapMode(display.SnapModeUnconstrained)
    is_point = isinstance(prompt, PointPrompt)
    display.SetGlyphTypeFromString(_GLYPHS[prompt.polarity] if is_point else "Square2D")
    display.SetUseGlyphScale(True)
    display.SetGlyphScale(_POINT_SIZE if is_point else _CORNER_SIZE)
    display.SetLineThickness(_LINE_THICKNESS)
    # Behind the start of the fading, Slicer turns green lines orange, towards the other polarity
    # (vtkSlicerMarkupsWidgetRepresentation2D::UpdateDistanceColorMap): it starts where they end.
    display.SetLineColorFadingStart(display.GetLineColorFadingEnd() - _FADING_MM)
