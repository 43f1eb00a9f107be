"""The history as TensorBoard sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf


class TensorBoardLog:
    """Writes a scalar for every figure of an epoch.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path):
        self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, row: dict[str, Any]) -> None:
        """Write an epoch's history row; its epoch is the step."""
        with self._writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    tf.summary.scalar(name, value)
        self._writer.flush()
