"""A model in training on one rank, with all that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import keras
import numpy as np

from tal1_hvd.aggregation.base import Aggregation
from tal1_hvd.data.batches import Batching, EpochBatches
from tal1_hvd.data.dataset import Dataset
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.models.compiled import why_not_compiled
from tal1_hvd.models.first_layer import fuse_first_layer
from tal1_hvd.models.registry import build_model
from tal1_hvd.models.scoring import Scorer
from tal1_hvd.training.checkpoint import Checkpoint, Progress
from tal1_hvd.training.choose_aggregation import make_aggregation
from tal1_hvd.training.settings import TrainSettings
from tal1_hvd.training.step import (
    Batches,
    CallTotals,
    compile_steps,
    gather,
    make_gradient,
    read_ahead,
)

# Steps in one graph call: enough that the call costs nothing, few enough that progress shows...
_MOST_STEPS_A_CALL = 64
# ...and that their sequences take little memory.
_BYTES_A_CALL = 8_000_000


class Call(NamedTuple):
    """What a graph call did.

    Attributes
    ----------
    steps : int
    examples : int
        Over all ranks.
    loss : float
        Sum over the examples of this process's ranks, in nats.
    correct : int
        How many of them were classified rightly.
    waited : float
        Seconds that this process waited for others, as far as it can tell.
    """

    steps: int
    examples: int
    loss: float
    correct: int
    waited: float


@dataclass(frozen=True)
class Trainer:
    """A model in training on this rank, with all that an epoch needs.

    Attributes
    ----------
    settings : TrainSettings
    dataset : Dataset
    batching : Batching
        Of this process's first rank.
    communicator : Communicator
    model : keras.Model
        Of Keras's own layers; `scorer` uses its variables.
    learner : keras.Model
        What this rank trains: the same, or this rank's part of it, with a fused first layer.
    aggregation : Aggregation
    steps : callable
        What `compile_steps` made.
    scorer : Scorer
    """

    settings: TrainSettings
    dataset: Dataset
    batching: Batching
    communicator: Communicator
    model: keras.Model
    learner: keras.Model
    aggregation: Aggregation
    steps: Callable[[Sequence[Batches]], CallTotals]
    scorer: Scorer

    @property
    def shares(self) -> list[Batching]:
        """What each rank of this process takes."""
        ranks = range(self.communicator.replicas)
        return [replace(self.batching, rank=self.batching.rank + rank) for rank in ranks]

    @property
    def steps_a_call(self) -> int:
        """How many steps one graph call makes at most."""
        step = self.batching.batch * self.batching.accumulation * self.communicator.replicas
        return min(max(_BYTES_A_CALL // (step * self.dataset.length), 1), _MOST_STEPS_A_CALL)

    @classmethod
    def build(
        cls,
        settings: TrainSettings,
        dataset: Dataset,
        batching: Batching,
        communicator: Communicator,
        progress: Progress | None = None,
    ) -> Trainer:
        """Build the model and its optimizer, equal on all ranks, and trace the graphs.

        Parameters
        ----------
        settings : TrainSettings
        dataset : Dataset
        batching : Batching
        communicator : Communicator
        progress : Progress, optional
            How far the run has come: where the global batch was another before, the learning rate
            goes on as warm as it was.
        """
        with communicator.scope():
            model = build_model(settings.model, dataset.length, settings.seed, settings.precision)
            before = 0 if progress is None else progress.ahead(batching.global_batch)
            aggregation, learner = make_aggregation(
                settings, batching.global_batch, model, communicator, before
            )
            fused = fuse_first_layer(model)
            learner = fused if learner is model else fuse_first_layer(learner)
        gradient = make_gradient(learner, batching.accumulation)
        shape = (batching.accumulation, batching.batch, dataset.length)
        # Where Keras sums gradients, a wait for them cannot be told from the update.
        waits = communicator.size > communicator.replicas and not communicator.reduced_by_keras
        timed = waits and why_not_compiled() is None
        last = learner.trainable_variables[-1] if timed else None
        steps = compile_steps(gradient, aggregation, communicator, shape, last)
        scorer = Scorer(fused, communicator=communicator)
        return cls(
            settings, dataset, batching, communicator, model, learner, aggregation, steps, scorer
        )

    def calls(self, epoch: int, done: int = 0) -> Iterator[Call]:
        """Train for what is left of an epoch, and yield after each graph call.

        Parameters
        ----------
        epoch : int
            From 0.
        done : int
            Its examples that were taken before.

        Yields
        ------
        Call
        """
        dataset, rows = self.dataset, self.dataset.rows("train")
        chunks = (share.epoch(epoch, done).chunks(self.steps_a_call) for share in self.shares)

        def read(ranks: tuple[EpochBatches, ...]) -> list[Batches]:
            dataset.require_whole()
            return [gather(dataset.sequences, dataset.labels, rows, rank) for rank in ranks]

        for batches in read_ahead(read, zip(*chunks, strict=True)):
            totals = self.steps(batches)
            counts = batches[0].counts
            sums = float(totals.loss), int(totals.correct), float(totals.waited)
            yield Call(len(counts), int(counts.sum()), *sums)

    def scores(self, split: str) -> np.ndarray:
        """Score a split, each rank a part.

        Parameters
        ----------
        split : {"train", "validation", "test"}

        Returns
        -------
        np.ndarray, shape=(n_split,)
            In row order, on every rank.
        """
        rows = self.dataset.rows(split)
        if not len(rows):
            return np.empty(0)
        self.dataset.require_whole()
        shares = np.array_split(rows, self.communicator.size)
        first = self.communicator.rank
        own = np.concatenate(shares[first : first + self.communicator.replicas])
        return self.communicator.all_gather(self.scorer(self.dataset.sequences, own))

    def labels(self, split: str) -> np.ndarray:
        """Return a split's labels in row order, shape (n_split,)."""
        return self.dataset.labels[self.dataset.rows(split)]

    def snapshot(self, progress: Progress) -> Checkpoint:
        """Return a checkpoint of what is there, best or not; called by all ranks."""
        model = [np.array(variable) for variable in self.model.variables]
        return Checkpoint(progress, model, self.aggregation.state(), model)
