"""A training run on any number of ranks: epochs, checkpoints, and the best model's metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from tal1_hvd.aggregation.base import Aggregation, assign
from tal1_hvd.data.batches import Batching
from tal1_hvd.data.dataset import Dataset
from tal1_hvd.distributed.agreement import AgreedError
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.evaluation.metrics import summary
from tal1_hvd.evaluation.summary import full_summary
from tal1_hvd.models.first_layer import fuse_first_layer
from tal1_hvd.models.registry import build_model
from tal1_hvd.models.scoring import Scorer
from tal1_hvd.training.checkpoint import Checkpoint, Progress, save_checkpoint
from tal1_hvd.training.choose_aggregation import make_aggregation
from tal1_hvd.training.reporters import Reporter
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import TrainSettings
from tal1_hvd.training.step import Batches, Totals, compile_steps, gather, make_gradient, read_ahead
from tal1_hvd.training.tensorboard import TensorBoardLog

# Steps in one graph call: enough that the call costs nothing, few enough that progress shows...
_MOST_STEPS_A_CALL = 64
# ...and that their sequences take little memory.
_BYTES_A_CALL = 8_000_000
# Epochs can be shorter than a checkpoint takes to reach the disk.
_SECONDS_BETWEEN_CHECKPOINTS = 2.0
_EPOCH_METRICS = ("loss", "accuracy", "auroc", "auprc")


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
    steps: Callable[[Sequence[Batches]], Totals]
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
    ) -> Trainer:
        """Build the model and its optimizer, equal on all ranks, and trace the graphs."""
        with communicator.scope():
            model = build_model(settings.model, dataset.length, settings.seed, settings.precision)
            aggregation, learner = make_aggregation(
                settings, batching.global_batch, model, communicator
            )
            fused = fuse_first_layer(model)
            learner = fused if learner is model else fuse_first_layer(learner)
        gradient = make_gradient(learner, batching.accumulation)
        shape = (batching.accumulation, batching.batch, dataset.length)
        steps = compile_steps(gradient, aggregation, communicator, shape)
        scorer = Scorer(fused, communicator=communicator)
        return cls(
            settings, dataset, batching, communicator, model, learner, aggregation, steps, scorer
        )

    def train_epoch(self, epoch: int, advance: Callable[[int], None]) -> dict[str, float]:
        """Train for an epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        advance : callable
            Told how many examples were done over all ranks.

        Returns
        -------
        dict
            Mean loss in nats and accuracy while training, over the examples of all ranks.
        """
        dataset, rows = self.dataset, self.dataset.rows("train")
        chunks = (share.epoch(epoch).chunks(self.steps_a_call) for share in self.shares)
        self.aggregation.begin_epoch()
        read = partial(gather, dataset.sequences, dataset.labels, rows)
        loss, correct = 0.0, 0
        for batches in read_ahead(
            lambda ranks: [read(r) for r in ranks], zip(*chunks, strict=True)
        ):
            totals = self.steps(batches)
            loss += float(totals.loss)
            correct += int(totals.correct)
            advance(int(batches[0].counts.sum()))
        sums = self.communicator.all_gather(np.array([[loss, float(correct)]])).sum(axis=0)
        # Ranks that share a model take the same examples.
        counted = len(rows) * self.communicator.size // self.batching.size
        return {
            "train_loss": float(sums[0] / counted),
            "train_accuracy": float(sums[1] / counted),
            **self.aggregation.end_epoch(),
        }

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
        shares = np.array_split(rows, self.communicator.size)
        first = self.communicator.rank
        own = np.concatenate(shares[first : first + self.communicator.replicas])
        return self.communicator.all_gather(self.scorer(self.dataset.sequences, own))

    def labels(self, split: str) -> np.ndarray:
        """Return a split's labels in row order, shape (n_split,)."""
        return self.dataset.labels[self.dataset.rows(split)]


def train(
    trainer: Trainer,
    folder: RunFolder,
    reporter: Reporter,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:
    """Train until all epochs are done or patience is lost; then score the best model.

    Parameters
    ----------
    trainer : Trainer
    folder : RunFolder
        Only rank 0 writes to it.
    reporter : Reporter
        Told of the course; says something on rank 0 only.
    checkpoint : Checkpoint, optional
        On rank 0, where the run goes on from.

    Returns
    -------
    dict
        What `metrics.json` holds.
    """
    last, best = _resume(trainer, checkpoint)
    communicator, settings = trainer.communicator, trainer.settings
    saved, saved_at = last.progress.epoch, time.perf_counter()
    reporter.start(settings.epochs, saved, trainer.batching.examples)
    log = TensorBoardLog(folder.tensorboard) if communicator.rank == 0 else None
    # As if all earlier sessions had run without a break before this one.
    began = time.perf_counter() - last.progress.train_seconds
    try:
        while not last.progress.finished(settings.epochs, settings.patience):
            last, best = _epoch(trainer, last, best, began, reporter)
            finished = last.progress.finished(settings.epochs, settings.patience)
            due = time.perf_counter() - saved_at >= _SECONDS_BETWEEN_CHECKPOINTS
            if log is not None and (due or finished):
                # First: an epoch that is saved is not logged again.
                log.write(last.progress.history[saved:])
                _save(folder, last, best, saved)
                saved, saved_at = last.progress.epoch, time.perf_counter()
                seconds = saved_at - began
                last = replace(last, progress=replace(last.progress, train_seconds=seconds))
    finally:
        reporter.finish()
    assign(trainer.model.variables, last.best)
    return _finish(trainer, folder, last.progress)


def _resume(trainer: Trainer, checkpoint: Checkpoint | None) -> tuple[Checkpoint, Checkpoint]:
    """Restore rank 0's checkpoint on all ranks; return the last epoch's and the best one's."""
    fresh = snapshot(trainer, Progress())
    last = fresh if checkpoint is None else checkpoint
    progress = Progress(**trainer.communicator.broadcast_json(vars(last.progress)))
    if progress.epoch:
        trainer.aggregation.restore(last.model, last.optimizer)
    last = replace(last, progress=progress)
    # Only rank 0's best weights are used until the end, when they are broadcast.
    return last, replace(last, model=last.best)


def _epoch(
    trainer: Trainer, last: Checkpoint, best: Checkpoint, began: float, reporter: Reporter
) -> tuple[Checkpoint, Checkpoint]:
    """Train and validate for one epoch; return its checkpoint and the best one's."""
    communicator = trainer.communicator
    start = time.perf_counter()
    training = trainer.train_epoch(last.progress.epoch, reporter.advance)
    seconds_training = time.perf_counter() - start
    scores = trainer.scores("validation")
    row: dict[str, Any] = {}
    if communicator.rank == 0:
        metrics = summary(trainer.labels("validation"), scores)
        row = {
            "epoch": last.progress.epoch + 1,
            **training,
            **{f"validation_{name}": metrics[name] for name in _EPOCH_METRICS},
            "learning_rate": trainer.aggregation.learning_rate,
            "examples_per_second": trainer.batching.examples / seconds_training,
            "seconds": time.perf_counter() - start,
        }
    # All ranks go on from the same numbers, so they stop at the same epoch.
    row = communicator.broadcast_json(row)
    if not np.isfinite(row["train_loss"]) or not np.isfinite(row["validation_loss"]):
        raise AgreedError(
            f"--learning-rate: the loss is not finite any more in epoch {row['epoch']}; "
            f"choose a lower one than {trainer.settings.learning_rate:g}, and another --out"
        )
    progress = last.progress.after_epoch(row, time.perf_counter() - began)
    now = snapshot(trainer, progress)
    if progress.best_epoch == progress.epoch:
        best = now
    reporter.epoch(row)
    return replace(now, best=best.model), best


def snapshot(trainer: Trainer, progress: Progress) -> Checkpoint:
    """Return a checkpoint of what is there, best or not; called by all ranks."""
    model = [np.array(variable) for variable in trainer.model.variables]
    return Checkpoint(progress, model, trainer.aggregation.state(), model)


def _save(folder: RunFolder, last: Checkpoint, best: Checkpoint, saved: int) -> None:
    """Save checkpoints; `saved` is the epoch of those before."""
    if last.progress.best_epoch > saved:
        save_checkpoint(folder.best, best)
    save_checkpoint(folder.last, last)
    folder.write_history(last.progress.history)


def _finish(trainer: Trainer, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    """Score the best model on every split and write the results; return the metrics."""
    communicator, dataset = trainer.communicator, trainer.dataset
    communicator.broadcast_variables(trainer.model.variables)
    scores = {split: trainer.scores(split) for split in ("train", "validation", "test")}
    bytes_per_step = trainer.aggregation.bytes_per_step()
    if communicator.rank != 0:
        return {}
    epochs = progress.epoch
    examples = trainer.batching.examples
    metrics: dict[str, Any] = {
        "train": summary(trainer.labels("train"), scores["train"]),
        "validation": summary(trainer.labels("validation"), scores["validation"]),
        "test": full_summary(trainer.labels("test"), scores["test"], trainer.settings.seed)
        if len(scores["test"])
        else None,
        "train_seconds": progress.train_seconds,
        "epochs": epochs,
        "best_epoch": progress.best_epoch,
        "examples_per_second": epochs * examples / progress.train_seconds,
        "world_size": communicator.size,
        "global_batch_size": trainer.batching.global_batch,
        "strategy": communicator.name,
        "aggregation": trainer.settings.aggregation,
        "bytes_per_step": bytes_per_step,
        "model": trainer.settings.model,
    }
    ids = dataset.ids()
    rows = dataset.rows("test")
    # Once more: a session that was killed after its last checkpoint may have left it short.
    folder.write_history(progress.history)
    folder.write_predictions(
        (ids[row], int(dataset.labels[row]), float(score))
        for row, score in zip(rows, scores["test"], strict=True)
    )
    folder.write_model(trainer.model)
    folder.write_metrics(metrics)
    return metrics
