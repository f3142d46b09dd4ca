"""How prompts look: green and round for what belongs to the segment, red and crossed for what does not."""

from collections.abc import Mapping

from ..core.prompts import Polarity

Colour = tuple[float, float, float]

# Bright on grey images, and apart in lightness for those who see no difference between red and green.
COLOURS: Mapping[Polarity, Colour] = {Polarity.POSITIVE: (0.35, 1.0, 0.45), Polarity.NEGATIVE: (1.0, 0.3, 0.2)}
