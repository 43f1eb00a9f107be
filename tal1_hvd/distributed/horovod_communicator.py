"""Ranks that talk over Horovod. The only module that imports it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from tal1_hvd.distributed.communicator import JsonByArrays, OneReplica
from tal1_hvd.distributed.environment import (
    launched_elastically,
    set_horovod_defaults,
    shorten_sleeps,
)
from tal1_hvd.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def load_horovod(busy: bool = True) -> ModuleType:
    """Set Horovod's variables and import it, which takes seconds; return it.

    Raises
    ------
    InputError
        It is not installed.
    """
    set_horovod_defaults(busy)
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise InputError(
            f"--strategy horovod: Horovod is not installed for TensorFlow ({error}); "
            "launch/setup builds it"
        ) from None
    return hvd


class HorovodCommunicator(JsonByArrays, OneReplica):
    """The ranks that horovodrun, mpirun or srun started, over MPI, Gloo or NCCL.

    Parameters
    ----------
    busy : bool
        It is called in every step.

    Attributes
    ----------
    controller : {"MPI", "Gloo"}
        What the ranks agree over.
    """

    name = "horovod"

    def __init__(self, busy: bool = True) -> None:
        hvd = load_horovod(busy)
        # Before Horovod starts its thread, which inherits it.
        shorten_sleeps()
        hvd.init()
        self._hvd = hvd
        self.rank = hvd.rank()
        self.size = hvd.size()
        if launched_elastically():
            # Ranks are numbered anew whenever they meet.
            os.environ.update(HOROVOD_RANK=str(self.rank), HOROVOD_SIZE=str(self.size))
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

    def record_timeline(self, path: Path) -> None:
        """Have Horovod write its timeline from now on: rank 0 does."""
        self._hvd.start_timeline(str(path))

    def close(self, launcher: bool = True) -> None:
        """Wait until every rank has come here, and end the connection.

        Without the `launcher`, MPI's is left open: to end it mpirun has to answer.
        """
        # Horovod's own shutdown is not waited for: the first rank's ends the others' collectives.
        self.all_gather(np.zeros(1, dtype=np.uint8))
        if launcher or self.controller != "MPI":
            self._hvd.shutdown()


class Membership:
    """What horovodrun tells a process of a job whose ranks come and go."""

    def __init__(self) -> None:
        self._changed = False
        # Horovod's own: horovodrun finds the process by it.
        from horovod.common.elastic import notification_manager

        notification_manager.init()
        notification_manager.register_listener(self)

    def on_hosts_updated(self, timestamp: int, update: int) -> None:
        """Note that hosts came or went; called by Horovod's thread, on rank 0."""
        self._changed = True

    def changed(self) -> bool:
        """Say whether hosts came or went since ranks last met."""
        return self._changed

    def leave(self) -> None:
        """Leave the ranks that met, to meet those that are there next."""
        import horovod.tensorflow as hvd

        self._changed = False
        hvd.shutdown()
        _hang_up()


def _hang_up() -> None:
    """End the connections that Horovod leaves open after a rank was lost.

    Ranks that still wait for this one then hear of it at once, not after Gloo's timeout. What else
    is connected here is horovodrun, whose news are told anew when ranks meet.
    """
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            descriptor = int(entry.name)
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            connection = socket.socket(fileno=descriptor)
            try:
                # Not what listens: that has no peer.
                if connection.family in (socket.AF_INET, socket.AF_INET6):
                    connection.getpeername()
                    connection.shutdown(socket.SHUT_RDWR)
            finally:
                # It is Gloo's, which closes it upon this.
                connection.detach()


def is_lost_rank(error: Exception) -> bool:
    """Say whether an error is that of a collective which another rank has left."""
    import tensorflow as tf
    from horovod.common.exceptions import HorovodInternalError

    # Whatever TensorFlow makes of it, the operation's name is in it.
    in_graph = isinstance(error, tf.errors.OpError) and "Horovod" in str(error)
    return in_graph or isinstance(error, HorovodInternalError)
