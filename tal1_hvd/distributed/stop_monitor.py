"""A program that ends processes of a job which have been stopped (SIGSTOP) for too long.

``rank_process.monitor_stops`` starts one beside each rank: a process of its own, since one that is
stopped can do nothing for itself and others may be unable to tell, before ranks have connected and
after they have parted. It looks at every process of the job on this machine, because a rank may be
stopped before it has a monitor, and at the launchers above its own. It imports nothing but Python's
own modules, so that it starts in milliseconds, and ends with its rank, which alone holds the other
end of its standard input, unless another is stopped then.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tal1_hvd.distributed.environment import (
    launched_elastically,
    launched_job,
    launched_rank,
)

_INTERVAL = 5.0
# As their programs' names begin: that of Open MPI from PyPI is orterun_wrapper.
_LAUNCHERS = ("mpirun", "mpiexec", "orterun", "orted", "horovodrun")


def main() -> int:
    """Monitor the job that this process was started in; the argument is the timeout in seconds."""
    # Ctrl-C goes to the whole job; this ends when its rank does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    timeout = float(sys.argv[1])
    interval = min(_INTERVAL, timeout / 4)
    # Once that is gone, this process has another parent.
    rank = os.getppid()
    stopped_since: dict[int, float] = {}
    looked = time.monotonic()
    ended = False
    while True:
        if ended:
            time.sleep(interval)
        else:
            ended = bool(select.select([0], [], [], interval)[0])
        now = time.monotonic()
        if now - looked > timeout / 2:
            # This process has stood still itself, with the whole job perhaps: begin anew.
            stopped_since = {}
        looked = now
        stopped_since = {
            process: stopped_since.get(process, now) for process in stopped_processes(rank)
        }
        for process, since in stopped_since.items():
            if now - since > timeout:
                end(process, now - since, timeout)
        # Ranks that start without a stopped one end before its time is over; it has to be over.
        if ended and not stopped_since:
            return 0


def stopped_processes(rank: int) -> list[int]:
    """Return the processes that a signal has stopped: the own rank, others of its job here."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    # Few are stopped, so few are looked at closely.
    return [process for process in numbers if is_stopped(process) and is_ours(process, rank)]


def is_ours(process: int, rank: int) -> bool:
    """Say whether a process is this monitor's rank, or of the same job as far as one can tell."""
    job = launched_job()
    # Once it is gone its number may be another's.
    alive = rank == os.getppid()
    return (alive and (process == rank or process in launchers(rank))) or (
        job is not None
        and launched_job(environment_of(process)) == job
        # Monitors of other ranks have their environments.
        and Path(__file__).stem not in command_of(process)
    )


def launchers(rank: int) -> list[int]:
    """Return the processes that have started a rank, from the nearest on."""
    found, process = [], rank
    while process > 1:
        lines = dict(
            line.split(":\t", 1) for line in _read(process, "status").splitlines() if ":\t" in line
        )
        if lines.get("Name", "").startswith(_LAUNCHERS):
            found.append(process)
        process = int(lines.get("PPid", 0))
    return found


def is_stopped(process: int) -> bool:
    """Say whether a process is stopped by a signal (`man 5 proc_pid_stat`, state T)."""
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return False
    # The name before the state is in parentheses; it may hold some itself, and half a character.
    return stat.rpartition(b")")[2].split()[:1] == [b"T"]


def environment_of(process: int) -> Mapping[str, str]:
    """Return the environment that a process was started with; empty if it cannot be read."""
    lines = _read(process, "environ").split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def command_of(process: int) -> str:
    """Return a process's command line; empty if it cannot be read."""
    return _read(process, "cmdline")


def _read(process: int, name: str) -> str:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def end(process: int, seconds: float, timeout: float) -> None:
    """Name a process and kill it, upon which the launcher ends the job."""
    # By the job that Slurm runs mpirun in, that is a rank, too.
    is_launcher = process in launchers(os.getppid())
    rank = None if is_launcher else launched_rank(environment_of(process))
    name = "the launcher" if rank is None else f"rank {rank}"
    consequence = "ending the job; go on with --resume"
    if launched_elastically() and rank is not None:
        consequence = "ending it"
    message = (
        f"tal1-hvd: error: {name} (host {os.uname().nodename}, process {process}) has been stopped "
        f"(SIGSTOP) for {seconds:.0f} s (--stall-timeout {timeout:g}); {consequence}\n"
    )
    say, kill = partial(os.write, 2, message.encode()), partial(os.kill, process, signal.SIGKILL)
    # A launcher first: what this process says may wait for it to read.
    for act in (say, kill) if rank is not None else (kill, say):
        # Nobody may be listening any more, or another monitor has been faster.
        with contextlib.suppress(OSError):
            act()


if __name__ == "__main__":
    sys.exit(main())
