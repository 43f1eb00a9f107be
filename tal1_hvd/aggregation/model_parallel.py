"""Model parallelism: each rank trains its part of the network on the whole global batch."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.aggregation.base import Aggregation, assign, ring_bytes
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.models.part import join, make_part, split


class ModelParallel(Aggregation):
    """Each rank holds a part of the filters; the logits of the parts are summed over ranks.

    That sum, within the forward pass, is all that ranks send to each other: gradients and updates
    of a part stay on its rank. It is exact: what one rank computes with the whole network.

    Parameters
    ----------
    inner : keras.optimizers.Optimizer
    model : keras.Model
        The whole network, equal on all ranks; see `make_part`.
    communicator : Communicator
    global_batch : int
        Examples of a step.

    Attributes
    ----------
    part : keras.Model
        What this rank trains.
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        model: keras.Model,
        communicator: Communicator,
        global_batch: int,
    ):
        self.part = make_part(model, communicator)
        super().__init__(inner, self.part.trainable_variables, communicator)
        self._whole = model
        self._global_batch = global_batch

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Update this rank's part."""
        self._inner.apply(gradients, self._variables)

    def end_epoch(self) -> dict[str, float]:
        """Give the whole network all ranks' parts."""
        assign(self._whole.trainable_variables, join(self._variables, self._communicator))
        return {}

    def bytes_per_step(self) -> float:
        """Return how many bytes a ring all-reduce of the logits sends, by its definition."""
        width = self._variables[-1].value.dtype.size
        return ring_bytes(self._communicator.size, width * self._global_batch)

    def state(self) -> list[np.ndarray]:
        """Return all ranks' optimizers' variables, each flat, one rank's after another's."""
        gather = self._communicator.all_gather
        return [gather(np.ravel(variable)) for variable in self._inner.variables]

    def restore(self, model: Sequence[np.ndarray], state: Sequence[np.ndarray]) -> None:
        """Go on from a checkpoint, of which rank 0's counts."""
        first = self._communicator.rank == 0
        if first:
            assign(self._whole.variables, model)
        self._communicator.broadcast_variables(self._whole.variables)
        assign(self._variables, split(self._whole, self._communicator))
        for number, variable in enumerate(self._inner.variables):
            own = np.array(variable)
            sizes = self._communicator.all_gather(np.array([own.size]))
            # Only rank 0 has something to give.
            given = state[number] if first else np.empty(0, own.dtype)
            parts = np.split(self._communicator.all_gather(given), np.cumsum(sizes)[:-1])
            variable.assign(parts[self._communicator.rank].reshape(own.shape))
