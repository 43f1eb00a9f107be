"""What ``horovodrun`` over Gloo does for each rank: runs its command, which ends with the job.

Horovod's own (``safe_shell_exec.execute`` of 0.28.1) puts a process between, in which two threads
wait for the rank; where the wrong one is first, the rank's exit code is lost and 0 takes its place.
It leaves lines out, too, that come together with a byte that is no UTF-8.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, TextIO

from tal1_hvd.distributed.end_with_parent import end_with_parent

# Seconds between looks at whether the job ends...
_BETWEEN_LOOKS = 0.1
# ...and those that a rank has then: for its checkpoint, as schedulers leave a job 30 before they
# kill it, and, once others have failed, as many as Horovod gives.
_FOR_A_CHECKPOINT, _AFTER_OTHERS = 25.0, 5.0


def run_rank(
    command: str,
    events: Sequence[threading.Event],
    index: int | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    prefix_output_with_timestamp: bool = False,
) -> int:
    """Run a command until it ends, or is ended; it is sent SIGTERM when this process dies.

    Parameters
    ----------
    command : str
        Words quoted for a shell, which there is none of.
    events : sequence of threading.Event
        Once one is set it is sent SIGTERM. If it lives on, or anything that it has started and
        that has its streams, all of it is killed: after 25 seconds if the event was the first, by
        which the user ends the job, else after 5.
    index : int, optional
        The rank.
    stdout, stderr : file, optional
        Where its output goes; default: where this process's goes. If nothing can be written there,
        as the disk is full, the command finds its own closed.
    prefix_output_with_timestamp : bool

    Returns
    -------
    int
        Its exit code; 128 + its number for a signal.
    """
    process = subprocess.Popen(
        end_with_parent(shlex.split(command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Ctrl-C is for horovodrun, which sets an event upon it.
        start_new_session=True,
    )

    def copy(source: IO[bytes], target: TextIO, name: str) -> None:
        # As Horovod's lines begin.
        prefix = "" if index is None else f"[{index}]<{name}>:"
        with io.TextIOWrapper(source, "utf-8", "replace", newline="") as lines:
            try:
                for line in lines:
                    moment = time.asctime() if prefix_output_with_timestamp and prefix else ""
                    _write(target, f"{moment}{prefix}{line}")
            except OSError as error:
                with contextlib.suppress(OSError):
                    sys.stderr.write(f"horovodrun: {name} of rank {index}: {error.strerror}\n")

    ended = threading.Event()
    threads = [
        threading.Thread(target=target, args=args, daemon=True)
        for target, args in (
            (copy, (process.stdout, stdout or sys.stdout, "stdout")),
            (copy, (process.stderr, stderr or sys.stderr, "stderr")),
            (_end_upon, (events, process, ended)),
        )
    ]
    for thread in threads:
        thread.start()
    # Not in turns: Horovod ends with the exit code of the first rank that failed.
    code = process.wait()
    for copier in threads[:2]:
        copier.join()
    ended.set()
    return code if code >= 0 else 128 - code


def _write(target: TextIO, text: str) -> None:
    try:
        target.write(text)
    except UnicodeEncodeError:
        target.write(text.encode("ascii", "replace").decode())
    target.flush()


def _end_upon(
    events: Sequence[threading.Event], process: subprocess.Popen[bytes], ended: threading.Event
) -> None:
    """End a process, and what it has started, once an event is set."""
    while not any(event.is_set() for event in events):
        if ended.wait(_BETWEEN_LOOKS):
            return
    process.terminate()
    if not ended.wait(_FOR_A_CHECKPOINT if events[0].is_set() else _AFTER_OTHERS):
        # Its number stays that of its group while there is anything in that.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
