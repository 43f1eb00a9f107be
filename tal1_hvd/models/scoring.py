"""Scores of many sequences in batches of one shape, so that they do not depend on the batching."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.data.encoding import UNKNOWN


class Scorer:
    """Applies a model to any number of sequences.

    Every call of the network gets `batch` rows, the last ones padded with N: one traced graph,
    and a sequence's score is the same whatever it is scored with.

    Parameters
    ----------
    model : keras.Model
        Input uint8 codes, shape (batch, length); output shape (batch, 1).
    batch : int
        Rows a call.
    """

    def __init__(self, model: keras.Model, batch: int = 128):
        self.length = int(model.input_shape[1])
        self._batch = batch
        self._dtype = np.dtype(model.outputs[0].dtype)
        self._forward = tf.function(
            lambda codes: model(codes, training=False)[:, 0],
            input_signature=[tf.TensorSpec((batch, self.length), tf.uint8)],
        ).get_concrete_function()

    def __call__(self, sequences: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Score sequences.

        Parameters
        ----------
        sequences : np.ndarray, shape=(n, length), dtype=uint8
            May be a memory map; it is read a batch at a time.
        rows : np.ndarray, shape=(m,), dtype=int64, optional
            Which rows to score, in this order; all if left out.

        Returns
        -------
        np.ndarray, shape=(n,) or (m,)
            Probability of a positive, in the model's output dtype.
        """
        rows = np.arange(len(sequences)) if rows is None else rows
        scores = [
            self._forward(tf.constant(codes)).numpy()[:count]
            for codes, count in self._batches(sequences, rows)
        ]
        return np.concatenate(scores) if scores else np.empty(0, dtype=self._dtype)

    def _batches(self, sequences: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        for start in range(0, len(rows), self._batch):
            codes = sequences[rows[start : start + self._batch]]
            missing = self._batch - len(codes)
            yield np.pad(codes, ((0, missing), (0, 0)), constant_values=UNKNOWN), len(codes)
