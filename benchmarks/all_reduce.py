"""Seconds of an all-reduce by size, through Horovod, alone in a loop.

mpirun -np 2 --oversubscribe --bind-to none python benchmarks/all_reduce.py
horovodrun --gloo -np 2 python benchmarks/all_reduce.py
HOROVOD_CYCLE_TIME=1 mpirun -np 2 --oversubscribe --bind-to none python benchmarks/all_reduce.py
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from tal1_hvd.distributed.horovod_communicator import HorovodCommunicator
from tal1_hvd.machine import start_tensorflow

# The published network's gradient, and larger ones.
SIZES = (1_246, 10_000, 100_000, 1_000_000)
CALLS, REPEATS = 100, 5


def main() -> None:
    """Measure and print microseconds a call."""
    communicator = HorovodCommunicator()
    start_tensorflow(threads=1)

    @tf.function
    def calls(tensor: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(CALLS):
            tensor = communicator.all_reduce_sum(tensor) / communicator.size
        return tensor

    for size in SIZES:
        tensor, best = tf.ones(size), float("inf")
        for _ in range(REPEATS):
            began = time.perf_counter()
            calls(tensor)
            best = min(best, time.perf_counter() - began)
        if communicator.rank == 0:
            cycle = os.environ["HOROVOD_CYCLE_TIME"]
            print(
                f"{communicator.controller}, {communicator.size} ranks, cycle {cycle} ms, "
                f"{size:9,} float32: {1e6 * best / CALLS:8.0f} microseconds",
                flush=True,
            )
    communicator.close()


if __name__ == "__main__":
    main()
