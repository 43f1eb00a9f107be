"""The process of one rank: what ends it when it is stopped, and how it ends when others wait."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from tal1_hvd.distributed.environment import launched_rank
from tal1_hvd.errors import InputError

_MONITOR = Path(__file__).with_name("stop_monitor.py")
# Seconds that other ranks leave rank 0 to report an error that all of them have met.
_LET_RANK_0_SPEAK = 3.0


def monitor_stops(timeout: float) -> None:
    """Have this rank named and killed once it has been stopped (SIGSTOP) for too long.

    From now to its end, by a process of its own; upon a killed rank the launcher ends the job.
    Linux only.

    Parameters
    ----------
    timeout : float
        Seconds; 0 for no watch.
    """
    if not timeout > 0 or not Path("/proc/self/stat").exists():
        return
    name = f"rank {launched_rank() or 0} (host {os.uname().nodename}, process {os.getpid()})"
    # The other end stays open here, so that the monitor sees when, and however, this process ends.
    read_end, _ = os.pipe()
    subprocess.Popen(
        [sys.executable, "-IS", str(_MONITOR), str(os.getpid()), str(timeout), name],
        stdin=read_end,
        stdout=subprocess.DEVNULL,
    )
    os.close(read_end)


def end_rank(error: Exception) -> NoReturn:
    """End this rank at once with an error, upon which the launcher ends the job.

    Leaving the interpreter in good order would wait for ranks that wait for this one.

    Parameters
    ----------
    error : Exception
        InputError is said in a line, with exit code 2; others with their traceback, and 1.
    """
    rank = launched_rank() or 0
    if isinstance(error, InputError):
        # Other ranks most likely meet the same; rank 0 says it, and the launcher ends them.
        if rank:
            time.sleep(_LET_RANK_0_SPEAK)
        end_process(f"rank {rank}: {error}" if rank else str(error), 2)
    sys.stderr.write("".join(traceback.format_exception(error)))
    end_process(f"rank {rank} failed: {type(error).__name__}: {error}", 1)


def end_process(message: str, code: int) -> NoReturn:
    """End this process whatever its threads wait for, with an error in one line."""
    sys.stderr.write(f"tal1-hvd: error: {' '.join(message.split())}\n")
    sys.stderr.flush()
    os._exit(code)
