"""All ranks sum their gradients, and each applies the same update."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.aggregation.base import Aggregation, ring_bytes
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.distributed.optimizer import DistributedOptimizer


class AllReduce(Aggregation):
    """Synchronous data parallelism by a ring all-reduce of one flat tensor a step.

    Parameters
    ----------
    inner, variables, communicator
        As of `Aggregation`.
    compression : {"none", "fp16"}
        Of gradients on their way.
    """

    pausable = True

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        communicator: Communicator,
        compression: str = "none",
    ):
        super().__init__(inner, variables, communicator)
        self._compression = compression
        self._optimizer = DistributedOptimizer(
            inner, communicator, op="sum", compression=compression
        )
        self._optimizer.build(variables)

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Sum gradients over ranks and update."""
        self._optimizer.apply(gradients)

    def bytes_per_step(self) -> float:
        """Return how many bytes a ring all-reduce of the gradient sends, by its definition."""
        width = 2 if self._compression == "fp16" else self._variables[0].value.dtype.size
        payload = width * sum(int(np.prod(variable.shape)) for variable in self._variables)
        return ring_bytes(self._communicator.size, payload)
