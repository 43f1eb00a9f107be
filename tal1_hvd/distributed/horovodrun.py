"""``horovodrun`` as ``launch/setup`` installs it: Horovod's own, in this environment.

By itself it starts ``mpirun`` through a shell that keeps signals from it, loses exit codes of ranks
that it ends, and ends with a traceback and 1 whatever a rank has ended with (``horovod/runner`` of
0.28.1).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tal1_hvd.distributed.rank_command import run_rank


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
    from horovod.runner.launch import run_commandline

    execve, execute = os.execve, safe_shell_exec.execute

    def without_a_shell(path: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
        if words[:2] == ["/bin/sh", "-c"]:
            words = [*words[:2], f"exec {words[2]}"]
        execve(path, words, environment)

    def run(command: str, *rest: Any, **options: Any) -> int:
        # Events end a command; Horovod's driver has them for ranks alone.
        if options.get("events"):
            return run_rank(safe_shell_exec.prefix_connection, command, *rest, **options)
        # A shell that became the command would not let it end by Ctrl-C: it is stopped and killed.
        return execute(f"{command}\nexit $?", *rest, **options)

    # The first starts mpirun, the second all else.
    os.execve, safe_shell_exec.execute = without_a_shell, run
    out, err = Unbreakable(sys.stdout), Unbreakable(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            return run_commandline() or 0
        except Exception as error:
            text = " ".join(str(error).split())
            sys.stderr.write(f"horovodrun: {text or type(error).__name__}\n")
            return exit_code(text)


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
