"""Train as usual, but be killed with half of the third epoch's checkpoint on disk."""

import os
import signal
import sys
from pathlib import Path

from tal1_hvd.cli.main import main
from tal1_hvd.training import train

intact = os.fsync
written = 0


def fsync(descriptor):
    """Cut the third last.npz in half and die before it gets its name."""
    global written
    written += "last.npz" in Path(f"/proc/self/fd/{descriptor}").readlink().name
    if written == 3:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    intact(descriptor)


if __name__ == "__main__":
    os.fsync = fsync
    # After every epoch, however short.
    train._SECONDS_BETWEEN_CHECKPOINTS = 0.0
    sys.exit(main(["train", *sys.argv[1:]]))
