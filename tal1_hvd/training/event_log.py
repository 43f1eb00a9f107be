"""The run's event file: one JSON object a line, for people's scripts and the command `status`.

Each has ``time`` (seconds since 1970, UTC) and ``event``:

=========== ========================================================================================
session     ranks have met: ``host`` and ``process`` of rank 0 with ``began`` (when that started, in
            ticks since its machine did) in ``namespace`` (of process numbers), ``world_size``,
            ``global_batch_size``, ``strategy``, ``model``, ``epochs``, and each rank's place in
            ``ranks``
start       training begins: ``epochs``, of which ``done``; ``examples`` of an epoch
progress    ``epoch`` (from 1) and ``examples`` of it that are done; at most every 5 seconds
epoch       a line of ``history.csv``
ranks       in ``ranks``, what the epoch cost each: ``steps``, ``seconds``, of which ``waited`` for
            others; ``memory`` and ``device_memory`` in bytes
checkpoint  saved: ``epoch`` done, ``examples`` of the next, and the ``seconds`` it took
message     ``text``: what was said
stopped     by a signal, after a checkpoint, or by Ctrl-C; ``text`` says how to go on, or that
left        ranks have come or gone, or rank 0 has left the others; ``text`` says what is known
failed      ``text``: why
finished    all is done
=========== ========================================================================================
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tal1_hvd.errors import InputError
from tal1_hvd.training.reporters import Silent

_BETWEEN_PROGRESS = 5.0
# More than any session of thousands of ranks writes; what is longer is no event.
_LONGEST_LINE = 1 << 24


class EventLog(Silent):
    """Writes events, each in one call, so that readers see whole lines.

    Parameters
    ----------
    path : Path
        Made, or added to.

    Raises
    ------
    InputError
        It cannot be written.
    """

    def __init__(self, path: Path):
        self._path = path
        self._epoch, self._examples = 1, 0
        self._noted = time.monotonic()
        # A session that was killed may have left a line without its end.
        self._within_a_line = _ends_within_a_line(path)
        try:
            self._append("")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None

    def record(self, event: str, **values: Any) -> None:
        """Write an event, if that can be done: training is worth more than its log."""
        event_line = json.dumps({"time": round(time.time(), 3), "event": event, **values})
        with suppress(OSError):
            self._append(f"{event_line}\n")

    def message(self, text: str) -> None:
        """Write what is said."""
        self.record("message", text=text)

    def start(self, epochs: int, done: int, examples: int) -> None:
        """Write that training begins."""
        self._epoch, self._examples = done + 1, 0
        self.record("start", epochs=epochs, done=done, examples=examples)

    def advance(self, examples: int) -> None:
        """Count, and write now and then."""
        self._examples += examples
        if time.monotonic() - self._noted >= _BETWEEN_PROGRESS:
            self.record("progress", epoch=self._epoch, examples=self._examples)
            self._noted = time.monotonic()

    def epoch(self, row: dict[str, Any]) -> None:
        """Write an epoch's line of the history."""
        self._epoch, self._examples = row["epoch"] + 1, 0
        self.record("epoch", **row)

    def _append(self, text: str) -> None:
        data = ("\n" * self._within_a_line + text).encode()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            self._within_a_line = os.write(descriptor, data) < len(data)
        finally:
            os.close(descriptor)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a file in their order; what is no event is left out.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        # A pipe would never end.
        if not path.is_file():
            raise InputError(f"{path}: not a file of events")
        with path.open(errors="replace") as handle:
            while line := handle.readline(_LONGEST_LINE):
                try:
                    event = json.loads(line, parse_float=_finite, parse_constant=_finite)
                # A line that a killed session left, or one that no session wrote.
                except (ValueError, RecursionError):
                    continue
                if isinstance(event, dict) and type(event.get("event")) is str:
                    yield event
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _finite(text: str) -> float:
    # JSON has no others, and what is printed of an event is JSON again.
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


def _ends_within_a_line(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            handle.seek(-1, os.SEEK_END)
            return handle.read(1) != b"\n"
    except OSError:
        # Not there, or empty.
        return False
