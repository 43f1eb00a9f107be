"""Scores of many sequences in batches of one shape, so that they do not depend on the batching."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.distributed.communicator import Communicator, SingleProcess

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
    communicator : Communicator
        Whose ranks in this process share the work.
    """

    def __init__(
        self,
        model: keras.Model,
        batch: int = 128,
        communicator: Communicator | None = None,
    ):
        self.length = int(model.input_shape[1])
        self._batch = batch
        communicator = SingleProcess() if communicator is None else communicator
        self._replicas = communicator.replicas
        together = batch * self._replicas
        at_once = _BYTES_A_CALL // (together * self.length)
        self._at_once = together * min(max(at_once, 1), _MOST_BATCHES_A_CALL)
        self._dtype = np.dtype(model.outputs[0].dtype)

        def score(codes: tf.Tensor) -> tf.Tensor:
            return model(codes, training=False)[:, 0]

        def score_batches(batches: Sequence[tf.Tensor]) -> tf.Tensor:
            return tf.stack(communicator.run(score, [(codes,) for codes in batches]))

        codes = tf.TensorSpec((None, batch, self.length), tf.uint8)
        scores = tf.TensorSpec((self._replicas, batch), self._dtype)
        self._forward = tf.function(
            lambda *batches: tf.map_fn(score_batches, batches, fn_output_signature=scores),
            autograph=False,
            input_signature=[codes] * self._replicas,
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
        missing = -count % (self._batch * self._replicas)
        if missing:
            # By rows of A, which take less time than rows of N.
            codes = np.pad(codes, ((0, missing), (0, 0)))
        batches = codes.reshape(-1, self._replicas, self._batch, self.length)
        scores = self._forward(*(tf.constant(batches[:, r]) for r in range(self._replicas)))
        return scores.numpy().ravel()[:count]
