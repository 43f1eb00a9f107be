"""Central training: gradients go to rank 0, which updates the weights and sends them back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.aggregation.base import Aggregation, assign, flatten, unflatten
from tal1_hvd.aggregation.peers import Peers, bytes_per_step
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.distributed.environment import shorten_sleeps
from tal1_hvd.distributed.rank_process import end_process


class ParameterServer(Aggregation):
    """Synchronous parameter server (Li et al. 2014) on rank 0, which learns like all others too.

    Over MPI, or on a single rank. Parameters are those of `Aggregation`.
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        communicator: Communicator,
    ):
        super().__init__(inner, variables, communicator)
        self._peers = Peers(communicator, "parameter-server")
        self._steps = 0

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Send the gradient to rank 0, and take its weights."""
        flat = flatten(gradients)
        total = tf.numpy_function(self._collect, [flat], flat.dtype)
        if self._peers.rank == 0:
            summed = unflatten(tf.ensure_shape(total, flat.shape), self._variables)
            self._inner.apply(summed, self._variables)
        weights = flatten([variable.value for variable in self._variables])
        news = tf.numpy_function(self._hand_out, [weights], weights.dtype)
        if self._peers.rank != 0:
            fresh = tf.ensure_shape(news, weights.shape)
            assign(self._variables, unflatten(fresh, self._variables))

    def _collect(self, own: np.ndarray) -> np.ndarray:
        """On rank 0, return the sum of all ranks' gradients, in their order."""
        self._steps += 1
        if self._peers.rank != 0:
            self._peers.send(own, 0)
            return own
        total = own.copy()
        for rank in range(1, self._peers.size):
            total += self._peers.receive(own, rank)
        return total

    def _hand_out(self, own: np.ndarray) -> np.ndarray:
        """Return rank 0's weights."""
        if self._peers.rank != 0:
            return self._peers.receive(own, 0)
        for rank in range(1, self._peers.size):
            self._peers.send(own, rank)
        return own

    def bytes_per_step(self) -> float:
        """Return how many bytes all ranks together sent in a step, counted."""
        return bytes_per_step(self._communicator, self._peers.sent, self._steps)


_PUSH, _DONE = 1, 2
# Seconds between looks for a message; MPI's own waiting would take a core.
_LOOK = 2e-5


class AsynchronousParameterServer(Aggregation):
    """Asynchronous parameter server with bounded staleness (Ho et al. 2013, SSP).

    A rank sends its gradient and gets the weights after it was applied, whatever others have sent
    meanwhile; only a rank that is more than `staleness` steps ahead of the slowest waits. The
    gradient of each rank, of the mean over a full batch of its own, is an update of its own. The
    server is a thread of rank 0. Results differ from run to run.

    Parameters
    ----------
    inner : keras.optimizers.Optimizer
        Works on single numbers, as Adam does: the server keeps all weights in one variable.
    variables : sequence of keras.Variable
        The model's trainable ones.
    communicator : Communicator
        Of Horovod over MPI, or a single process.
    staleness : int
        Steps that a rank may be ahead.
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        communicator: Communicator,
        staleness: int,
    ):
        flat = np.concatenate([np.ravel(variable) for variable in variables])
        self._weights = keras.Variable(flat, name="server")
        super().__init__(inner, [self._weights], communicator)
        self._model = list(variables)
        self._take(self._weights.value)
        self._staleness = staleness
        self._to_server = Peers(communicator, "parameter-server")
        self._to_ranks = Peers(communicator, "parameter-server")
        # A graph: operation by operation an update takes four times as long.
        self._update = tf.function(self._learn, autograph=False)
        # Between rank 0 and its own server: MPI's locks would make both wait.
        self._pushed: SimpleQueue[np.ndarray | None] = SimpleQueue()
        self._answered: SimpleQueue[np.ndarray] = SimpleQueue()
        self._server: threading.Thread | None = None
        self._steps = 0

    def _take(self, weights: tf.Tensor) -> None:
        """Give the model weights, shape (n,)."""
        assign(self._model, unflatten(weights, self._model))

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Send the gradient to the server, and take its weights."""
        # They are shares of the global batch's mean: of the own batch's, a rank's share as a whole.
        own = flatten(gradients) * self._communicator.size
        if self._communicator.size == 1:
            weights = self._learn(own)
        else:
            weights = tf.numpy_function(self._push, [own], own.dtype)
        self._take(tf.ensure_shape(weights, own.shape))

    def _push(self, gradient: np.ndarray) -> np.ndarray:
        self._steps += 1
        if self._communicator.rank == 0:
            self._pushed.put(gradient)
            return self._answered.get()
        self._to_server.send(gradient, 0, _PUSH)
        while not self._to_ranks.comm.Iprobe():
            time.sleep(_LOOK)
        return self._to_ranks.receive(gradient, 0)

    def begin_epoch(self) -> None:
        """Start the server on rank 0."""
        if self._communicator.rank == 0 and self._communicator.size > 1:
            self._server = threading.Thread(target=self._serve, name="server", daemon=True)
            self._server.start()

    def end_epoch(self) -> dict[str, float]:
        """Wait until all ranks are done, and give the model the server's weights."""
        if self._server is not None:
            self._pushed.put(None)
            self._server.join()
            self._server = None
        elif self._communicator.size > 1:
            self._to_server.send(np.empty(0, self._weights.dtype), 0, _DONE)
        self._communicator.broadcast_variables([self._weights])
        self._take(self._weights.value)
        return {}

    def _serve(self) -> None:
        """Apply gradients as they come, until all ranks are done with the epoch."""
        try:
            shorten_sleeps()
            self._serve_epoch()
        except Exception as error:
            # The ranks would wait for ever.
            end_process(f"the parameter server failed: {type(error).__name__}: {error}", 1)

    def _serve_epoch(self) -> None:
        # Steps that each rank has made; those that are done are ahead of nobody.
        clocks = dict.fromkeys(range(self._communicator.size), 0)
        waiting: list[int] = []
        weights = np.array(self._weights)
        while clocks:
            rank, gradient = self._next_push()
            if gradient is None:
                del clocks[rank]
            else:
                weights = self._update(tf.constant(gradient)).numpy()
                clocks[rank] += 1
                waiting.append(rank)
            slowest = min(clocks.values(), default=0)
            answered = [rank for rank in waiting if clocks[rank] - slowest <= self._staleness]
            for rank in answered:
                self._answer(rank, weights)
            waiting = [rank for rank in waiting if rank not in answered]

    def _next_push(self) -> tuple[int, np.ndarray | None]:
        """Wait for a rank's gradient, or for its word that it is done: None."""
        from mpi4py import MPI

        status = MPI.Status()
        while not self._to_server.comm.Iprobe(status=status):
            with contextlib.suppress(Empty):
                return 0, self._pushed.get_nowait()
            time.sleep(_LOOK)
        done = status.tag == _DONE
        like = np.empty(0 if done else self._weights.shape, self._weights.dtype)
        gradient = self._to_server.receive(like, status.source)
        return status.source, None if done else gradient

    def _learn(self, gradient: tf.Tensor) -> tf.Tensor:
        """Apply a gradient, and return the weights."""
        self._inner.apply([gradient], [self._weights])
        return tf.identity(self._weights.value)

    def _answer(self, rank: int, weights: np.ndarray) -> None:
        """Give a rank the weights."""
        if rank == 0:
            self._answered.put(weights)
        else:
            self._to_ranks.send(weights, rank)

    def bytes_per_step(self) -> float:
        """Return how many bytes all ranks together sent in a step, counted."""
        sent = self._to_server.sent + self._to_ranks.sent
        return bytes_per_step(self._communicator, sent, self._steps)

    def state(self) -> list[np.ndarray]:
        """Return the server's weights and its optimizer's variables; rank 0's count."""
        return [np.array(self._weights), *super().state()]

    def restore(self, model: Sequence[np.ndarray], state: Sequence[np.ndarray]) -> None:
        """Go on from a checkpoint, of which rank 0's counts."""
        super().restore(state[:1], state[1:])
        self._take(self._weights.value)
