"""Scores of many sequences in batches of one shape, so that they do not depend on the batching."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

# Batches in one graph call, which costs as much as a few sequences.
_MOST_BATCHES_A_CALL = 32
# ...as long as their sequences take little memory.
_BYTES_A_CALL = 8_000_000


class Scorer:
    """Applies a model to any number of sequences.

    Every call of the network gets `batch` rows, the last ones padded: one traced graph, and a
    sequence's score is the same whatever it is scored with.

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
        at_once = _BYTES_A_CALL // (batch * self.length)
        self._at_once = batch * min(max(at_once, 1), _MOST_BATCHES_A_CALL)
        self._dtype = np.dtype(model.outputs[0].dtype)
        scores = tf.TensorSpec((batch,), self._dtype)
        self._forward = tf.function(
            lambda batches: tf.map_fn(
                lambda codes: model(codes, training=False)[:, 0],
                batches,
                fn_output_signature=scores,
            ),
            autograph=False,
            input_signature=[tf.TensorSpec((None, batch, self.length), tf.uint8)],
        ).get_concrete_function()

    def __call__(self, sequences: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Score sequences.

        Parameters
        ----------
        sequences : np.ndarray, shape=(n, length), dtype=uint8
            May be a memory map; it is read a few batches at a time.
        rows : np.ndarray, shape=(m,), dtype=int64, optional
            Which rows to score, in this order; all if left out.

        Returns
        -------
        np.ndarray, shape=(n,) or (m,)
            Probability of a positive, in the model's output dtype.
        """
        rows = np.arange(len(sequences)) if rows is None else rows
        parts = [
            self._scores(sequences[rows[start : start + self._at_once]])
            for start in range(0, len(rows), self._at_once)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=self._dtype)

    def _scores(self, codes: np.ndarray) -> np.ndarray:
        count = len(codes)
        missing = -count % self._batch
        if missing:
            # By rows of A, which take less time than rows of N.
            codes = np.pad(codes, ((0, missing), (0, 0)))
        batches = tf.constant(codes.reshape(-1, self._batch, self.length))
        return self._forward(batches).numpy().ravel()[:count]
