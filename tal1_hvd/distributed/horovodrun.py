"""``horovodrun`` as ``launch/setup`` installs it: Horovod's own, in this environment.

By itself it starts ``mpirun`` through a shell that keeps signals from it, loses exit codes of ranks
that it ends, and ends with a traceback and 1 whatever a rank has ended with. A job whose ranks
gave up waiting for others it would keep for ever (``horovod/runner`` of 0.28.1).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tal1_hvd.distributed.rank_command import run_rank
from tal1_hvd.errors import LostRanksError

# Connections that may wait at its server: those of all ranks at once. Horovod's limit is 5, and
# what comes above it waits for a second, or is refused.
_BACKLOG = 1024
# Sent to the main thread when ranks have given up, and the seconds for all to end before that, more
# than they are left.
_GIVEN_UP, _LET_THEM_END = signal.SIGUSR2, 8.0


def main() -> int:
    """Run it with this process's arguments.

    Returns
    -------
    int
        Over Gloo, the exit code of the first rank that failed; over MPI this becomes mpirun.
    """
    # Where it looks up mpirun and python: in this environment, activated or not.
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    from horovod.runner.common.util import safe_shell_exec
    from horovod.runner.http.http_server import RendezvousHTTPServer
    from horovod.runner.launch import run_commandline

    RendezvousHTTPServer.request_queue_size = _BACKLOG
    # Of a rank that ended while it waited for an answer, which is told of elsewhere.
    RendezvousHTTPServer.handle_error = lambda *_: None
    execve, execute, ranks = os.execve, safe_shell_exec.execute, Ranks()

    def without_a_shell(path: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
        if words[:2] == ["/bin/sh", "-c"]:
            words = [*words[:2], f"exec {words[2]}"]
        execve(path, words, environment)

    def run(command: str, *rest: Any, **options: Any) -> int:
        # Events end a command; Horovod's driver has them for ranks alone.
        if options.get("events"):
            return ranks.run(command, **options)
        # A shell that became the command would not let it end by Ctrl-C: it is stopped and killed.
        return execute(f"{command}\nexit $?", *rest, **options)

    # The first starts mpirun, the second all else.
    os.execve, safe_shell_exec.execute = without_a_shell, run
    out, err = Unbreakable(sys.stdout), Unbreakable(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            try:
                return run_commandline() or 0
            finally:
                signal.signal(_GIVEN_UP, signal.SIG_IGN)
        except LostRanksError as error:
            return error.exit_code
        except Exception as error:
            text = " ".join(str(error).split())
            sys.stderr.write(f"horovodrun: {text or type(error).__name__}\n")
            return exit_code(text)


class Ranks:
    """The commands of a job's ranks; all are ended once one has given up waiting for others.

    These may be lost without having ended: their machine has vanished, or its disk, so that they
    have not even begun. Horovod would wait for them. Made in the main thread, which then gets
    LostRanksError, whatever it waits for.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._living = 0
        self._given_up = threading.Event()
        signal.signal(_GIVEN_UP, self._leave)

    def run(self, command: str, events: Sequence[threading.Event], **options: Any) -> int:
        """Run a rank's command until it ends, in a thread; see `run_rank`."""
        with self._changed:
            self._living += 1
        code = run_rank(command, [*events, self._given_up], **options)
        with self._changed:
            self._living -= 1
            self._changed.notify_all()
            if code == LostRanksError.exit_code and not self._given_up.is_set():
                self._given_up.set()
                self._changed.wait_for(lambda: not self._living, _LET_THEM_END)
                signal.pthread_kill(threading.main_thread().ident, _GIVEN_UP)
        return code

    def _leave(self, *_: object) -> None:
        raise LostRanksError


class Unbreakable(io.TextIOBase):
    """A stream that goes nowhere once nobody reads it.

    The job trains on; Horovod's threads would die, and it would wait for them for ever.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write now."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return len(text)

    def fileno(self) -> int:
        """Return the stream's own, where programs that Horovod starts write."""
        return self._stream.fileno()


def exit_code(text: str) -> int:
    """Return the exit code that Horovod's words about a failed job end with; 1 if there is none."""
    found = re.search(r"Exit code: (\d+)$", text)
    return int(found[1]) if found else 1
