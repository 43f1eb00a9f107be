"""Notices a rank that has stopped, which collectives alone would wait for forever.

Each rank's watchdog thread touches a file of its own in the run folder once a second, and looks at
the next rank's. A file that stays untouched for the timeout, by the looking rank's own clock, means
that the whole process behind it stands still (stopped, swapped out, its machine gone); the one that
looks names it and ends its own process, upon which the launcher ends the job. Watching in a ring
costs one look a second however many ranks there are. Touching needs no disk space.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tal1_hvd.distributed.rank_process import end_process
from tal1_hvd.errors import InputError

_INTERVAL = 1.0


class Watchdog:
    """Watches the next rank while its block runs; does nothing on one rank or without a timeout.

    Parameters
    ----------
    folder : Path
        Seen by all ranks; made if missing. A rank whose file cannot be seen from here (the folder
        is not shared between machines) is not watched, which is said once.
    rank, size : int
    timeout : float
        Seconds; 0 for no watch.
    session : str
        The same on all ranks and new for each start, so that an earlier start's files do not count.
    end : callable, optional
        Called with a message when the next rank is silent; by default prints it and ends this
        process with exit code 1.
    interval : float
        Seconds between signs of life.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        size: int,
        timeout: float,
        session: str,
        end: Callable[[str], None] | None = None,
        interval: float = _INTERVAL,
    ):
        self._active = size > 1 and timeout > 0
        self._own = folder / f"rank-{rank}"
        self._watched_rank = (rank + 1) % size
        self._watched = folder / f"rank-{self._watched_rank}"
        self._timeout = timeout
        self._session = session
        self._end = (lambda message: end_process(message, 1)) if end is None else end
        self._interval = min(interval, timeout / 4) if timeout else interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def __enter__(self) -> Watchdog:
        if self._active:
            try:
                self._own.parent.mkdir(parents=True, exist_ok=True)
                self._own.write_text(
                    f"{self._session} host {os.uname().nodename}, process {os.getpid()}"
                )
            except OSError as error:
                raise InputError(f"{self._own}: cannot be written: {error.strerror}") from None
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._active:
            self._stop.set()
            self._thread.join()
            if kind is None or issubclass(kind, InputError):
                # Whoever still watches sees that this rank has ended in good order; if the folder
                # lets it, which may be the very error.
                with contextlib.suppress(OSError):
                    self._own.unlink()

    def _watch(self) -> None:
        touched: int | None = None
        since = time.monotonic()
        looked = since
        warned = False
        while not self._stop.wait(self._interval):
            now = time.monotonic()
            if now - looked > self._timeout / 2:
                # This process was suspended itself, perhaps with all others: begin anew.
                since = now
            looked = now
            # The folder can be away for a moment on network file systems; that is not our end.
            with contextlib.suppress(OSError):
                os.utime(self._own)
            last, process = self._look()
            if last is not None and last == touched:
                if now - since > self._timeout:
                    self._end(self._describe(process, now - since))
                    return
            elif last is not None or touched is not None:
                touched, since = last, now
                # One that has left in good order needs no word.
                warned = last is None
            elif not warned and now - since > self._timeout:
                _say(f"rank {self._watched_rank} is not watched: {self._watched} is not seen here")
                warned = True

    def _look(self) -> tuple[int | None, str]:
        """Return when the watched rank touched its file (ns, None if it has none) and who it is."""
        try:
            session, _, process = self._watched.read_text().partition(" ")
            if session == self._session:
                return self._watched.stat().st_mtime_ns, process
        except OSError:
            pass
        return None, ""

    def _describe(self, process: str, seconds: float) -> str:
        return (
            f"rank {self._watched_rank} ({process}) has given no sign of life for "
            f"{seconds:.0f} s (--stall-timeout {self._timeout:g}); ending the job; "
            "go on with --resume"
        )


def _say(message: str) -> None:
    sys.stderr.write(f"tal1-hvd: {message}\n")
    sys.stderr.flush()
