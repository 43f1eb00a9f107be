"""Starts the workers of MultiWorkerMirroredStrategy on this machine, as mpirun starts ranks.

``python -m tal1_hvd.distributed.workers COUNT PROGRAM ...`` (internal; ``train --ranks`` uses it).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from tal1_hvd.distributed.end_with_parent import end_with_parent

# Seconds that workers have to end once one of them has failed.
_GRACE = 5.0


def worker_environments(count: int) -> list[dict[str, str]]:
    """Return what tells each worker of the others: ``TF_CONFIG``, with free ports of this machine.

    Parameters
    ----------
    count : int

    Returns
    -------
    list of dict
    """
    with contextlib.ExitStack() as stack:
        # All open at once, so that they differ.
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]
    return [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            )
        }
        for index in range(count)
    ]


def run_workers(count: int, program: Sequence[str]) -> int:
    """Run a program on each worker; when one fails, end the others.

    Parameters
    ----------
    count : int
    program : sequence of str

    Returns
    -------
    int
        The exit code of the first worker that failed, 128 + its number for a signal; or 0.
    """
    workers: list[subprocess.Popen[bytes]] = []

    def leave(number: int, frame: FrameType | None) -> None:
        # A second one would leave workers behind.
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    handlers = {
        signal.SIGTERM: leave,
        # Not by `send_signal`, which could take a worker's exit code from `os.wait`.
        signal.SIGUSR1: lambda number, frame: [
            os.kill(worker.pid, number) for worker in workers if worker.returncode is None
        ],
    }
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        for environment in worker_environments(count):
            workers.append(
                subprocess.Popen(
                    # TensorFlow keeps SIGTERM to itself while a worker waits for the others.
                    end_with_parent(program, signal.SIGKILL),
                    env={**os.environ, **environment},
                )
            )
        code = 0
        while any(worker.returncode is None for worker in workers):
            pid, status = os.wait()
            for worker in workers:
                if worker.pid == pid:
                    worker.returncode = os.waitstatus_to_exitcode(status)
                    if worker.returncode and not code:
                        code = worker.returncode
                        _end(workers)
        return code if code >= 0 else 128 - code
    except BaseException:
        _end(workers)
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """End those that run still, in order or, if they take too long, at once."""
    running = [worker for worker in workers if worker.returncode is None]
    for worker in running:
        worker.terminate()
    for worker in running:
        try:
            worker.wait(_GRACE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


if __name__ == "__main__":
    sys.exit(run_workers(int(sys.argv[1]), sys.argv[2:]))
