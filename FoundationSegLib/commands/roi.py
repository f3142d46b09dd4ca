"""`--roi`: the part of the image that a model sees."""

import argparse
import re
from dataclasses import dataclass

from ..core.cropping import seen_box
from ..core.geometry import Box, Geometry
from ..core.prompts import PromptSet
from ..core.regions import AroundPrompt, InsideBox
from .slice_ranges import slice_range

_AROUND = re.compile(r"prompts(?::([0-9]{1,4}(?:\.[0-9]{1,3})?))?")
_USUAL_MARGIN_MM = 30.0

Range = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Roi:
    """What was asked for: voxels along i, j and k, or (``margin_mm``) what is around the prompts."""

    ranges_ijk: tuple[Range, Range, Range] | None
    margin_mm: float = 0.0

    def box(self, prompts: PromptSet, geometry: Geometry) -> Box:
        """The box of an image that it means; ``prompts`` in RAS, with their voxels.

        Raises:
            InputError: no voxel of the image is inside.
        """
        if self.ranges_ijk is None:
            every = [prompt for segment in prompts.segments for prompt in segment.prompts]
            return seen_box(AroundPrompt(self.margin_mm), every, geometry)
        low, high = [], []
        for (start, stop), length in zip(self.ranges_ijk[::-1], geometry.shape_kji, strict=True):
            low.append(start or 0)
            high.append(length if stop is None else stop)
        region = InsideBox(Box((low[0], low[1], low[2]), (high[0], high[1], high[2])))
        return seen_box(region, (), geometry)


def roi_argument(text: str) -> Roi:
    """The value of ``--roi``: ``I,J,K``, each START:STOP as in Python, or ``prompts`` and a margin in mm."""
    around = _AROUND.fullmatch(text)
    if around is not None:
        margin = float(around[1]) if around[1] is not None else _USUAL_MARGIN_MM
        if margin <= 0:
            raise argparse.ArgumentTypeError("the margin around the prompts must be above 0 mm")
        return Roi(None, margin)
    ranges = [slice_range(part) for part in text.split(",")]
    if len(ranges) != 3:
        message = f"{text[:40]!r} is not of the form START:STOP,START:STOP,START:STOP (along i, j and k) or prompts:MM"
        raise argparse.ArgumentTypeError(message)
    return Roi((ranges[0], ranges[1], ranges[2]))
