"""A training run on any number of ranks: epochs, checkpoints, and the best model's metrics."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from tal1_hvd.aggregation.base import assign
from tal1_hvd.distributed.agreement import AgreedError
from tal1_hvd.distributed.rank_log import LOG
from tal1_hvd.evaluation.metrics import summary
from tal1_hvd.machine import device_bytes, resident_bytes
from tal1_hvd.training.checkpoint import Checkpoint, Progress, save_checkpoint
from tal1_hvd.training.interruptions import (
    NOT_FINITE,
    Keeper,
    Left,
    RanksChanged,
    Rhythm,
    Signals,
    Stopped,
)
from tal1_hvd.training.rank_usage import RankUsage, Stragglers
from tal1_hvd.training.reporters import Reporter
from tal1_hvd.training.results import write_results
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.tensorboard import TensorBoardLog
from tal1_hvd.training.trainer import Trainer

# Epochs can be shorter than a checkpoint takes to reach the disk.
_SECONDS_BETWEEN_CHECKPOINTS = 2.0
_EPOCH_METRICS = ("loss", "accuracy", "auroc", "auprc")


def train(
    trainer: Trainer,
    folder: RunFolder,
    reporter: Reporter,
    checkpoint: Checkpoint | None = None,
    keeper: Keeper | None = None,
    saved: int | None = None,
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
    keeper : Keeper, optional
        Where ranks may come and go.
    saved : int, optional
        Epochs of the checkpoint on disk, if `checkpoint` is not that one.

    Returns
    -------
    dict
        What `metrics.json` holds.

    Raises
    ------
    Stopped
        SIGTERM or SIGUSR1 came; a checkpoint is saved.
    RanksChanged
        `keeper` knows of ranks that come or go, and has what was done.
    AgreedError
        The loss is not finite any more.
    """
    with Signals() as signals:
        course = _Course(trainer, folder, reporter, keeper, signals)
        course.begin(checkpoint, saved)
        try:
            while not course.finished:
                course.epoch()
        finally:
            course.end()
    assign(trainer.model.variables, course.last.best)
    return write_results(trainer, folder, course.last.progress)


class _Course:
    """A session of a run, from a checkpoint to the last epoch.

    Attributes
    ----------
    last, best : Checkpoint
        What training goes on from, and what it was at the best epoch.
    """

    last: Checkpoint
    best: Checkpoint

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        reporter: Reporter,
        keeper: Keeper | None,
        signals: Signals,
    ):
        self._trainer = trainer
        self._communicator = trainer.communicator
        self._folder = folder
        self._reporter = reporter
        self._keeper = keeper
        self._signals = signals
        self._rhythm = Rhythm()
        self._stragglers = Stragglers()

    def begin(self, checkpoint: Checkpoint | None, saved: int | None) -> None:
        """Restore rank 0's checkpoint on all ranks."""
        trainer = self._trainer
        fresh = trainer.snapshot(Progress())
        last = fresh if checkpoint is None else checkpoint
        progress = Progress(**self._communicator.broadcast_json(vars(last.progress)))
        if progress.steps or progress.epoch:
            trainer.aggregation.restore(last.model, last.optimizer)
        self.last = replace(last, progress=progress)
        # Only rank 0's best weights are used until the end, when they are broadcast.
        self.best = replace(self.last, model=last.best)
        self._log = TensorBoardLog(self._folder.tensorboard) if self._is_first else None
        self._saved = progress.epoch if saved is None else saved
        self._saved_at = time.perf_counter()
        # As if all earlier sessions had run without a break before this one.
        self._began = time.perf_counter() - progress.train_seconds
        self._reporter.start(trainer.settings.epochs, progress.epoch, trainer.batching.examples)
        self._reporter.advance(progress.examples)

    def end(self) -> None:
        """Close what is open."""
        self._reporter.finish()
        if self._log is not None:
            self._log.close()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience is lost."""
        settings = self._trainer.settings
        return self.last.progress.finished(settings.epochs, settings.patience)

    @property
    def _is_first(self) -> bool:
        return self._communicator.rank == 0

    def epoch(self) -> None:
        """Train and validate for what is left of an epoch."""
        trainer, start = self._trainer, time.perf_counter()
        before = self.last.progress
        loss, correct = before.sums_of(*self._process)
        waited = 0.0
        trainer.aggregation.begin_epoch()
        for call in trainer.calls(before.epoch, before.examples):
            loss, correct = loss + call.loss, correct + call.correct
            waited += call.waited
            self._count(call.steps, call.examples)
            self._reporter.advance(call.examples)
            # The end of the epoch is a point of its own.
            rest = trainer.batching.examples - self.last.progress.examples
            if rest and trainer.aggregation.pausable and self._rhythm.due():
                self._pause(loss, correct)
        trained = time.perf_counter() - start
        sums, wanted, _ = self._look(loss, correct)
        # Ranks that share a model take the same examples.
        counted = trainer.batching.examples * self._communicator.size // trainer.batching.size
        row = {
            "train_loss": sum(pair[0] for pair in sums) / counted,
            "train_accuracy": sum(pair[1] for pair in sums) / counted,
            **trainer.aggregation.end_epoch(),
        }
        row = self._validate(row, start, trained, trainer.batching.examples - before.examples)
        steps = self.last.progress.steps - before.steps
        progress = self.last.progress.after_epoch(row, time.perf_counter() - self._began)
        self._reach(progress)
        self._reporter.epoch(row)
        self._compare_ranks(row["epoch"], steps, trained, waited)
        if self._is_first and (
            self.finished or time.perf_counter() - self._saved_at >= _SECONDS_BETWEEN_CHECKPOINTS
        ):
            self._save()
        if not self.finished:
            self._leave(*wanted)

    def _validate(
        self, row: dict[str, Any], start: float, trained: float, examples: int
    ) -> dict[str, Any]:
        """Score the validation split; return the epoch's line of the history, on all ranks."""
        trainer = self._trainer
        scores = trainer.scores("validation")
        if self._is_first:
            metrics = summary(trainer.labels("validation"), scores)
            row = {
                "epoch": self.last.progress.epoch + 1,
                **row,
                **{f"validation_{name}": metrics[name] for name in _EPOCH_METRICS},
                "learning_rate": trainer.aggregation.learning_rate,
                "examples_per_second": examples / trained,
                "seconds": time.perf_counter() - start,
            }
        # All ranks go on from the same numbers, so they stop at the same epoch.
        row = self._communicator.broadcast_json(row)
        if not np.isfinite(row["train_loss"]) or not np.isfinite(row["validation_loss"]):
            raise AgreedError(
                f"--learning-rate: {NOT_FINITE} in epoch {row['epoch']}; "
                f"choose a lower one than {trainer.settings.learning_rate:g}, and another --out"
            )
        return row

    def _compare_ranks(self, epoch: int, steps: int, seconds: float, waited: float) -> None:
        """Note what the epoch cost each rank, and name those that others wait for."""
        communicator = self._communicator
        own = [communicator.rank, steps, seconds, waited, resident_bytes(), device_bytes()]
        rows = communicator.all_gather(np.array([own], dtype=np.float64)).tolist()
        usages = [
            RankUsage(int(rank), int(steps), seconds, waited, int(memory), int(gpu))
            for rank, steps, seconds, waited, memory, gpu in rows
        ]
        LOG.info("epoch %d: %s", epoch, usages[self._process[0]].describe())
        if self._is_first:
            self._reporter.record("ranks", ranks=[usage.as_event() for usage in usages])
        for line in self._stragglers.slow(usages):
            self._reporter.message(line)

    def _count(self, steps: int, examples: int) -> None:
        progress = self.last.progress
        seen = progress.seen + steps * self._trainer.batching.global_batch
        progress = replace(
            progress,
            examples=progress.examples + examples,
            steps=progress.steps + steps,
            seen=seen,
        )
        self.last = replace(self.last, progress=progress)

    def _pause(self, loss: float, correct: int) -> None:
        """Look for interruptions within an epoch; keep what was done where ranks may go."""
        sums, wanted, calls = self._look(loss, correct)
        if self._keeper is not None or any(wanted):
            seconds = time.perf_counter() - self._began
            self._reach(replace(self.last.progress, sums=sums, train_seconds=seconds))
        self._rhythm.looked(calls)
        self._leave(*wanted)

    def _look(self, loss: float, correct: int) -> tuple[list[list[float]], tuple[int, bool], int]:
        """Return all processes' sums, what asks them to leave, and when to look again.

        What asks is a signal, to so many of them, and whether ranks come or go.
        """
        changed = self._keeper is not None and self._keeper.changed()
        own = [loss, correct, self._signals.received > 0, changed, self._rhythm.proposal]
        all_own = self._communicator.all_gather(np.array([own], dtype=np.float64))
        wanted = int(all_own[:, 2].sum()), bool(all_own[:, 3].any())
        return all_own[:, :2].tolist(), wanted, int(all_own[0, 4])

    def _reach(self, progress: Progress) -> None:
        """Take a snapshot, and keep it where ranks may go."""
        now = self._trainer.snapshot(progress)
        if progress.examples == 0 and progress.best_epoch == progress.epoch:
            self.best = now
        self.last = replace(now, best=self.best.model)
        if self._keeper is not None:
            self._keeper.keep(self.last)

    def _leave(self, stopped: int, changed: bool) -> None:
        """End the session if what ranks have noticed asks for it.

        Where ranks may come and go, those leave alone that got a signal, unless all did.
        """
        if (stopped or changed) and self._is_first:
            # Others may be about to get their signals, and new ranks can take long to start.
            self._save()
        if stopped and (self._keeper is None or stopped == self._process[1]):
            raise Stopped(self.last.progress.describe())
        if stopped and self._signals.received:
            raise Left(self.last.progress.describe())
        if stopped or changed:
            raise RanksChanged("ranks come or go")

    def _save(self) -> None:
        """Write checkpoints, history and TensorBoard's log."""
        saved, progress, start = self._saved, self.last.progress, time.perf_counter()
        # First: an epoch that is saved is not logged again.
        self._log.write(progress.history[saved:])
        if progress.best_epoch > saved:
            save_checkpoint(self._folder.best, self.best)
        save_checkpoint(self._folder.last, self.last)
        self._folder.write_history(progress.history)
        self._saved, self._saved_at = progress.epoch, time.perf_counter()
        self._reporter.record(
            "checkpoint",
            epoch=progress.epoch,
            examples=progress.examples,
            seconds=round(self._saved_at - start, 6),
        )
        seconds = self._saved_at - self._began
        self.last = replace(self.last, progress=replace(progress, train_seconds=seconds))

    @property
    def _process(self) -> tuple[int, int]:
        """The number of this process, and how many there are."""
        communicator = self._communicator
        replicas = communicator.replicas
        return communicator.rank // replicas, communicator.size // replicas
