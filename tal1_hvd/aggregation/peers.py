"""Messages from one rank to another, over MPI beside Horovod in the same job."""

from __future__ import annotations

import numpy as np

from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.errors import InputError


class Peers:
    """Sends arrays to single ranks, and counts their bytes.

    Messages of one `Peers` never meet those of another.

    Parameters
    ----------
    communicator : Communicator
        Of Horovod, which has started MPI; or a single process, which has no peers.
    aggregation : str
        Named where there is no MPI.

    Attributes
    ----------
    rank, size : int
    sent : int
        Bytes sent so far by this rank to others.
    comm : mpi4py.MPI.Comm
        Where there are several ranks.

    Raises
    ------
    InputError
        mpi4py is not installed, or Horovod runs over Gloo, or MPI lets only one thread call it.
    """

    def __init__(self, communicator: Communicator, aggregation: str):
        self.rank, self.size = communicator.rank, communicator.size
        self.sent = 0
        if self.size == 1:
            return
        try:
            import mpi4py

            # Horovod starts and ends MPI.
            mpi4py.rc.initialize = mpi4py.rc.finalize = False
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise InputError(
                f"--aggregation {aggregation}: needs mpi4py ({error}); launch/setup installs it"
            ) from None
        if not MPI.Is_initialized():
            raise InputError(
                f"--aggregation {aggregation}: needs MPI; start the ranks by mpirun, or by "
                "horovodrun without --gloo"
            )
        if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            raise InputError(
                f"--aggregation {aggregation}: this MPI lets only one thread call it "
                "(MPI_THREAD_MULTIPLE is needed)"
            )
        self.comm = MPI.COMM_WORLD.Dup()

    def send(self, array: np.ndarray, to: int, tag: int = 0) -> None:
        """Send an array; returns when it may be changed."""
        self.comm.Send(array, to, tag)
        self._count(array, to)

    def receive(self, like: np.ndarray, source: int) -> np.ndarray:
        """Return an array from a rank, of the shape and dtype of `like`."""
        array = np.empty_like(like)
        self.comm.Recv(array, source)
        return array

    def exchange(self, array: np.ndarray, to: int, source: int) -> np.ndarray:
        """Send an array to a rank, and return one of its shape from another."""
        received = np.empty_like(array)
        self.comm.Sendrecv(array, to, recvbuf=received, source=source)
        self._count(array, to)
        return received

    def _count(self, array: np.ndarray, to: int) -> None:
        if to != self.rank:
            self.sent += array.nbytes


def bytes_per_step(communicator: Communicator, sent: int, steps: int) -> float:
    """Return how many bytes all ranks together sent in a step; called by all ranks.

    Parameters
    ----------
    communicator : Communicator
    sent : int
        Bytes that this rank has sent.
    steps : int
        Steps that this rank has made.
    """
    return float(communicator.all_gather(np.array([sent])).sum() / max(steps, 1))
