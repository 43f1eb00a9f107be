"""How the command line says that something went wrong."""

from __future__ import annotations

import sys

from tal1_hvd.errors import printable

# Exit code of a run that a signal has stopped after a checkpoint: EX_TEMPFAIL of <sysexits.h>, by
# which schedulers can tell it from one that is done.
STOPPED = 75
# Characters of an error: more than two paths, less than a file whose content it repeats.
_LONGEST = 10_000


def report(text: str) -> None:
    """Write an error as one line, in one call, so that lines of several ranks stay whole.

    What it repeats of a file cannot steer the terminal.
    """
    line = " ".join(text.split())
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
    sys.stderr.write(f"tal1-hvd: error: {printable(line)}\n")
    sys.stderr.flush()


def say(message: str) -> None:
    """Write a line for people to standard error."""
    sys.stderr.write(f"tal1-hvd: {printable(message)}\n")
    sys.stderr.flush()
