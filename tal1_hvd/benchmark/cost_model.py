"""What a step costs on more ranks than there are here: compute, latency and bandwidth.

Times are in microseconds, sizes in bytes. A message of m bytes takes ``latency + m / bandwidth``
(Hockney 1994, The communication challenge for MPP).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, log2


@dataclass(frozen=True)
class Network:
    """A class of network.

    Attributes
    ----------
    name : str
    latency : float
        Of a message between two ranks, in microseconds.
    bandwidth : float
        Of one rank's link, in bytes a microsecond (1,000 are 1 GB/s).
    """

    name: str
    latency: float
    bandwidth: float

    def message(self, size: float) -> float:
        """Return the microseconds of a message of so many bytes."""
        return self.latency + size / self.bandwidth


# Latencies and bandwidths as MPI programs commonly see them, not those of data sheets.
NETWORKS = (
    Network("1 Gbit Ethernet", 50.0, 115.0),
    Network("10 Gbit Ethernet", 20.0, 1_150.0),
    Network("100 Gbit Ethernet (RoCE)", 3.0, 11_000.0),
    Network("200 Gbit InfiniBand", 1.3, 23_000.0),
)


def ring(ranks: int, size: float, network: Network) -> float:
    """Return the time of a ring all-reduce (Patarasuk and Yuan 2009).

    Examples
    --------
    >>> ring(4, 4000, Network("slow", latency=10, bandwidth=100))
    120.0
    """
    return 2 * (ranks - 1) * network.message(size / ranks)


def tree(ranks: int, size: float, network: Network) -> float:
    """Return the time of a reduction along a binomial tree and a broadcast back.

    Examples
    --------
    >>> tree(4, 4000, Network("slow", latency=10, bandwidth=100))
    200.0
    """
    return 2 * ceil(log2(ranks)) * network.message(size)


def parameter_server(ranks: int, size: float, network: Network) -> float:
    """Return the time of all gradients through the one link of a server, and the weights back.

    Examples
    --------
    >>> parameter_server(4, 4000, Network("slow", latency=10, bandwidth=100))
    260.0
    """
    return 2 * (network.latency + (ranks - 1) * size / network.bandwidth)


ALGORITHMS: Mapping[str, Callable[[int, float, Network], float]] = {
    "ring": ring,
    "tree": tree,
    "parameter server": parameter_server,
}


@dataclass(frozen=True)
class Constants:
    """What was measured on ranks of one machine.

    Attributes
    ----------
    fixed : float
        Of a batch on one rank, whatever its size, in microseconds.
    per_example : float
        Microseconds more for each example.
    overhead : float
        What joining two ranks takes beyond their messages: the agreement that both are ready, and
        the wait for the slower one, in microseconds.
    parameters : int
    """

    fixed: float
    per_example: float
    overhead: float
    parameters: int


@dataclass(frozen=True)
class Step:
    """How a step is made.

    Attributes
    ----------
    batch : int
        Examples of a rank in one pass.
    accumulation : int
        Passes of a step.
    width : int
        Bytes of a number on its way: 4, or 2 by compression.
    algorithm : str
        One of `ALGORITHMS`.
    """

    batch: int = 64
    accumulation: int = 1
    width: int = 4
    algorithm: str = "ring"


def step_time(constants: Constants, step: Step, ranks: int, network: Network) -> float:
    """Return the microseconds of a step.

    The ranks' agreement takes rounds that double the ranks in it, each with a message there and
    back.

    Parameters
    ----------
    constants : Constants
    step : Step
    ranks : int
    network : Network

    Examples
    --------
    >>> constants = Constants(fixed=100, per_example=5, overhead=20, parameters=1000)
    >>> slow = Network("slow", latency=10, bandwidth=100)
    >>> step_time(constants, Step(batch=60), 1, slow)
    400
    >>> step_time(constants, Step(batch=60), 4, slow)
    600.0
    """
    compute = step.accumulation * (constants.fixed + constants.per_example * step.batch)
    if ranks == 1:
        return compute
    agreement = log2(ranks) * (constants.overhead + 2 * network.latency)
    size = constants.parameters * step.width
    return compute + agreement + ALGORITHMS[step.algorithm](ranks, size, network)


def efficiency(constants: Constants, step: Step, ranks: int, network: Network) -> float:
    """Return the speed of a rank as a share of that of one rank alone."""
    return step_time(constants, step, 1, network) / step_time(constants, step, ranks, network)


def most_ranks(
    constants: Constants, step: Step, network: Network, least: float = 0.5, limit: int = 1_000_000
) -> int:
    """Return the most ranks on which efficiency is at least so high; at most `limit`.

    Parameters
    ----------
    constants : Constants
    step : Step
    network : Network
    least : float
    limit : int
    """
    low, high = 1, limit
    # Efficiency falls with every rank but where the tree's depth stays, which is flat.
    while low < high:
        middle = (low + high + 1) // 2
        if efficiency(constants, step, middle, network) >= least:
            low = middle
        else:
            high = middle - 1
    return low


def best_ranks(
    constants: Constants,
    examples: int,
    network: Network,
    algorithm: str = "ring",
    limit: int = 4096,
) -> int:
    """Return on how many ranks a step of so many examples in all is shortest (strong scaling).

    Parameters
    ----------
    constants : Constants
    examples : int
        Of the global batch; shared by numbers of ranks that divide it.
    network : Network
    algorithm : str
        One of `ALGORITHMS`.
    limit : int
    """

    def time(ranks: int) -> float:
        step = Step(batch=examples // ranks, algorithm=algorithm)
        return step_time(constants, step, ranks, network)

    return min((n for n in range(1, min(examples, limit) + 1) if examples % n == 0), key=time)
