"""Decentralised training: each rank has weights of its own, and averages them with neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.aggregation.base import Aggregation, assign, flatten, unflatten
from tal1_hvd.aggregation.peers import Peers, bytes_per_step
from tal1_hvd.distributed.communicator import Communicator


class Gossip(Aggregation):
    """Decentralised parallel SGD on a ring (Lian et al. 2017, D-PSGD), with any Keras optimizer.

    In a step a rank computes the gradient of its own batch at its own weights, replaces the weights
    by their mean with both neighbours', and adds the update that its own optimizer makes of the
    gradient. There is no global model; the mean over all ranks is what is scored after an epoch and
    saved, and training goes on from each rank's own weights.

    Over MPI, or on a single rank, which has no neighbours. Parameters are those of `Aggregation`.
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        communicator: Communicator,
    ):
        super().__init__(inner, variables, communicator)
        self._peers = Peers(communicator, "gossip")
        self._own = [np.array(variable) for variable in variables]
        self._steps = 0

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Average with the neighbours and update."""
        # They are shares of the global batch's mean: of the own batch's, a rank's share as a whole.
        own = [gradient * self._peers.size for gradient in gradients]
        if self._peers.size == 1:
            self._inner.apply(own, self._variables)
            return
        before = flatten([variable.value for variable in self._variables])
        mixed = tf.ensure_shape(tf.numpy_function(self._mix, [before], before.dtype), before.shape)
        self._inner.apply(own, self._variables)
        after = flatten([variable.value for variable in self._variables])
        assign(self._variables, unflatten(mixed + (after - before), self._variables))

    def _mix(self, own: np.ndarray) -> np.ndarray:
        """Return the mean with both neighbours' weights, or with the other's of two ranks."""
        peers = self._peers
        self._steps += 1
        left, right = (peers.rank - 1) % peers.size, (peers.rank + 1) % peers.size
        from_left = peers.exchange(own, right, left)
        if left == right:
            return (own + from_left) / own.dtype.type(2)
        return (own + from_left + peers.exchange(own, left, right)) / own.dtype.type(3)

    def begin_epoch(self) -> None:
        """Go on from this rank's own weights."""
        assign(self._variables, self._own)

    def end_epoch(self) -> dict[str, float]:
        """Give the model the mean weights; return how far ranks are from them.

        Returns
        -------
        dict
            `consensus_distance`: the root of the mean over ranks of the squared Euclidean distance
            between a rank's weights and the mean.
        """
        self._own = [np.array(variable) for variable in self._variables]
        everyones = [self._communicator.all_gather(own[None]) for own in self._own]
        means = [each.mean(axis=0) for each in everyones]
        assign(self._variables, means)
        squares = sum(
            np.sum((each - mean) ** 2) for each, mean in zip(everyones, means, strict=True)
        )
        return {"consensus_distance": float(np.sqrt(squares / self._communicator.size))}

    def bytes_per_step(self) -> float:
        """Return how many bytes all ranks together sent in a step, counted."""
        return bytes_per_step(self._communicator, self._peers.sent, self._steps)

    def state(self) -> list[np.ndarray]:
        """Return all ranks' own weights and optimizers' variables, shape (ranks, ...) each."""
        own = [*self._own, *(np.array(variable) for variable in self._inner.variables)]
        return [self._communicator.all_gather(array[None]) for array in own]

    def restore(self, model: Sequence[np.ndarray], state: Sequence[np.ndarray]) -> None:
        """Go on from a checkpoint, of which rank 0's state counts."""
        own = [*self._variables, *self._inner.variables]
        if self._communicator.rank != 0:
            state = [np.empty((0, *variable.shape), np.array(variable).dtype) for variable in own]
        rows = [self._communicator.all_gather(array)[self._communicator.rank] for array in state]
        assign(own, rows)
        self._own = rows[: len(self._variables)]
