"""What each rank's share of the work costs it, and for which ranks the others wait."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

# Seconds of training over which ranks are compared: epochs can be shorter than their own noise.
_LONG_ENOUGH = 5.0
# Times as long as the median of the ranks: more than noise, and worth a look at the machine.
_SLOW = 1.5


@dataclass(frozen=True)
class RankUsage:
    """What a process used for some steps.

    Attributes
    ----------
    rank : int
        The first of the process.
    steps : int
    seconds : float
        The steps took.
    waited : float
        Seconds of these for other ranks.
    memory : int
        Resident bytes.
    device_memory : int
        Bytes of its GPU; 0 without one.
    """

    rank: int
    steps: int
    seconds: float
    waited: float
    memory: int
    device_memory: int

    @property
    def own_seconds(self) -> float:
        """What a step costs the rank itself."""
        return (self.seconds - self.waited) / max(self.steps, 1)

    def after(self, past: RankUsage) -> RankUsage:
        """Return the usage of its steps and of those before them."""
        return replace(
            self,
            steps=self.steps + past.steps,
            seconds=self.seconds + past.seconds,
            waited=self.waited + past.waited,
        )

    def as_event(self) -> dict[str, Any]:
        """Return it as JSON; times rounded to microseconds."""
        return {key: round(value, 6) for key, value in asdict(self).items()}

    def describe(self) -> str:
        """Return it as words."""
        gpu = f", {self.device_memory / 1e6:,.0f} MB of the GPU" if self.device_memory else ""
        step = 1000 * self.seconds / max(self.steps, 1)
        return (
            f"{self.steps} steps, {step:.3f} ms each, {self.waited / max(self.seconds, 1e-9):.0%} "
            f"waiting for other ranks; {self.memory / 1e6:,.0f} MB{gpu}"
        )


class Stragglers:
    """Finds ranks that are slow, over seconds of training rather than single epochs."""

    def __init__(self) -> None:
        self._usages: list[RankUsage] = []
        self._named: set[int] = set()

    def slow(self, usages: Sequence[RankUsage]) -> list[str]:
        """Say which ranks are found to be slow that were not before.

        Parameters
        ----------
        usages : sequence of RankUsage
            All ranks' since the last call, in their order.

        Returns
        -------
        list of str
            A line for each.
        """
        if len(usages) < 2 or not all(usage.waited for usage in usages):
            return []
        before = self._usages or [replace(usage, steps=0, seconds=0, waited=0) for usage in usages]
        self._usages = [usage.after(past) for usage, past in zip(usages, before, strict=True)]
        if self._usages[0].seconds < _LONG_ENOUGH:
            return []
        found, self._usages = self._usages, []
        lines, named = [], set()
        for usage in found:
            others = [other.own_seconds for other in found if other is not usage]
            ratio = usage.own_seconds / max(statistics.median(others), 1e-9)
            if ratio > _SLOW:
                named.add(usage.rank)
                if usage.rank not in self._named:
                    lines.append(
                        f"rank {usage.rank} is slow: its own part of a step takes "
                        f"{1000 * usage.own_seconds:.2f} ms, {ratio:.1f} times as long as the "
                        "median of the others, and all wait for it"
                    )
        self._named = named
        return lines
