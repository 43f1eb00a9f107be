"""Many training steps in one graph call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.aggregation.base import Aggregation
from tal1_hvd.data.batches import EpochBatches
from tal1_hvd.data.encoding import UNKNOWN
from tal1_hvd.data.rows import StoredRows
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.models.compiled import clock

Item = TypeVar("Item")
Value = TypeVar("Value")


class Batches(NamedTuple):
    """What a rank learns from in consecutive steps.

    Attributes
    ----------
    codes : np.ndarray, shape=(steps, accumulation, batch, length), dtype=uint8
    labels : np.ndarray, shape=(steps, accumulation, batch), dtype=uint8
    present : np.ndarray, shape=(steps, accumulation, batch), dtype=bool
        False where a smaller batch left a place empty.
    counts : np.ndarray, shape=(steps,), dtype=int64
        Examples of the step over all ranks.
    """

    codes: np.ndarray
    labels: np.ndarray
    present: np.ndarray
    counts: np.ndarray


class Totals(NamedTuple):
    """Sums over the examples of this process's ranks.

    Attributes
    ----------
    loss : tf.Tensor, shape=(), dtype=float64
    correct : tf.Tensor, shape=(), dtype=int64
    """

    loss: tf.Tensor
    correct: tf.Tensor


Gradient = Callable[[Batches], tuple[list[tf.Tensor], Totals]]


class CallTotals(NamedTuple):
    """Sums over the steps of a graph call.

    Attributes
    ----------
    loss, correct : tf.Tensor
        As in `Totals`.
    waited : tf.Tensor, shape=(), dtype=float64
        Seconds from gradients that are there to weights that have learnt from them: for other
        ranks, nearly all of it; 0 where it is not measured.
    """

    loss: tf.Tensor
    correct: tf.Tensor
    waited: tf.Tensor


def gather(
    sequences: np.ndarray | StoredRows, labels: np.ndarray, rows: np.ndarray, batches: EpochBatches
) -> Batches:
    """Read the rows of some batches of a rank.

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
    Batches
    """
    present = batches.members >= 0
    chosen = rows[np.where(present, batches.members, 0)]
    codes = sequences[chosen]
    codes[~present] = UNKNOWN
    return Batches(codes, labels[chosen], present, batches.counts)


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


def make_gradient(model: keras.Model, accumulation: int = 1) -> Gradient:
    """Return a function that computes the gradient of one step on one rank.

    The loss is the sum of the rank's binary cross-entropies over the count of the whole step, so
    gradients summed over ranks are those of the mean over the global batch.

    Parameters
    ----------
    model : keras.Model
        Input uint8 codes, shape (batch, length); output shape (batch, 1).
    accumulation : int
        Passes of a step, whose gradients are added up.

    Returns
    -------
    callable
        From `Batches` of a single step, without their first axis, to gradients of the model's
        trainable variables, and `Totals`, the loss in the variables' precision. Shapes are static,
        and all operations have XLA kernels where the first layer consists of TensorFlow's own.
    """
    variables = model.trainable_variables
    dtype = variables[0].dtype

    def one_pass(batch: Batches, number: int | tf.Tensor) -> tuple[list[tf.Tensor], Totals]:
        labels, present = batch.labels[number], batch.present[number]
        target = tf.cast(labels, dtype)[:, None]
        with tf.GradientTape() as tape:
            probability = model(batch.codes[number], training=True)
            losses = tf.cast(present, dtype) * keras.losses.binary_crossentropy(target, probability)
            loss = tf.reduce_sum(losses) / tf.cast(batch.counts, dtype)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        right = tf.equal(probability[:, 0] > 0.5, labels == 1) & present
        return gradients, Totals(tf.reduce_sum(losses), tf.math.count_nonzero(right))

    def all_passes(batch: Batches) -> tuple[list[tf.Tensor], Totals]:
        first = one_pass(batch, 0)
        if accumulation == 1:
            return first

        def add_pass(number: tf.Tensor, *so_far: Any) -> tuple[Any, ...]:
            more = one_pass(batch, number)
            return number + 1, *tf.nest.map_structure(tf.add, so_far, more)

        _, *sums = tf.while_loop(
            lambda number, *_: number < accumulation,
            add_pass,
            (1, *first),
            maximum_iterations=accumulation - 1,
        )
        return tuple(sums)

    return all_passes


def compile_steps(
    gradient: Gradient,
    learner: Aggregation | keras.optimizers.Optimizer,
    communicator: Communicator,
    shape: tuple[int, int, int],
    timed_by: keras.Variable | None = None,
) -> Callable[[Sequence[Batches]], CallTotals]:
    """Trace a function that makes any number of steps in one call.

    Parameters
    ----------
    gradient : callable
        What `make_gradient` made.
    learner : Aggregation or keras.optimizers.Optimizer
        Takes the gradient of each rank; an optimizer is built, and sums gradients over ranks.
    communicator : Communicator
        Makes the step on each rank of this process.
    shape : tuple of int
        Accumulation, batch and length: of the codes of a rank's step.
    timed_by : keras.Variable, optional
        A weight that each step updates, so that waiting has an end that can be measured; needs the
        compiled clock.

    Returns
    -------
    callable
        From a list with `Batches` for each rank of this process to `CallTotals`; already traced.
    """
    share = Batches(
        tf.TensorSpec((None, *shape), tf.uint8),
        tf.TensorSpec((None, *shape[:2]), tf.uint8),
        tf.TensorSpec((None, *shape[:2]), tf.bool),
        tf.TensorSpec((None,), tf.int64),
    )

    def step(batch: Batches) -> CallTotals:
        gradients, totals = gradient(batch)
        if timed_by is None:
            learner.apply(gradients)
            return CallTotals(*totals, tf.constant(0, tf.float64))
        with tf.control_dependencies([*gradients, *totals]):
            ready = clock()
        learner.apply(gradients)
        with tf.control_dependencies([tf.identity(timed_by.value)]):
            return CallTotals(*totals, clock() - ready)

    # AutoGraph would turn a Python loop into the same graph, and take half a second to start.
    @tf.function(autograph=False, input_signature=[[share] * communicator.replicas])
    def steps(shares: Sequence[Batches]) -> CallTotals:
        def next_step(i: tf.Tensor, so_far: CallTotals) -> tuple[tf.Tensor, CallTotals]:
            own = [(Batches(*(field[i] for field in share)),) for share in shares]
            each = [so_far, *communicator.run(step, own)]
            loss = tf.add_n([tf.cast(totals.loss, tf.float64) for totals in each])
            correct = tf.add_n([totals.correct for totals in each])
            return i + 1, CallTotals(loss, correct, tf.add_n([t.waited for t in each]))

        count = tf.shape(shares[0].counts)[0]
        zero = tf.constant(0, tf.float64)
        start = CallTotals(zero, tf.constant(0, tf.int64), zero)
        _, totals = tf.while_loop(
            lambda i, _: i < count, next_step, (0, start), maximum_iterations=count
        )
        return totals

    return steps.get_concrete_function()
