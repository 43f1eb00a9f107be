"""The process of one rank: what ends it when it is stopped, and how it ends when others wait."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

from tal1_hvd.distributed.environment import launched_rank
from tal1_hvd.distributed.rank_log import LOG
from tal1_hvd.errors import InputError

_MONITOR = "tal1_hvd.distributed.stop_monitor"
# Seconds that other ranks leave rank 0 to report an error that all of them have met.
_LET_RANK_0_SPEAK = 3.0
_LET_LOG_WRITE = 1.0


def monitor_stops(timeout: float) -> None:
    """Have any rank of this job named and killed that is stopped (SIGSTOP) for too long.

    From now to this rank's end, by a process of its own, on this machine; upon a killed rank the
    launcher ends the job. Linux only; does nothing where no launcher started this process.

    Parameters
    ----------
    timeout : float
        Seconds; 0 for no watch.
    """
    if not timeout > 0 or launched_rank() is None or not Path("/proc/self/stat").exists():
        return
    # By its module, but without the packages that the environment has: it needs none.
    start = (
        f"import runpy, sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r});"
        f"runpy.run_module({_MONITOR!r}, run_name='__main__')"
    )
    # The other end stays open here, so that the monitor sees when, and however, this process ends.
    read_end, _ = os.pipe()
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-IS", "-c", start, str(timeout)],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, read_end, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        ],
    )
    os.close(read_end)


def end_rank(error: Exception) -> NoReturn:
    """End this rank at once with an error, upon which the launcher ends the job.

    Leaving the interpreter in good order would wait for ranks that wait for this one.

    Parameters
    ----------
    error : Exception
        InputError is said in a line, with its exit code; others with their traceback, and 1.
    """
    rank = launched_rank() or 0
    if isinstance(error, InputError):
        # Other ranks most likely meet the same; rank 0 says it, and the launcher ends them.
        if rank:
            time.sleep(_LET_RANK_0_SPEAK)
        end_process(f"rank {rank}: {error}" if rank else str(error), error.exit_code)
    _write("".join(traceback.format_exception(error)))
    end_process(f"rank {rank} failed: {type(error).__name__}: {error}", 1)


def leave_process(code: int) -> NoReturn:
    """End this process without a word, whatever its threads and libraries wait for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def end_process(message: str, code: int) -> NoReturn:
    """End this process whatever its threads wait for, with an error in one line."""
    message = " ".join(message.split())
    _write(f"tal1-hvd: error: {message}\n")
    # What holds the log's file may be what this process hangs on.
    writer = threading.Thread(target=LOG.error, args=("%s", message), daemon=True)
    with contextlib.suppress(RuntimeError):
        writer.start()
        writer.join(_LET_LOG_WRITE)
    os._exit(code)


def _write(text: str) -> None:
    # Standard error may be full, closed or without a reader; the process has to end all the same.
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="replace"))
