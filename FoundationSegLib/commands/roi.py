"""`--roi`: the part of the image that a model sees."""

import argparse
import re
from dataclasses import dataclass

from ..imaging.geometry import Box, Geometry
from ..prompts.kinds import PromptSet
from ..prompts.regions import AroundPrompt, InsideBox, seen_box
from .slice_ranges import Ranges, box_of, box_ranges

_AROUND = re.compile(r"prompts(?::([0-9]{1,4}(?:\.[0-9]{1,3})?))?")
_USUAL_MARGIN_MM = 30.0


@dataclass(frozen=True, slots=True)
class Roi:
    """What was asked for: voxels along i, j and k, or (``margin_mm``) what is around the prompts."""

    ranges_ijk: Ranges | None
    margin_mm: float = 0.0

    def box(self, prompts: PromptSet, geometry: Geometry) -> Box:
        """The box of an image that it means; ``prompts`` in RAS, with their voxels.

        Raises:
            InputError: no voxel of the image is inside.
        """
        if self.ranges_ijk is None:
            every = [prompt for segment in prompts.segments for prompt in segment.prompts]
            return seen_box(AroundPrompt(self.margin_mm), every, geometry)
        return seen_box(InsideBox(box_of(self.ranges_ijk, geometry)), (), geometry)


def roi_argument(text: str) -> Roi:
    """The value of ``--roi``: ``I,J,K``, each START:STOP as in Python, or ``prompts`` and a margin in mm."""
    around = _AROUND.fullmatch(text)
    if around is not None:
        margin = float(around[1]) if around[1] is not None else _USUAL_MARGIN_MM
        if margin <= 0:
            raise argparse.ArgumentTypeError("the margin around the prompts must be above 0 mm")
        return Roi(None, margin)
    try:
        return Roi(box_ranges(text))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error} (or prompts:MM)") from error
