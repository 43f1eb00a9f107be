"""Train as usual, but rank 0 kills itself: ``killed.py born|connecting TRAIN-FLAGS``.

That is before anything of the package is there, or when its run folder is and it is to connect.
"""

import os
import signal
import sys


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


moment = sys.argv[1]
is_first = "0" in (os.environ.get("OMPI_COMM_WORLD_RANK"), os.environ.get("HOROVOD_RANK"))
if moment == "born" and is_first:
    die()

from tal1_hvd.cli.main import main
from tal1_hvd.training import session

if moment == "connecting" and is_first:
    session.connect = die

sys.exit(main(["train", *sys.argv[2:]]))
