"""What aggregation algorithms have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.distributed.communicator import Communicator


class Aggregation(ABC):
    """How the ranks make one model of what each of them learns.

    All ranks start from equal weights. Of the methods, `apply` belongs into a graph; all others are
    called by all ranks.

    Parameters
    ----------
    inner : keras.optimizers.Optimizer
    variables : sequence of keras.Variable
        What it updates.
    communicator : Communicator

    Attributes
    ----------
    pausable : bool
        Between two steps, the model and `state` on rank 0 are all that the next depends on.
    """

    pausable = False

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        communicator: Communicator,
    ):
        inner.build(variables)
        self._inner = inner
        self._variables = list(variables)
        self._communicator = communicator

    @property
    def learning_rate(self) -> float:
        """Of the next step; on rank 0."""
        return float(self._inner.learning_rate)

    @abstractmethod
    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Learn from this rank's share of the gradient of the global batch's mean loss."""

    def begin_epoch(self) -> None:  # noqa: B027 (most need nothing)
        """Get ready to learn."""

    def end_epoch(self) -> dict[str, float]:
        """Give the model the weights that are scored and saved; return columns for the history."""
        return {}

    @abstractmethod
    def bytes_per_step(self) -> float:
        """Return how many bytes all ranks together send in a step."""

    def state(self) -> list[np.ndarray]:
        """Return what a checkpoint holds beside the model; rank 0's counts."""
        return [np.array(variable) for variable in self._inner.variables]

    def restore(self, model: Sequence[np.ndarray], state: Sequence[np.ndarray]) -> None:
        """Go on from a checkpoint, of which rank 0's counts."""
        own = [*self._variables, *self._inner.variables]
        if self._communicator.rank == 0:
            assign(own, [*model, *state])
        self._communicator.broadcast_variables(own)


def flatten(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Join tensors of one dtype as one of shape (n,)."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def unflatten(flat: tf.Tensor, like: Sequence[keras.Variable]) -> list[tf.Tensor]:
    """Split what `flatten` joined into tensors of the shapes of variables."""
    sizes = [int(np.prod(variable.shape)) for variable in like]
    parts = tf.split(flat, sizes, num=len(sizes))
    return [tf.reshape(part, v.shape) for part, v in zip(parts, like, strict=True)]


def assign(variables: Sequence[keras.Variable], values: Sequence[Any]) -> None:
    """Give variables values of their shapes."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def ring_bytes(size: int, payload: int) -> float:
    """Return how many bytes all ranks together send in a ring all-reduce.

    Each of N ranks sends 2 (N - 1) messages of an Nth of the payload (Patarasuk and Yuan 2009,
    Bandwidth optimal all-reduce algorithms for clusters of workstations).

    Parameters
    ----------
    size : int
        Ranks.
    payload : int
        Bytes that are reduced.

    Examples
    --------
    >>> ring_bytes(2, 1000), ring_bytes(4, 1000), ring_bytes(1, 1000)
    (2000, 6000, 0)
    """
    return 2 * (size - 1) * payload
