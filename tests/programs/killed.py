"""Train as usual, but a rank kills itself: ``killed.py RANK born|connecting TRAIN-FLAGS``.

That is before anything of the package is there, or when the run folder is and it is to connect.
"""

import os
import signal
import sys
from pathlib import Path


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


rank, moment, *flags = sys.argv[1:]
is_it = rank in (os.environ.get("OMPI_COMM_WORLD_RANK"), os.environ.get("HOROVOD_RANK"))
if moment == "born" and is_it:
    die()

from tal1_hvd.cli.main import main
from tal1_hvd.training import meeting


def wait_and_die(*_: object) -> None:
    settings = Path(flags[flags.index("--out") + 1], "config.yaml")
    while not settings.exists():
        pass
    die()


if moment == "connecting" and is_it:
    meeting.connect = wait_and_die

sys.exit(main(["train", *flags]))
