"""A program that becomes another, which ends when the process that started it does.

It runs before the other because what Python runs between fork and exec (``preexec_fn``) may hang
for ever in a process with threads (https://docs.python.org/3/library/subprocess.html).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

# PR_SET_PDEATHSIG of Linux's <linux/prctl.h>.
_SIGNAL_AT_PARENTS_DEATH = 1


def end_with_parent(command: Sequence[str], number: signal.Signals = signal.SIGTERM) -> list[str]:
    """Return a command that is sent a signal when this process ends, even if that is killed.

    Otherwise ranks train on until they have something to say.

    Parameters
    ----------
    command : sequence of str
    number : signal.Signals
        What it is sent.

    Returns
    -------
    list of str
        To be started by this process; its process and exit code are those of `command`, but for
        127 with a line on standard error where that cannot be started.
    """
    # Neither site-packages nor the environment: milliseconds, and only Python's own modules.
    this = [sys.executable, "-I", "-S", __file__, str(int(number)), str(os.getpid())]
    return [*this, *command]


def main() -> int:
    """Become the program; the arguments are the signal, the parent's number and the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C is for the program; of this one it would only show a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Which takes most of this program's time.
    import ctypes

    number, parent, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, number)
    if os.getppid() != parent:
        # It ended before it could be told of.
        signal.raise_signal(number)
        # Where it is ignored.
        return 128 + number
    # As subprocess does: Python ignores them, and what it becomes would inherit that.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - without one on purpose
    except OSError as error:
        sys.stderr.write(f"tal1-hvd: error: {command[0]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main())
