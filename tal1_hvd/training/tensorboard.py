"""The history as TensorBoard sees it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tensorflow as tf

from tal1_hvd.errors import InputError


class TensorBoardLog:
    """Writes a scalar for every figure of an epoch.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write epochs' history rows; their epochs are the steps.

        Raises
        ------
        InputError
            The folder cannot be written to, or has no room.
        """
        try:
            for row in rows:
                with self._writer.as_default(step=row["epoch"]):
                    for name, value in row.items():
                        if name != "epoch" and value is not None:
                            tf.summary.scalar(name, value)
            self._writer.flush()
        except tf.errors.OpError as error:
            # "{{function_node ...}} FILE; No space left on device", and more lines.
            reason = error.message.partition("\n")[0].rpartition("; ")[2]
            raise InputError(f"{self._folder}: cannot be written: {reason}") from None

    def close(self) -> None:
        """Close the file; the next session writes one of its own."""
        # All has been flushed, or that it cannot be has been said.
        with suppress(tf.errors.OpError):
            self._writer.close()
