"""What ranks say to each other. The only module that imports Horovod.

Everything else asks a `Communicator` for its rank, the world size and the collectives; on one
process `SingleProcess` answers without Horovod, MPI or TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tal1_hvd.distributed.environment import (
    launched_world_size,
    set_horovod_defaults,
    shorten_sleeps,
)
from tal1_hvd.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Communicator(Protocol):
    """A group of ranks; every collective is called by all of them, in the same order.

    Attributes
    ----------
    rank, size : int
        This process among all, and how many there are.
    local_rank, local_size : int
        The same among those on this machine.
    name : str
        The strategy's name.
    """

    name: str
    rank: int
    size: int
    local_rank: int
    local_size: int

    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the element-wise sum over ranks; equal shapes; works inside ``tf.function``."""

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """Return all ranks' arrays joined along axis 0 in rank order; first axes may differ."""

    def broadcast_variables(self, variables: Sequence[keras.Variable]) -> None:
        """Give the variables of all ranks the values of rank 0's."""

    def all_gather_json(self, value: Any) -> list[Any]:
        """Return every rank's JSON value, in rank order."""

    def broadcast_json(self, value: Any) -> Any:
        """Return rank 0's JSON value."""

    def close(self) -> None:
        """Wait until every rank has come here, and end the connection."""


class SingleProcess:
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

    def close(self) -> None:
        """Do nothing."""


class HorovodCommunicator:
    """The ranks that horovodrun, mpirun or srun started, over MPI, Gloo or NCCL.

    Attributes
    ----------
    controller : {"MPI", "Gloo"}
        What the ranks agree over.
    """

    name = "horovod"

    def __init__(self) -> None:
        set_horovod_defaults()
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise InputError(
                f"--strategy horovod: Horovod is not installed for TensorFlow ({error}); "
                "launch/setup builds it"
            ) from None
        # Before Horovod starts its thread, which inherits it.
        shorten_sleeps()
        hvd.init()
        self._hvd = hvd
        self.rank = hvd.rank()
        self.size = hvd.size()
        self.local_rank = hvd.local_rank()
        self.local_size = hvd.local_size()
        self.controller = "MPI" if hvd.mpi_enabled() else "Gloo"

    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the element-wise sum over ranks (ring all-reduce)."""
        return self._hvd.allreduce(tensor, op=self._hvd.Sum)

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """Return all ranks' arrays joined along axis 0 in rank order."""
        return self._hvd.allgather(array).numpy()

    def broadcast_variables(self, variables: Sequence[keras.Variable]) -> None:
        """Give the variables of all ranks the values of rank 0's."""
        # Horovod's own function of this name traces a graph first, which takes half a second.
        for variable in variables:
            variable.assign(self._hvd.broadcast(variable.value, root_rank=0))

    def all_gather_json(self, value: Any) -> list[Any]:
        """Return every rank's JSON value, in rank order."""
        # Horovod's own object collectives pickle.
        data = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
        sizes = self.all_gather(np.array([len(data)], dtype=np.int64))
        joined = self.all_gather(data)
        parts = np.split(joined, np.cumsum(sizes)[:-1])
        return [json.loads(part.tobytes().decode()) for part in parts]

    def broadcast_json(self, value: Any) -> Any:
        """Return rank 0's JSON value."""
        return self.all_gather_json(value if self.rank == 0 else None)[0]

    def close(self) -> None:
        """Wait until every rank has come here, and end the connection."""
        # Horovod's own shutdown is not waited for: the first rank's ends the others' collectives.
        self.all_gather(np.zeros(1, dtype=np.uint8))
        self._hvd.shutdown()


def connect(strategy: str = "auto") -> Communicator:
    """Join the ranks that this process was started with.

    Parameters
    ----------
    strategy : {"auto", "horovod", "single"}
        Auto is Horovod where a launcher started this process, and a single process elsewhere.

    Returns
    -------
    Communicator

    Raises
    ------
    InputError
        Horovod is wanted and not installed, or a single process is wanted among several ranks.
    """
    launched = launched_world_size()
    if strategy == "single" and (launched or 1) > 1:
        raise InputError(
            f"--strategy single: a launcher started {launched} ranks; start one, or use horovod"
        )
    if strategy == "horovod" or (strategy == "auto" and launched is not None):
        return HorovodCommunicator()
    return SingleProcess()
