"""How the benchmarks measure: medians of ten after one warm-up, both sides in the same run."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

REPEATS = 10
THREADS = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ways of doing the same thing, in seconds; ``note`` is what else was measured."""

    what: str
    ours_s: float
    yardstick: str
    yardstick_s: float
    note: str = ""

    def __str__(self) -> str:
        ratio = self.yardstick_s / self.ours_s
        ours, theirs = self.ours_s * 1000, self.yardstick_s * 1000
        return f"{self.what}: {ours:.1f} ms; {self.yardstick}: {theirs:.1f} ms; {ratio:.2f} x{self.note}"


def median_s(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median time of a piece of work, in seconds, after one run that does not count."""
    work()
    return statistics.median(timed_s(work) for _ in range(repeats))


def timed_s(work: Callable[[], object]) -> float:
    """The time of a piece of work, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
