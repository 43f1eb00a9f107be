"""Checkpoints: everything that a run needs to go on as if it had never stopped.

One ``.npz`` file holds the model's and the optimizer's variables, the best weights so far and the
progress as JSON, so it is replaced in one rename. Its members carry CRC-32s, and nothing in it is
pickled.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tal1_hvd.data.files import DAMAGED, atomic_file, require_stored
from tal1_hvd.errors import InputError

FORMAT_VERSION = 1
_GROUPS = ("model", "optimizer", "best")


@dataclass(frozen=True)
class Progress:
    """How far a run has come, and what decides how it goes on.

    Attributes
    ----------
    epoch : int
        Epochs done.
    best_epoch : int
        Epoch (from 1) of the lowest validation loss; 0 before the first.
    best_loss : float
        In nats; None before the first.
    train_seconds : float
        Spent in epochs, over all sessions.
    history : list of dict
        A row an epoch.
    examples : int
        Of the epoch that has begun, over all ranks.
    sums : list of list of float
        Of each process over these: the loss in nats, and how many were classified rightly.
    steps, seen : int
        Updates so far, and the sum of their global batches, a last smaller one counted in full.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    train_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    examples: int = 0
    sums: list[list[float]] = field(default_factory=list)
    steps: int = 0
    seen: int = 0

    def describe(self) -> str:
        """Say how far that is."""
        examples = f" and {self.examples:,} examples of the next" if self.examples else ""
        return f"epoch {self.epoch}{examples}"

    def ahead(self, global_batch: int) -> int:
        """Return how many more examples were seen than by as many steps of a global batch."""
        return self.seen - self.steps * global_batch

    def sums_of(self, process: int, processes: int) -> tuple[float, int]:
        """Return the sums that a process goes on from.

        Its own, where there are as many processes as before; otherwise the first takes all.
        """
        own = self.sums if process == 0 else []
        if len(self.sums) == processes:
            own = [self.sums[process]]
        return float(sum(loss for loss, _ in own)), int(sum(correct for _, correct in own))

    def after_epoch(self, row: dict[str, Any], train_seconds: float) -> Progress:
        """Return the progress after one more epoch.

        Parameters
        ----------
        row : dict
            Its history row, with `validation_loss`.
        train_seconds : float
            Spent in epochs so far.
        """
        epoch = self.epoch + 1
        loss = row["validation_loss"]
        better = self.best_loss is None or loss < self.best_loss
        return replace(
            self,
            epoch=epoch,
            best_epoch=epoch if better else self.best_epoch,
            best_loss=loss if better else self.best_loss,
            train_seconds=train_seconds,
            history=[*self.history, row],
            examples=0,
            sums=[],
        )

    def finished(self, epochs: int, patience: int | None) -> bool:
        """Say whether training ends here: all epochs done, or none better for `patience`."""
        stale = self.epoch - self.best_epoch
        return self.epoch >= epochs or (patience is not None and stale >= patience)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes
    ----------
    progress : Progress
    model, optimizer, best : list of np.ndarray
        The model's variables; what the optimizers hold; the model's variables at the best epoch.
    """

    progress: Progress
    model: list[np.ndarray]
    optimizer: list[np.ndarray]
    best: list[np.ndarray]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint that replaces the one before only when it is complete.

    Parameters
    ----------
    path : Path
    checkpoint : Checkpoint

    Raises
    ------
    OSError
        The disk is full or the folder is gone; the checkpoint before stays as it was.
    """
    packed = pack(checkpoint)
    with atomic_file(path, "wb") as handle:
        handle.write(packed)


def pack(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint's file."""
    arrays = {
        f"{group}/{i}": array
        for group in _GROUPS
        for i, array in enumerate(getattr(checkpoint, group))
    }
    note = {"format_version": FORMAT_VERSION, "progress": asdict(checkpoint.progress)}
    archive = io.BytesIO()
    np.savez(archive, note=np.frombuffer(json.dumps(note).encode(), dtype=np.uint8), **arrays)
    return archive.getvalue()


def load_checkpoint(path: Path, packed: bytes | None = None) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
        Named in errors.
    packed : bytes, optional
        What `pack` returned, instead of the file's content.

    Returns
    -------
    Checkpoint

    Raises
    ------
    InputError
        The file is damaged, not a checkpoint, or of another format version.
    """
    try:
        source = path if packed is None else io.BytesIO(packed)
        with zipfile.ZipFile(source) as archive:
            require_stored(archive)
            names = archive.namelist()
            note = json.loads(_array(archive, "note").tobytes())
            version = note["format_version"]
            groups = {
                group: [
                    _array(archive, f"{group}/{i}")
                    for i in range(sum(name.startswith(f"{group}/") for name in names))
                ]
                for group in _GROUPS
            }
            progress = Progress(**note["progress"]) if version == FORMAT_VERSION else Progress()
    except DAMAGED as error:
        raise InputError(f"{path}: not a checkpoint, or damaged ({error})") from None
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: checkpoint format version {version!r}, this version reads "
            f"{FORMAT_VERSION}; resume with the tal1-hvd that wrote it"
        )
    if not _plausible(progress):
        raise InputError(f"{path}: not a checkpoint, or damaged (its progress makes no sense)")
    return Checkpoint(progress, **groups)


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array, after a look at whether it is as large as its header says."""
    packed = archive.read(f"{name}.npy")
    handle = io.BytesIO(packed)
    if np.lib.format.read_magic(handle) != (1, 0):
        raise ValueError(f"{name}.npy is of another version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != len(packed) - handle.tell():
        raise ValueError(f"{name}.npy does not hold an array of shape {shape}")
    handle.seek(0)
    return np.lib.format.read_array(handle, allow_pickle=False)


def _plausible(progress: Progress) -> bool:
    return (
        type(progress.epoch) is int
        and type(progress.best_epoch) is int
        and 0 <= progress.best_epoch <= progress.epoch
        and isinstance(progress.best_loss, float | None)
        and isinstance(progress.train_seconds, float)
        and isinstance(progress.history, list)
        and all(_is_row(row, progress.history[0]) for row in progress.history)
        and len(progress.history) == progress.epoch
        and all(
            type(number) is int and number >= 0
            for number in (progress.examples, progress.steps, progress.seen)
        )
        and isinstance(progress.sums, list)
        and all(
            isinstance(pair, list) and [type(number) for number in pair] == [float, float]
            for pair in progress.sums
        )
    )


def _is_row(row: Any, first: Any) -> bool:
    return (
        isinstance(row, dict)
        and row.keys() == first.keys()
        and type(row.get("epoch")) is int
        and all(value is None or type(value) in (int, float) for value in row.values())
    )


def require_fit(path: Path, checkpoint: Checkpoint, like: Checkpoint) -> None:
    """Make sure that a checkpoint is of this model and optimizer.

    Parameters
    ----------
    path : Path
        Named if it is not.
    checkpoint : Checkpoint
    like : Checkpoint
        One of this run.

    Raises
    ------
    InputError
        Number, shapes or dtypes of the arrays differ.
    """
    for group in _GROUPS:
        wanted, found = (
            [(array.shape, array.dtype) for array in getattr(one, group)]
            for one in (like, checkpoint)
        )
        if wanted != found:
            raise InputError(f"{path}: holds other variables than this run's model and optimizer")
