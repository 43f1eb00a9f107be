"""Each rank's own log file, every message with its time, rank, host and process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tal1_hvd.errors import InputError

LOG = logging.getLogger("tal1_hvd.rank")
# Before there is a file, and in tests, nobody listens; Python would write to standard error.
LOG.addHandler(logging.NullHandler())


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Go on: training is worth more than its log."""


@contextmanager
def rank_log(folder: Path, rank: int, size: int) -> Iterator[None]:
    """Let this process log to a file of its own while the block runs.

    Parameters
    ----------
    folder : Path
        Made if missing: on each machine, where machines do not share it.
    rank, size : int

    Raises
    ------
    InputError
        The file cannot be made.
    """
    path = folder / f"rank-{rank}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = _File(path, encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    place = f"rank {rank}/{size} {os.uname().nodename} {os.getpid()}"
    formatter = logging.Formatter(
        # A percent sign in a host's name would be a field of the format.
        f"%(asctime)sZ {place.replace('%', '%%')} %(levelname)s %(message)s",
        "%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    LOG.addHandler(handler)
    level = LOG.level
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.setLevel(level)
        LOG.removeHandler(handler)
        with suppress(OSError):
            handler.close()
