"""The errors that users see, and how what strangers wrote is shown to them."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong: an argument, a file, a folder.

    The command line reports it in one line and exits with 2. Its text names the argument or the
    file (and line), says what was wanted and what was found, and what to do about it.
    """

    exit_code = 2


class LostRanksError(InputError):
    """Ranks did not come that others wait for; upon this exit code horovodrun ends the job."""

    # EX_UNAVAILABLE of <sysexits.h>.
    exit_code = 69


def printable(text: object) -> str:
    """Return text as one line that cannot steer a terminal, whoever wrote it."""
    return "".join(c if c.isprintable() else "?" for c in str(text))
