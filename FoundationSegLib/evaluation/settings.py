"""How models are compared: which prompts they are given, and what a model must understand for that."""

from dataclasses import dataclass
from typing import Literal

from ..core.cards import ModelCard
from ..core.errors import InputError

Protocol = Literal["box", "clicks", "box+clicks"]
CHALLENGE_SEED = 42  # numpy.random.seed(42) before each click, in the challenge's CVPR25_iter_eval.py


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """How every model and every object is treated alike.

    Attributes:
        protocol: what is given: a box, clicks alone, or a box and clicks.
        clicks: how many; at least 1.
        nsd_tolerance_mm: see :func:`~.metrics.surface_dice`.
        intensity: the policy, :mod:`FoundationSegLib.core.intensity`.
        seed: see :func:`~.clicks.next_click`.
    """

    protocol: Protocol
    clicks: int = 5
    nsd_tolerance_mm: float = 2.0
    intensity: str = "auto"
    seed: int = CHALLENGE_SEED

    @property
    def has_box(self) -> bool:
        """True where a box comes first."""
        return self.protocol != "clicks"

    @property
    def click_steps(self) -> int:
        """How many of the predictions of each object follow a click."""
        return 0 if self.protocol == "box" else self.clicks

    @property
    def steps(self) -> int:
        """How many predictions are made of each object."""
        return self.has_box + self.click_steps


def require_protocol(card: ModelCard, protocol: Protocol) -> None:
    """Make sure that a model understands what a protocol gives it: boxes, or clicks of both polarities.

    Raises:
        InputError: it does not; the message names the protocol that it can be evaluated with, if there is one.
    """
    takes_boxes = card.understands("box")
    takes_clicks = card.understands("point") and "point" in card.negative
    needs_boxes, needs_clicks = protocol != "clicks", protocol != "box"
    if (takes_boxes or not needs_boxes) and (takes_clicks or not needs_clicks):
        return
    if takes_boxes:
        raise InputError(f"{card.id} understands boxes, but no clicks for and against: use --protocol box")
    if takes_clicks:
        raise InputError(f"{card.id} understands clicks, but no boxes: use --protocol clicks")
    raise InputError(f"{card.id} understands neither boxes nor clicks for and against, and cannot be evaluated")
