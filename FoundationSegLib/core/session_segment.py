"""One segment of a session: what scripts and panels do to it."""

from collections.abc import Mapping
from dataclasses import dataclass

from .actions import Action
from .errors import InputError
from .prompts import Polarity, Prompt
from .regions import Region
from .requests import Propagation
from .session import Session
from .steps import (
    PROMPT_STEPS,
    ModelChoice,
    PolarityChanged,
    PromptAdded,
    PromptMoved,
    PromptRemoved,
    PropagateStep,
    RegionStep,
    Step,
    Steps,
    restated,
    standing,
)


@dataclass(frozen=True, slots=True)
class SegmentSession:
    """A segment of a session. Holds nothing itself: any number of these may stand for the same segment.

    Every change asks the model again. All methods that change something raise what :meth:`.session.Session.act` raises.
    """

    session: Session
    segment_id: str

    @property
    def steps(self) -> Steps:
        """All steps of the segment, written ones first, then those that wait for an answer."""
        self.session.ledger.record(self.segment_id)
        return self.session.steps(self.segment_id)

    @property
    def prompts(self) -> Mapping[str, Prompt]:
        """The prompts by their keys, in the order in which they were first given."""
        return {held.key: held.prompt for held in standing(self.steps).prompts}

    @property
    def next_key(self) -> int:
        """The number of the key that the next prompt gets; none that the segment had comes again."""
        numbers = [int(step.key) for step in self.steps if isinstance(step, PROMPT_STEPS) and step.key.isdecimal()]
        return max(numbers, default=0) + 1

    def add(self, *prompts: Prompt) -> tuple[str, ...]:
        """Give prompts, together; returns their keys."""
        first = self.next_key
        keys = tuple(str(first + n) for n in range(len(prompts)))
        self._act(*(PromptAdded(key, prompt) for key, prompt in zip(keys, prompts, strict=True)))
        return keys

    def remove(self, *keys: str) -> None:
        """Take prompts back, whichever they are. What they added goes, unless it became the seed meanwhile."""
        self._act(*(PromptRemoved(key) for key in keys))

    def move(self, key: str, prompt: Prompt) -> None:
        """Put a prompt elsewhere, or change it in any other way."""
        self._act(PromptMoved(key, prompt))

    def set_polarity(self, key: str, polarity: Polarity) -> None:
        """Make a prompt positive or negative."""
        self._act(PolarityChanged(key, polarity))

    def propagate(self, propagation: Propagation | None = None) -> None:
        """Carry on what was found on slices. Slices that were corrected, by hand or by prompts, stay as they are."""
        self._act(PropagateStep(propagation or Propagation()))

    def limit(self, region: Region | None) -> None:
        """Limit what comes to a region; None: not any more."""
        self._act(RegionStep(region))

    def ask_again(self, choice: ModelChoice) -> None:
        """Ask another model, or another version, with the same prompts; corrections by hand are asked for first."""
        self._replace(restated(self.steps, choice), is_asked_again=True)

    def replay(self, steps: Steps) -> None:
        """Put other steps in the place of the segment's own, for example those of an earlier session."""
        if not steps:
            raise InputError("there are no steps to replay")
        self._replace(steps)

    def _replace(self, steps: Steps, is_asked_again: bool = False) -> None:
        self.session.act(Action({self.segment_id: steps}, self.session.options.choice, True, is_asked_again))

    def _act(self, *steps: Step) -> None:
        if steps:
            self.session.act(Action({self.segment_id: steps}, self.session.options.choice))
