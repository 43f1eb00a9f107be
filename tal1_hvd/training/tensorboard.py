"""The history as TensorBoard sees it."""

from __future__ import annotations

from collections.abc import Sequence
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

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write epochs' history rows; their epochs are the steps."""
        for row in rows:
            with self._writer.as_default(step=row["epoch"]):
                for name, value in row.items():
                    if name != "epoch" and value is not None:
                        tf.summary.scalar(name, value)
        self._writer.flush()
