"""The run folder: what rank 0 writes, and where.

::

    config.yaml        all settings, for ``train --config``
    manifest.json      versions, host, ranks and devices, dataset hash, seeds
    history.csv        a line an epoch
    checkpoints/       last.npz (everything a resumed run needs), best.npz
    metrics.json       metrics of the best model on every split
    predictions.tsv    its scores of the test split
    model.keras        the best model
    tensorboard/       the history, for TensorBoard
    events.jsonl       what happened when, a JSON object a line
    logs/              rank-0.log and so on: each rank's own, which it writes itself
    timeline.json      Horovod's timeline, with ``train --timeline``
    report.html        a page about it, and figures/, made by the command `report`
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tal1_hvd.data.files import (
    atomic_file,
    atomic_folder,
    exists,
    lock_folder,
    require_plain,
)
from tal1_hvd.errors import InputError
from tal1_hvd.training.settings import TrainSettings

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class RunFolder:
    """Paths and writers of one run.

    Attributes
    ----------
    path : Path
    """

    path: Path

    @classmethod
    def create(cls, path: Path, settings: TrainSettings, ranks: int) -> RunFolder:
        """Make the folder with its settings, and how many ranks train with them, in it.

        Raises
        ------
        InputError
            It exists and is not empty, or cannot be written.
        """
        with atomic_folder(path) as folder:
            (folder / "config.yaml").write_text(settings.to_yaml(ranks))
        return cls(path)

    @property
    def config(self) -> Path:
        """The settings."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Where and with what the run was made."""
        return self.path / "manifest.json"

    @property
    def last(self) -> Path:
        """The latest checkpoint."""
        return self.path / "checkpoints" / "last.npz"

    @property
    def best(self) -> Path:
        """The best epoch's checkpoint."""
        return self.path / "checkpoints" / "best.npz"

    @property
    def model(self) -> Path:
        """The best model."""
        return self.path / "model.keras"

    def require_model(self) -> None:
        """Raise InputError if there is no best model, or what is no file stands in the folder."""
        if not exists(self.path):
            raise InputError(f"{self.path}: no such run folder")
        if not self.path.is_dir():
            raise InputError(f"{self.path}: a file, not a run folder")
        if not exists(self.model) and not exists(self.config):
            raise InputError(f"{self.path}: not a run folder (it has no config.yaml)")
        if not exists(self.model):
            raise InputError(
                f"{self.model}: no such file; a run has one once its training is finished "
                "(train --resume goes on with it)"
            )
        require_plain(self.path, links=True)

    @property
    def metrics(self) -> Path:
        """The metrics; there once the run is finished."""
        return self.path / "metrics.json"

    @property
    def history(self) -> Path:
        """A line an epoch."""
        return self.path / "history.csv"

    @property
    def predictions(self) -> Path:
        """The best model's scores of the test split."""
        return self.path / "predictions.tsv"

    @property
    def report(self) -> Path:
        """A page about the run."""
        return self.path / "report.html"

    def has_begun(self) -> bool:
        """Say whether training has begun: whether there is more than settings."""
        return exists(self.manifest) or exists(self.last.parent)

    @property
    def heartbeats(self) -> Path:
        """Where ranks leave signs of life."""
        return self.path / ".heartbeats"

    @property
    def events(self) -> Path:
        """What happened when."""
        return self.path / "events.jsonl"

    @property
    def logs(self) -> Path:
        """Each rank's log."""
        return self.path / "logs"

    @property
    def timeline(self) -> Path:
        """Horovod's timeline."""
        return self.path / "timeline.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    def lock(self) -> AbstractContextManager[object]:
        """Take the folder for this process alone, until the block or the process ends.

        Raises
        ------
        InputError
            Another process trains into it.
        """
        return lock_folder(
            self.path,
            "another process is training into it (ranks of a job that was killed end within "
            "seconds)",
        )

    def remove_settings(self) -> None:
        """Remove all that is there before training begins; call it with the lock held."""
        shutil.rmtree(self.heartbeats, ignore_errors=True)
        for path in (self.config, self.path / ".lock"):
            path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove what a killed session had begun to write."""
        for folder in (self.path, self.path / "checkpoints"):
            for unfinished in folder.glob(".*.tmp*"):
                if unfinished.is_file():
                    unfinished.unlink(missing_ok=True)

    def write_settings(self, settings: TrainSettings, ranks: int) -> None:
        """Replace the settings, and how many ranks train with them."""
        with atomic_file(self.config) as handle:
            handle.write(settings.to_yaml(ranks))

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write or replace the manifest: from now on, training has begun."""
        _write_json(self.manifest, manifest)
        self.last.parent.mkdir(exist_ok=True)

    def write_history(self, history: Sequence[dict[str, Any]]) -> None:
        """Replace the history, so that it never holds more than the checkpoint."""
        with atomic_file(self.history) as handle:
            writer = csv.DictWriter(handle, list(history[0]) if history else [])
            writer.writeheader()
            writer.writerows(history)

    def write_predictions(self, rows: Iterable[tuple[str, int, float]]) -> None:
        """Write id, label and score of every test sequence."""
        with atomic_file(self.predictions) as handle:
            handle.write("id\tlabel\tscore\n")
            handle.writelines(f"{name}\t{label}\t{score:.9g}\n" for name, label, score in rows)

    def write_model(self, model: keras.Model) -> None:
        """Write the model in Keras's own format.

        Raises
        ------
        InputError
            The folder cannot be written to, or has no room.
        """
        # Keras insists on a file whose name ends so.
        unfinished = self.path / ".model.tmp.keras"
        try:
            model.save(unfinished)
            content = unfinished.read_bytes()
        except OSError as error:
            raise InputError(
                f"{self.model}: cannot be written: {error.strerror or error}"
            ) from None
        finally:
            unfinished.unlink(missing_ok=True)
        with atomic_file(self.model, "wb") as handle:
            handle.write(content)

    def read_metrics(self) -> dict[str, Any]:
        """Read the metrics.

        Raises
        ------
        InputError
            They are not there, or damaged.
        """
        try:
            metrics = json.loads(self.metrics.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.metrics}: cannot be read: {error}") from None
        if not isinstance(metrics, dict) or "test" not in metrics:
            raise InputError(f"{self.metrics}: not a run's metrics")
        return metrics

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write the metrics, which marks the run as finished."""
        _write_json(self.metrics, metrics)


def read_columns(
    path: Path, delimiter: str = ",", words: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Read a table of a run folder.

    Parameters
    ----------
    path : Path
    delimiter : str
    words : sequence of str
        Columns that hold words; all others hold numbers, NaN where there is none.

    Returns
    -------
    dict
        By its name, each column as an array, shape (rows,); words are objects.

    Raises
    ------
    InputError
        It is missing or damaged.
    """
    try:
        with path.open(newline="") as handle:
            # Nothing is quoted: an id may begin with a quotation mark.
            reader = csv.reader(handle, delimiter=delimiter, quoting=csv.QUOTE_NONE)
            head, *rows = filter(None, reader)
        if any(len(row) != len(head) for row in rows):
            raise ValueError(f"expected {len(head)} columns in every line")
        columns = zip(*rows, strict=True) if rows else [()] * len(head)
        return {
            # As objects: in an array of text every word takes the room of the longest.
            name: np.array(column, dtype=object)
            if name in words
            else np.array([float(value or "nan") for value in column])
            for name, column in zip(head, columns, strict=True)
        }
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _write_json(path: Path, value: Any) -> None:
    with atomic_file(path) as handle:
        handle.write(json.dumps(value, indent=2) + "\n")
