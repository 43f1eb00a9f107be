"""What ranks say to each other.

Everything else asks a `Communicator` for its rank, the world size and the collectives; on one
process `SingleProcess` answers without Horovod, MPI or TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tal1_hvd.distributed.environment import launched_strategy, launched_world_size
from tal1_hvd.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Communicator(Protocol):
    """A group of ranks; every collective is called by all of them, in the same order.

    A rank is a replica of the model. Most processes have one; under ``tf.distribute`` one process
    can have several, and then takes part once for all of them, but in `run`.

    Attributes
    ----------
    rank, size : int
        The first rank of this process, and how many ranks there are in all.
    replicas : int
        Ranks of this process.
    local_rank, local_size : int
        This process among those on this machine.
    name : str
        The strategy's name.
    device : str, optional
        What its ranks compute on, where TensorFlow was started for it.
    reduced_by_keras : bool
        Keras's optimizers sum gradients over the ranks themselves, as they do under
        ``tf.distribute``.
    """

    name: str
    device: str | None
    reduced_by_keras: bool
    rank: int
    size: int
    replicas: int
    local_rank: int
    local_size: int

    def scope(self) -> AbstractContextManager[object]:
        """Return a block; variables created in it exist on each rank of this process."""

    def run(self, function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a function on each rank of this process, with inputs of its own; in a graph.

        It returns each rank's result.
        """

    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the element-wise sum over ranks; equal shapes; in a function that `run` calls."""

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """Return all ranks' arrays joined along axis 0 in rank order; first axes may differ."""

    def broadcast_variables(self, variables: Sequence[keras.Variable]) -> None:
        """Give the variables of all ranks the values of rank 0's."""

    def all_gather_json(self, value: Any) -> list[Any]:
        """Return every rank's JSON value, in rank order."""

    def broadcast_json(self, value: Any) -> Any:
        """Return rank 0's JSON value."""

    def close(self, launcher: bool = True) -> None:
        """Wait until every rank has come here, and end the connection.

        Parameters
        ----------
        launcher : bool
            Wait for the launcher where it has a part in that; it may be about to end itself.
        """


class OneReplica:
    """What communicators have in common whose processes are one rank each."""

    replicas = 1
    device = None
    reduced_by_keras = False

    def scope(self) -> AbstractContextManager[object]:
        """Return a block that does nothing."""
        return nullcontext()

    def run(self, function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a function."""
        return [function(*inputs[0])]


class SingleProcess(OneReplica):
    """One rank that talks to nobody."""

    name = "single"
    rank = 0
    size = 1
    local_rank = 0
    local_size = 1

    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return `tensor`."""
        return tensor

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """Return `array`."""
        return array

    def broadcast_variables(self, variables: Sequence[keras.Variable]) -> None:
        """Do nothing."""

    def all_gather_json(self, value: Any) -> list[Any]:
        """Return a list of `value` alone, as JSON would hand it on."""
        return [json.loads(json.dumps(value))]

    def broadcast_json(self, value: Any) -> Any:
        """Return `value`, as JSON would hand it on."""
        return json.loads(json.dumps(value))

    def close(self, launcher: bool = True) -> None:
        """Do nothing."""


class JsonByArrays:
    """JSON values between processes that can gather arrays."""

    rank: int
    all_gather: Callable[[np.ndarray], np.ndarray]

    def all_gather_json(self, value: Any) -> list[Any]:
        """Return every process's JSON value, in rank order."""
        # Object collectives of the libraries pickle.
        data = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
        sizes = self.all_gather(np.array([len(data)], dtype=np.int64))
        joined = self.all_gather(data)
        parts = np.split(joined, np.cumsum(sizes)[:-1])
        return [json.loads(part.tobytes().decode()) for part in parts]

    def broadcast_json(self, value: Any) -> Any:
        """Return rank 0's JSON value."""
        return self.all_gather_json(value if self.rank == 0 else None)[0]


def connect(
    strategy: str = "auto", replicas: int = 1, threads: int | None = None, busy: bool = True
) -> Communicator:
    """Join the ranks that this process was started with.

    Parameters
    ----------
    strategy : {"auto", "horovod", "mirrored", "multiworker", "tpu", "single"}
        Auto is Horovod or multiworker where their launchers started this process, and a single
        process elsewhere.
    replicas : int
        Ranks of this process, for mirrored and tpu.
    threads : int, optional
        Compute threads a rank, for strategies of ``tf.distribute``, which start TensorFlow; 1 if
        left out.
    busy : bool
        Horovod is called in every step; otherwise it looks for work less often.

    Returns
    -------
    Communicator

    Raises
    ------
    InputError
        What the strategy needs is not there, or a single process is wanted among several ranks.
    """
    launched, launcher = launched_world_size(), launched_strategy()
    if strategy == "auto":
        strategy = launcher or "single"
    if strategy != launcher and (launched or 1) > 1:
        raise InputError(
            f"--strategy {strategy}: a launcher started {launched} ranks; start one, or use "
            f"{launcher}"
        )
    if strategy == "horovod":
        from tal1_hvd.distributed.horovod_communicator import HorovodCommunicator

        return HorovodCommunicator(busy)
    if strategy == "single":
        return SingleProcess()
    # Imports TensorFlow.
    from tal1_hvd.distributed.tensorflow_strategies import connect_replicas

    return connect_replicas(strategy, replicas, threads or 1)
