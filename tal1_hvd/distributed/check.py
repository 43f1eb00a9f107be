"""``mpirun -np 2 python -m tal1_hvd.distributed.check`` proves an installation by an all-reduce."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np


def main() -> int:
    """Sum rank + 1 over all ranks and say on rank 0 what carried it; 1 if the sum is wrong."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from tal1_hvd.distributed.horovod_communicator import HorovodCommunicator

    communicator = HorovodCommunicator()
    total = communicator.all_reduce_sum(tf.constant([communicator.rank + 1.0]))
    expected = communicator.size * (communicator.size + 1) / 2
    ok = bool(np.all(total.numpy() == expected))
    if communicator.rank == 0:
        library = re.search(r"\S*libmpi\.so\S*", Path("/proc/self/maps").read_text())
        over_mpi = communicator.controller == "MPI" and library is not None
        carrier = f"MPI ({library.group()})" if over_mpi else communicator.controller
        print(
            f"{'ok' if ok else 'wrong sum'}: {communicator.size}-rank all-reduce, Horovod "
            f"{version('horovod')}, TensorFlow {tf.__version__}, {carrier}",
            flush=True,
        )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
