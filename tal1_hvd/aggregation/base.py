"""What aggregation algorithms have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf


class Aggregation(Protocol):
    """How the ranks make one model of what each of them learns.

    Attributes
    ----------
    learning_rate : float
        Of the next step; on rank 0.
    """

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Learn from this rank's gradient of the global batch's mean loss; in a graph."""

    def begin_epoch(self) -> None:
        """Get ready to learn; called by all ranks."""

    def end_epoch(self) -> dict[str, float]:
        """Give the model the variables that are scored and saved; called by all ranks.

        Returns
        -------
        dict
            Columns for the history.
        """

    def bytes_per_step(self) -> float:
        """Return how many bytes all ranks together send in a step."""

    def state(self) -> list[np.ndarray]:
        """Return what a checkpoint holds beside the model; called by all ranks."""

    def restore(self, model: Sequence[np.ndarray], state: Sequence[np.ndarray]) -> None:
        """Go on from a checkpoint of rank 0, whose arrays alone count; called by all ranks."""


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
