"""What ends training before its time, and how often ranks look for it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Protocol

from tal1_hvd.training.checkpoint import Checkpoint

# Told from other errors by those who start a training.
NOT_FINITE = "the loss is not finite any more"
# By schedulers, before they end a job.
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Of the time that training takes, what looking may take...
_SHARE = 0.02
# ...and the most seconds without a look: schedulers leave a job 30 before they kill it.
_LONGEST = 5.0


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """A signal has ended training; a checkpoint holds all that was done. Says how much that is."""


class Left(Stopped):
    """The same for one of several ranks that come and go: the others go on without it."""


class RanksChanged(Exception):  # noqa: N818 (nothing went wrong)
    """Ranks come or go; training goes on among those that are there then."""


class Keeper(Protocol):
    """Keeps what training has reached where ranks come and go."""

    def keep(self, checkpoint: Checkpoint) -> None:
        """Remember the newest state, with the best weights; called on every rank."""

    def changed(self) -> bool:
        """Say whether this process has heard of ranks that come or go."""


class Signals:
    """Notes SIGTERM and SIGUSR1 while its block runs, and what a block around it has noted.

    Signals reach the main thread alone: in others the block does nothing. A block around this one
    is for a process that only trains: there, once training is stopped, signals are ignored until
    the process ends, as the same request reaches some ranks when others have already seen to it.

    Parameters
    ----------
    numbers : sequence of Signals, optional

    Attributes
    ----------
    received : int
        The latest, 0 for none.
    """

    def __init__(self, numbers: Sequence[signal.Signals] = _SIGNALS) -> None:
        self.received = 0
        self._numbers = numbers
        self._around: Signals | None = None
        self._to_the_end = False
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                before = self._before[number] = signal.signal(number, self._note)
                around = getattr(before, "__self__", None)
                if isinstance(around, Signals):
                    self._around, self.received = around, around.received
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if self._around is not None and isinstance(error, Stopped):
            self._around._to_the_end = True
            # Not noted in Python, which ends its handlers before the process ends.
            for number in self._before:
                signal.signal(number, signal.SIG_IGN)
        elif not self._to_the_end:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number


class Rhythm:
    """Counts graph calls between the points at which ranks look for interruptions.

    As many lie between two of them as keep their cost to 2 % of the time, but no more than take 5
    seconds, by rank 0's clock.
    """

    def __init__(self) -> None:
        self.proposal = 1
        self._every = 1
        self._calls = 0
        self._since = time.perf_counter()
        self._began = self._since

    def due(self) -> bool:
        """Count a call; say whether ranks look now."""
        self._calls += 1
        if self._calls < self._every:
            return False
        self._began = time.perf_counter()
        return True

    def looked(self, every: int) -> None:
        """Note that ranks have looked, and after how many calls they do so again."""
        now = time.perf_counter()
        a_call = max((self._began - self._since) / self._calls, 1e-9)
        interval = min((now - self._began) / _SHARE, _LONGEST)
        self.proposal = max(int(interval / a_call), 1)
        self._every, self._calls, self._since = every, 0, now
