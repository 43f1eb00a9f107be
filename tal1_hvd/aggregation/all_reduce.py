"""All ranks sum their gradients, and each applies the same update."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.aggregation.base import assign, ring_bytes
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.distributed.optimizer import DistributedOptimizer


class AllReduce:
    """Synchronous data parallelism by a ring all-reduce of one flat tensor a step.

    Parameters
    ----------
    inner : keras.optimizers.Optimizer
    variables : sequence of keras.Variable
        The model's trainable ones.
    communicator : Communicator
    compression : {"none", "fp16"}
        Of gradients on their way.
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        communicator: Communicator,
        compression: str = "none",
    ):
        self._optimizer = DistributedOptimizer(
            inner, communicator, op="sum", compression=compression
        )
        self._optimizer.build(variables)
        self._variables = list(variables)
        self._communicator = communicator
        self._compression = compression
        communicator.broadcast_variables([*variables, *self._optimizer.variables])

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self._optimizer.learning_rate)

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Sum gradients over ranks and update; in a graph."""
        self._optimizer.apply(gradients)

    def begin_epoch(self) -> None:
        """Do nothing."""

    def end_epoch(self) -> dict[str, float]:
        """Do nothing: all ranks have the same model."""
        return {}

    def bytes_per_step(self) -> float:
        """Return how many bytes all ranks together send in a step."""
        width = 2 if self._compression == "fp16" else self._variables[0].value.dtype.size
        payload = width * sum(int(np.prod(variable.shape)) for variable in self._variables)
        return ring_bytes(self._communicator.size, payload)

    def state(self) -> list[np.ndarray]:
        """Return the optimizer's variables."""
        return [np.array(variable) for variable in self._optimizer.inner_optimizer.variables]

    def restore(self, model: Sequence[np.ndarray], state: Sequence[np.ndarray]) -> None:
        """Go on from a checkpoint of rank 0."""
        own = [*self._variables, *self._optimizer.inner_optimizer.variables]
        if self._communicator.rank == 0:
            assign(own, [*model, *state])
        self._communicator.broadcast_variables(own)
