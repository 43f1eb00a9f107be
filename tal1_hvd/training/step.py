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


def logits_of(probability: tf.Tensor) -> tf.Tensor:
    """Return what the sigmoid of a model's last layer was taken of.

    Parameters
    ----------
    probability : tf.Tensor

    Returns
    -------
    tf.Tensor

    Raises
    ------
    ValueError
        Keras has noted none, as it does for ``activation="sigmoid"``.
    """
    # Where Keras's own binary cross-entropy finds them (keras/src/activations/activations.py).
    logits = getattr(probability, "_keras_logits", None)
    if logits is None:
        raise ValueError("the model must end with a layer of activation 'sigmoid'")
    return logits


def compile_steps(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, batch: int
) -> Callable[..., Totals]:
    """Trace a function that trains on any number of passes in one call.

    The loss is the sum of the rank's binary cross-entropies over the count of the whole step, so
    gradients summed over ranks are those of the mean over the global batch.

    Parameters
    ----------
    model : keras.Model
        Input uint8 codes, shape (batch, length); output a sigmoid's, shape (batch, 1).
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
        passes = tf.shape(codes)[0]
        targets = tf.cast(labels, dtype)[:, :, None]
        weights = tf.cast(present, dtype)[:, :, None]
        rates = weights / tf.cast(counts, dtype)[:, None, None]

        def one_pass(i: tf.Tensor, done: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            with tf.GradientTape() as tape:
                logits = logits_of(model(codes[i], training=True))
            # The slope of a sigmoid's cross-entropy: where the loss itself is differentiated, a
            # step takes a tenth longer.
            slope = rates[i] * (tf.sigmoid(logits) - targets[i])
            optimizer.apply(tape.gradient(logits, variables, slope), variables)
            return i + 1, done.write(i, logits)

        done = tf.TensorArray(dtype, passes, element_shape=(batch, 1))
        _, done = tf.while_loop(
            lambda i, _: i < passes, one_pass, (0, done), maximum_iterations=passes
        )
        # What is only to be told is computed for all passes at once.
        logits = done.stack()
        losses = weights * tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        right = tf.equal(tf.sigmoid(logits) > 0.5, targets > 0.5) & (weights > 0)
        return Totals(tf.reduce_sum(tf.cast(losses, tf.float64)), tf.math.count_nonzero(right))

    return steps.get_concrete_function()
