"""The errors that users see, and how what strangers wrote is shown to them."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong: an argument, a file, a folder.

    The command line reports it in one line and exits with 2. Its text names the argument or the
    file (and line), says what was wanted and what was found, and what to do about it.
    """


def printable(text: object) -> str:
    """Return text as one line that cannot steer a terminal, whoever wrote it."""
    return "".join(c if c.isprintable() else "?" for c in str(text))
