"""Many training steps in one graph call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.data.batches import EpochBatches
from tal1_hvd.data.encoding import UNKNOWN
from tal1_hvd.data.rows import StoredRows

Item = TypeVar("Item")
Value = TypeVar("Value")


class Passes(NamedTuple):
    """The input of consecutive passes.

    Attributes
    ----------
    codes : np.ndarray, shape=(passes, batch, length), dtype=uint8
    labels : np.ndarray, shape=(passes, batch), dtype=uint8
    present : np.ndarray, shape=(passes, batch), dtype=bool
        False where a smaller batch left a place empty.
    counts : np.ndarray, shape=(passes,), dtype=int64
        Examples of the step over all ranks.
    """

    codes: np.ndarray
    labels: np.ndarray
    present: np.ndarray
    counts: np.ndarray


class Totals(NamedTuple):
    """Sums over the examples of this rank.

    Attributes
    ----------
    loss : tf.Tensor, shape=(), dtype=float64
    correct : tf.Tensor, shape=(), dtype=int64
    """

    loss: tf.Tensor
    correct: tf.Tensor


def gather(
    sequences: np.ndarray | StoredRows, labels: np.ndarray, rows: np.ndarray, batches: EpochBatches
) -> Passes:
    """Read the rows of some batches.

    Parameters
    ----------
    sequences : np.ndarray or StoredRows, shape=(n, length), dtype=uint8
        May be a memory map: only this rank's rows are read.
    labels : np.ndarray, shape=(n,), dtype=uint8
    rows : np.ndarray, shape=(n_train,), dtype=int64
        Rows of the training split.
    batches : EpochBatches

    Returns
    -------
    Passes
    """
    present = batches.members >= 0
    chosen = rows[np.where(present, batches.members, 0)]
    codes = sequences[chosen]
    codes[~present] = UNKNOWN
    return Passes(codes, labels[chosen], present, batches.counts)


def read_ahead(read: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[Value]:
    """Yield ``read(item)`` for every item; a thread reads the next while one is used."""
    pending: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        for item in items:
            pending.append(reader.submit(read, item))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def compile_steps(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, batch: int
) -> Callable[..., Totals]:
    """Trace a function that trains on any number of passes in one call.

    The loss is the sum of the rank's binary cross-entropies over the count of the whole step, so
    gradients summed over ranks are those of the mean over the global batch.

    Parameters
    ----------
    model : keras.Model
        Input uint8 codes, shape (batch, length); output shape (batch, 1).
    optimizer : keras.optimizers.Optimizer
        Built; sums gradients over ranks.
    batch : int
        Examples of a pass.

    Returns
    -------
    callable
        From the fields of `Passes` to `Totals`; already traced.
    """
    length = model.input_shape[1]
    variables = model.trainable_variables
    dtype = variables[0].dtype

    def one_pass(
        codes: tf.Tensor, labels: tf.Tensor, present: tf.Tensor, count: tf.Tensor
    ) -> Totals:
        target = tf.cast(labels, dtype)[:, None]
        weight = tf.cast(present, dtype)
        with tf.GradientTape() as tape:
            probability = model(codes, training=True)
            losses = weight * keras.losses.binary_crossentropy(target, probability)
            loss = tf.reduce_sum(losses) / tf.cast(count, dtype)
        optimizer.apply(tape.gradient(loss, variables), variables)
        right = tf.equal(probability[:, 0] > 0.5, labels == 1) & present
        return Totals(tf.cast(tf.reduce_sum(losses), tf.float64), tf.math.count_nonzero(right))

    # AutoGraph would turn a Python loop into the same graph, and take half a second to start.
    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec((None, batch, length), tf.uint8),
            tf.TensorSpec((None, batch), tf.uint8),
            tf.TensorSpec((None, batch), tf.bool),
            tf.TensorSpec((None,), tf.int64),
        ],
    )
    def steps(codes: tf.Tensor, labels: tf.Tensor, present: tf.Tensor, counts: tf.Tensor) -> Totals:
        def next_pass(i: tf.Tensor, totals: Totals) -> tuple[tf.Tensor, Totals]:
            more = one_pass(codes[i], labels[i], present[i], counts[i])
            return i + 1, Totals(totals.loss + more.loss, totals.correct + more.correct)

        passes = tf.shape(codes)[0]
        nothing = Totals(tf.constant(0, tf.float64), tf.constant(0, tf.int64))
        _, totals = tf.while_loop(
            lambda i, _: i < passes, next_pass, (0, nothing), maximum_iterations=passes
        )
        return totals

    return steps.get_concrete_function()
