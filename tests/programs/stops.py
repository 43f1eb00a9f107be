"""Train as usual, but rank 1 stops itself: ``stops.py born|connecting|leaving TRAIN-FLAGS``."""

import os
import signal
import sys


def stop() -> None:
    if "1" in (os.environ.get("OMPI_COMM_WORLD_RANK"), os.environ.get("HOROVOD_RANK")):
        os.kill(os.getpid(), signal.SIGSTOP)


moment = sys.argv[1]
if moment == "born":
    # Before anything of the package is there.
    stop()

from tal1_hvd.cli.main import main
from tal1_hvd.training import meeting

connect = meeting.connect


def stop_and_connect(*given):
    stop()
    return connect(*given)


if moment == "connecting":
    meeting.connect = stop_and_connect
code = main(["train", *sys.argv[2:]])
if moment == "leaving":
    stop()
sys.exit(code)
