"""What a finished run leaves: exact metrics, predictions and the model."""

from __future__ import annotations

from typing import Any

from tal1_hvd.distributed.agreement import together
from tal1_hvd.evaluation.metrics import summary
from tal1_hvd.evaluation.summary import full_summary
from tal1_hvd.training.checkpoint import Progress
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.trainer import Trainer


def write_results(trainer: Trainer, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    """Score the model on every split, and write what a finished run leaves.

    Parameters
    ----------
    trainer : Trainer
        Rank 0 has the best weights; a collective gives them to all.
    folder : RunFolder
        Only rank 0 writes to it.
    progress : Progress

    Returns
    -------
    dict
        What `metrics.json` holds; empty on ranks other than 0.

    Raises
    ------
    AgreedError
        A file of the dataset was changed since training began; nothing is written.
    """
    communicator, dataset = trainer.communicator, trainer.dataset
    # One rank a machine, as each may have files of its own.
    together(communicator, dataset.verify if communicator.local_rank == 0 else lambda: None)
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
