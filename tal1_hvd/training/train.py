"""A training run on any number of ranks: epochs, checkpoints, and the best model's metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from tal1_hvd.data.batches import Batching
from tal1_hvd.data.dataset import Dataset
from tal1_hvd.distributed.agreement import AgreedError
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.distributed.optimizer import DistributedOptimizer
from tal1_hvd.evaluation.metrics import summary
from tal1_hvd.evaluation.summary import full_summary
from tal1_hvd.models.first_layer import fuse_first_layer
from tal1_hvd.models.registry import build_model
from tal1_hvd.models.scoring import Scorer
from tal1_hvd.training.adam import FusedAdam
from tal1_hvd.training.checkpoint import Checkpoint, Progress, assign, save_checkpoint
from tal1_hvd.training.reporters import Reporter
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.schedule import ScaledWarmup
from tal1_hvd.training.settings import TrainSettings
from tal1_hvd.training.step import Totals, compile_steps, gather, read_ahead
from tal1_hvd.training.tensorboard import TensorBoardLog

# Passes in one graph call: enough that the call costs nothing, few enough that progress shows...
_MOST_PASSES_A_CALL = 64
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
    communicator : Communicator
    model : keras.Model
        Of Keras's own layers; `steps` and `scorer` use its variables.
    optimizer : DistributedOptimizer
    steps : callable
        What `compile_steps` made.
    scorer : Scorer
    """

    settings: TrainSettings
    dataset: Dataset
    batching: Batching
    communicator: Communicator
    model: keras.Model
    optimizer: DistributedOptimizer
    steps: Callable[..., Totals]
    scorer: Scorer

    @property
    def optimizer_state(self) -> list[keras.Variable]:
        """What a checkpoint holds of the optimizer.

        Its accumulators are empty at the end of an epoch, so a run can be resumed with another
        number of passes a step.
        """
        return self.optimizer.inner_optimizer.variables

    @property
    def passes_a_call(self) -> int:
        """How many passes one graph call makes at most."""
        fitting = _BYTES_A_CALL // (self.batching.batch * self.dataset.length)
        return min(max(fitting, 1), _MOST_PASSES_A_CALL)

    @classmethod
    def build(
        cls,
        settings: TrainSettings,
        dataset: Dataset,
        batching: Batching,
        communicator: Communicator,
    ) -> Trainer:
        """Build the model and its optimizer, equal on all ranks, and trace the graphs."""
        model = build_model(settings.model, dataset.length, settings.seed, settings.precision)
        schedule = ScaledWarmup(
            settings.learning_rate, batching.global_batch, settings.warmup_examples
        )
        optimizer = DistributedOptimizer(
            FusedAdam(schedule),
            communicator,
            op="sum",
            compression=settings.compression,
            backward_passes_per_step=settings.accumulation,
        )
        optimizer.build(model.trainable_variables)
        communicator.broadcast_variables([*model.variables, *optimizer.variables])
        fused = fuse_first_layer(model)
        steps = compile_steps(fused, optimizer, batching.batch)
        return cls(
            settings, dataset, batching, communicator, model, optimizer, steps, Scorer(fused)
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
        chunks = self.batching.epoch(epoch).chunks(self.passes_a_call)
        read = partial(gather, dataset.sequences, dataset.labels, rows)
        loss, correct, passed, told = 0.0, 0, 0, 0
        for passes in read_ahead(read, chunks):
            totals = self.steps(*passes)
            loss += float(totals.loss)
            correct += int(totals.correct)
            # Every pass of a step carries the step's count.
            passed += int(passes.counts.sum())
            done = passed // self.settings.accumulation
            advance(done - told)
            told = done
        sums = self.communicator.all_gather(np.array([[loss, float(correct)]])).sum(axis=0)
        return {
            "train_loss": float(sums[0] / len(rows)),
            "train_accuracy": float(sums[1] / len(rows)),
        }

    def scores(self, split: str) -> np.ndarray:
        """Score a split, each rank its share.

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
        share = np.array_split(rows, self.communicator.size)
        own = self.scorer(self.dataset.sequences, share[self.communicator.rank])
        return self.communicator.all_gather(own)

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
    progress, best = _resume(trainer, checkpoint)
    communicator, settings = trainer.communicator, trainer.settings
    reporter.start(settings.epochs, progress.epoch, trainer.batching.examples)
    log = TensorBoardLog(folder.tensorboard) if communicator.rank == 0 else None
    # As if all earlier sessions had run without a break before this one.
    began = time.perf_counter() - progress.train_seconds
    saved, saved_at = progress.epoch, time.perf_counter()
    try:
        while not progress.finished(settings.epochs, settings.patience):
            progress, best = _epoch(trainer, progress, best, began, reporter)
            due = time.perf_counter() - saved_at >= _SECONDS_BETWEEN_CHECKPOINTS
            if log is not None and (due or progress.finished(settings.epochs, settings.patience)):
                # First: an epoch that is saved is not logged again.
                log.write(progress.history[saved:])
                _save(trainer, folder, progress, best, saved)
                progress = replace(progress, train_seconds=time.perf_counter() - began)
                saved, saved_at = progress.epoch, time.perf_counter()
    finally:
        reporter.finish()
    assign(trainer.model.variables, best.model)
    return _finish(trainer, folder, progress)


def _resume(trainer: Trainer, checkpoint: Checkpoint | None) -> tuple[Progress, Checkpoint]:
    """Restore rank 0's checkpoint on all ranks; return the progress and the best model."""
    communicator = trainer.communicator
    progress = Progress()
    variables = [*trainer.model.variables, *trainer.optimizer_state]
    best = _snapshot(trainer, progress)
    if checkpoint is not None:
        assign(variables, [*checkpoint.model, *checkpoint.optimizer])
        progress = checkpoint.progress
        best = replace(best, model=checkpoint.best)
    progress = Progress(**communicator.broadcast_json(vars(progress)))
    communicator.broadcast_variables(variables)
    # Only rank 0's best weights are used until the end, when they are broadcast.
    return progress, best


def _epoch(
    trainer: Trainer,
    progress: Progress,
    best: Checkpoint,
    began: float,
    reporter: Reporter,
) -> tuple[Progress, Checkpoint]:
    """Train and validate for one epoch; return the new progress and the best model."""
    communicator = trainer.communicator
    start = time.perf_counter()
    training = trainer.train_epoch(progress.epoch, reporter.advance)
    seconds_training = time.perf_counter() - start
    scores = trainer.scores("validation")
    row: dict[str, Any] = {}
    if communicator.rank == 0:
        metrics = summary(trainer.labels("validation"), scores)
        row = {
            "epoch": progress.epoch + 1,
            **training,
            **{f"validation_{name}": metrics[name] for name in _EPOCH_METRICS},
            "learning_rate": float(trainer.optimizer.learning_rate),
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
    progress = progress.after_epoch(row, time.perf_counter() - began)
    if progress.best_epoch == progress.epoch:
        best = _snapshot(trainer, progress)
    reporter.epoch(row)
    return progress, best


def _snapshot(trainer: Trainer, progress: Progress) -> Checkpoint:
    model = [np.array(variable) for variable in trainer.model.variables]
    optimizer = [np.array(variable) for variable in trainer.optimizer_state]
    return Checkpoint(progress, model, optimizer, model)


def _save(
    trainer: Trainer, folder: RunFolder, progress: Progress, best: Checkpoint, saved: int
) -> None:
    """Save checkpoints; `saved` is the epoch of those before."""
    if progress.best_epoch > saved:
        save_checkpoint(folder.best, *vars(best).values())
    save_checkpoint(
        folder.last, progress, trainer.model.variables, trainer.optimizer_state, best.model
    )
    folder.write_history(progress.history)


def _finish(trainer: Trainer, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    """Score the best model on every split and write the results; return the metrics."""
    communicator, dataset = trainer.communicator, trainer.dataset
    communicator.broadcast_variables(trainer.model.variables)
    scores = {split: trainer.scores(split) for split in ("train", "validation", "test")}
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
