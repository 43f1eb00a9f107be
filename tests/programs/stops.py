"""Train as usual, but rank 1 stops itself: ``stops.py born|connecting|leaving TRAIN-FLAGS``.

With ``killed`` it kills itself where with ``connecting`` it stops.
"""

import os
import signal
import sys

if sys.argv[1] == "born" and "1" in (
    os.environ.get("OMPI_COMM_WORLD_RANK"),
    os.environ.get("HOROVOD_RANK"),
):
    # Before anything of the package is there.
    os.kill(os.getpid(), signal.SIGSTOP)

from tal1_hvd.cli.main import main
from tal1_hvd.distributed.environment import launched_rank
from tal1_hvd.training import session


def stop(number: int = signal.SIGSTOP) -> None:
    if launched_rank() == 1:
        os.kill(os.getpid(), number)


def stop_and_connect(strategy):
    stop(signal.SIGKILL if moment == "killed" else signal.SIGSTOP)
    return connect(strategy)


if __name__ == "__main__":
    moment = sys.argv[1]
    connect = session.connect
    if moment in ("connecting", "killed"):
        session.connect = stop_and_connect
    code = main(["train", *sys.argv[2:]])
    if moment == "leaving":
        stop()
    sys.exit(code)
