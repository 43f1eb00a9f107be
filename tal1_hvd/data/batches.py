"""Which examples each rank takes in each step of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Keeps these draws apart from others made with the same seed.
_SHUFFLE_STREAM = 1


@dataclass(frozen=True)
class Batching:
    """How the training rows are dealt to ranks and steps.

    With ``shuffle="global"`` an epoch is one permutation of all rows, shared by the ranks; global
    batch k is its k-th slice and rank r takes the slice's r-th part, so the examples of a step do
    not depend on how many ranks share it. With ``shuffle="shard"`` each rank keeps a fixed,
    contiguous shard of the rows and permutes within it.

    Attributes
    ----------
    examples : int
        Training rows in all.
    rank, size : int
    batch : int
        Examples a rank takes in one forward and backward pass.
    accumulation : int
        Passes that make one step (one update).
    shuffle : {"global", "shard"}
    seed : int
    step_examples : int, optional
        Examples of one step over all ranks, if they do not fill every rank's batch.
    """

    examples: int
    rank: int
    size: int
    batch: int
    accumulation: int = 1
    shuffle: str = "global"
    seed: int = 0
    step_examples: int | None = None

    @property
    def global_batch(self) -> int:
        """Examples of one step over all ranks."""
        return self.step_examples or self.batch * self.size * self.accumulation

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every rank; the last one may be smaller."""
        if self.shuffle == "global":
            return -(-self.examples // self.global_batch)
        return -(-max(self._shard_sizes()) // (self.batch * self.accumulation))

    def epoch(self, epoch: int, done: int = 0) -> EpochBatches:
        """Return this rank's batches of an epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        done : int
            Examples that all ranks together have taken before, by whatever number of ranks where
            the shuffle is global: those that are left are dealt anew.

        Returns
        -------
        EpochBatches
        """
        if self.shuffle == "global":
            return self._deal(self._permutation(self.examples, epoch)[done:])
        per_rank = self.batch * self.accumulation
        members = np.full((self.steps, per_rank), -1, dtype=np.int64)
        sizes = self._shard_sizes()
        order = sum(sizes[: self.rank]) + self._permutation(sizes[self.rank], epoch, self.rank)
        members.ravel()[: len(order)] = order
        starts = per_rank * np.arange(self.steps)
        counts = sum(np.clip(size - starts, 0, per_rank) for size in sizes)
        left = np.cumsum(counts) > done
        return self._batches(members[left], counts[left])

    def _deal(self, order: np.ndarray) -> EpochBatches:
        """Return this rank's part of examples in the order in which steps take them."""
        size = self.global_batch
        whole, rest = divmod(len(order), size)
        steps = whole + (rest > 0)
        members = np.full((steps, self.batch * self.accumulation), -1, dtype=np.int64)
        own = np.array_split(np.arange(size), self.size)[self.rank]
        members[:whole, : len(own)] = order[: whole * size].reshape(whole, size)[:, own]
        if rest:
            share = np.array_split(order[whole * size :], self.size)[self.rank]
            members[whole, : len(share)] = share
        return self._batches(members, np.minimum(size, len(order) - size * np.arange(steps)))

    def _batches(self, members: np.ndarray, counts: np.ndarray) -> EpochBatches:
        shape = (len(counts), self.accumulation, self.batch)
        return EpochBatches(members.reshape(shape), counts)

    def _shard_sizes(self) -> list[int]:
        small, larger = divmod(self.examples, self.size)
        return [small + (rank < larger) for rank in range(self.size)]

    def _permutation(self, count: int, epoch: int, *more: int) -> np.ndarray:
        key = np.random.SeedSequence(self.seed, spawn_key=(_SHUFFLE_STREAM, epoch, *more))
        return np.random.default_rng(key).permutation(count)


@dataclass(frozen=True)
class EpochBatches:
    """A rank's batches of one epoch.

    Attributes
    ----------
    members : np.ndarray, shape=(steps, accumulation, batch), dtype=int64
        Positions among the training rows; -1 where a smaller batch leaves a place empty.
    counts : np.ndarray, shape=(steps,), dtype=int64
        Examples of each step over all ranks, by which its loss is divided.
    """

    members: np.ndarray
    counts: np.ndarray

    def chunks(self, steps: int) -> Iterator[EpochBatches]:
        """Yield runs of at most `steps` consecutive steps."""
        for start in range(0, len(self.counts), steps):
            stop = start + steps
            yield EpochBatches(self.members[start:stop], self.counts[start:stop])
