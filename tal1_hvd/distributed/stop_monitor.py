"""A program that ends a process which has been stopped (SIGSTOP) for too long.

``python stop_monitor.py PROCESS SECONDS NAME`` (internal; `rank_process.monitor_stops` starts it).
It is a process of its own, since one that is stopped can do nothing for itself and others may be
unable to see it: before ranks have connected and after they have parted. It imports nothing of the
package, so that it starts in milliseconds, and ends with PROCESS, which alone holds the other end
of its standard input.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    """Monitor the process named by the arguments until it ends."""
    # Ctrl-C goes to the whole job; this ends when PROCESS does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process, timeout, name = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    interval = min(1.0, timeout / 4)
    looked = since = time.monotonic()
    while not select.select([sys.stdin], [], [], interval)[0]:
        now = time.monotonic()
        # Who has stood still itself, with the whole job perhaps, begins anew.
        if not is_stopped(process) or now - looked > timeout / 2:
            since = now
        elif now - since > timeout:
            sys.stderr.write(
                f"tal1-hvd: error: {name} has been stopped (SIGSTOP) for {now - since:.0f} s "
                f"(--stall-timeout {timeout:g}); ending the job; go on with --resume\n"
            )
            sys.stderr.flush()
            os.kill(process, signal.SIGKILL)
            return 1
        looked = now
    return 0


def is_stopped(process: int) -> bool:
    """Say whether a process is stopped by a signal (`man 5 proc_pid_stat`, state T)."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    # The name before the state is in parentheses and may hold some itself.
    return stat.rpartition(")")[2].split()[0] == "T"


if __name__ == "__main__":
    sys.exit(main())
