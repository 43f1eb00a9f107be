"""What training costs when the data does not stay in memory.

mpirun -np 2 --oversubscribe --bind-to none python benchmarks/large_data.py SMALL LARGE [TURNS]

Trains on two datasets in turn (10), in the same processes, LARGE with several bounds of what may
stay in memory; shown is the median time a sequence and its ratio to SMALL's in the same turn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import count, islice

import numpy as np

from tal1_hvd.data.batches import EpochBatches
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.distributed.communicator import Communicator, connect
from tal1_hvd.machine import quick_keras_import, start_tensorflow
from tal1_hvd.training.plan import plan_batches
from tal1_hvd.training.settings import TrainSettings

CACHE_MB = (512, 200, 0)
# Of 64 steps each.
CALLS = 10
ROWS_AT_ONCE = 10_000


def main() -> None:
    """Measure in turn; rank 0 prints."""
    small, large = sys.argv[1:3]
    turns = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    with quick_keras_import():
        communicator = connect()
    start_tensorflow(threads=1, local_rank=communicator.local_rank)
    cases = {"small": Case(small, 512, communicator)}
    cases |= {f"large, {mb} MB": Case(large, mb, communicator) for mb in CACHE_MB}
    times = np.array([[case.train() for case in cases.values()] for _ in range(turns)])
    communicator.close()
    if communicator.rank == 0:
        print(f"{'microseconds a sequence':28}{'median':>8}{'ratio':>8}  (range)")
        ratios = times / times[:, :1]
        for name, own, ratio in zip(cases, times.T, ratios.T, strict=True):
            spread = f"({ratio.min():.2f}-{ratio.max():.2f})"
            print(f"{name:28}{np.median(own):8.2f}{np.median(ratio):8.2f}  {spread}")


class Case:
    """A dataset and a bound, ready to train."""

    def __init__(self, data: str, cache_mb: int, communicator: Communicator):
        from tal1_hvd.training.trainer import Trainer

        settings = TrainSettings(cache_mb=cache_mb)
        dataset = open_dataset(data, verify=False, cache_mb=cache_mb)
        batching = plan_batches(settings, dataset, communicator.rank, communicator.size)
        self.trainer = Trainer.build(settings, dataset, batching, communicator)
        # What may stay in memory is there: epochs after the first are the many.
        rows = dataset.rows("train")
        for start in range(0, len(rows), ROWS_AT_ONCE):
            _ = dataset.sequences[rows[start : start + ROWS_AT_ONCE]]
        self.chunks = self._chunks()
        self.train()

    def _chunks(self) -> Iterator[EpochBatches]:
        for epoch in count():
            whole = self.trainer.batching.epoch(epoch).chunks(self.trainer.steps_a_call)
            yield from (chunk for chunk in whole if len(chunk.counts) == self.trainer.steps_a_call)

    def train(self) -> float:
        """Return the microseconds a sequence of some calls."""
        from tal1_hvd.training.step import gather, read_ahead

        dataset, communicator = self.trainer.dataset, self.trainer.communicator
        read = partial(gather, dataset.sequences, dataset.labels, dataset.rows("train"))
        chunks = list(islice(self.chunks, CALLS))
        communicator.all_gather(np.zeros(1, dtype=np.uint8))
        began = time.perf_counter()
        for batches in read_ahead(read, chunks):
            _ = float(self.trainer.steps([batches]).loss)
        seconds = time.perf_counter() - began
        return 1e6 * seconds / sum(int(chunk.counts.sum()) for chunk in chunks)


if __name__ == "__main__":
    main()
