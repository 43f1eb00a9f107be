"""What a comparison trains."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tal1_hvd.training.settings import TrainSettings

_BATCH = TrainSettings().batch_size


@dataclass(frozen=True)
class Way:
    """A way to train.

    Attributes
    ----------
    label : str
        Names it on pages.
    ranks : int
    changes : dict
        Settings other than the defaults, named as in `TrainSettings`.
    """

    label: str
    ranks: int
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in files."""
        words = re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")
        batch = self.changes.get("batch_size")
        return f"{words}-{self.ranks}" + (f"-batch{batch}" if batch else "")

    @property
    def title(self) -> str:
        """Its label, how many ranks it has, and the batch of a rank if it is not the default."""
        title = f"{self.label}, {self.ranks} rank{'s' if self.ranks > 1 else ''}"
        batch = self.changes.get("batch_size")
        return f"{title}, batch {batch:,}{' a rank' if self.ranks > 1 else ''}" if batch else title

    @property
    def aggregation(self) -> str:
        """How its ranks make one model."""
        staleness = self.changes.get("staleness")
        name = self.changes.get("aggregation", "allreduce")
        return name if staleness is None else f"{name} (staleness {staleness})"

    @property
    def global_batch(self) -> int:
        """Examples of a step over all ranks."""
        return self.changes.get("batch_size", _BATCH) * self.ranks

    def settings(self, data: str, seed: int, epochs: int) -> TrainSettings:
        """Return the settings with which it trains."""
        return TrainSettings(**{**self.changes, "data": data, "seed": seed, "epochs": epochs})


@dataclass(frozen=True)
class Cell:
    """A way to train, with a seed.

    Attributes
    ----------
    way : Way
    seed : int
        Of weights and shuffles, and of the data where it is simulated.
    """

    way: Way
    seed: int

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return f"{self.way.name}-seed{self.seed}"


@dataclass(frozen=True)
class Matrix:
    """All that a comparison trains, by what it shows.

    Attributes
    ----------
    strategies : sequence of Way
        Strategies and aggregation algorithms.
    strong : sequence of Way
        The same global batch on more and more ranks.
    weak : sequence of Way
        The same batch a rank.
    large_batch : sequence of Way
        Rules for larger and larger batches.
    """

    strategies: Sequence[Way]
    strong: Sequence[Way]
    weak: Sequence[Way]
    large_batch: Sequence[Way] = ()

    def cells(self, seeds: int) -> list[Cell]:
        """Return every way once with each seed; all ways of a seed before the next seed's."""
        studies = (self.strategies, self.strong, self.weak, self.large_batch)
        ways = {way.name: way for way in chain(*studies)}
        return [Cell(way, seed) for seed in range(seeds) for way in ways.values()]


SINGLE = "single process"
HOROVOD = "Horovod"
_STALENESS = 4
_STRATEGIES = {
    HOROVOD: {"strategy": "horovod"},
    "MirroredStrategy": {"strategy": "mirrored"},
    "MultiWorkerMirroredStrategy": {"strategy": "multiworker"},
}
_AGGREGATIONS = {
    "parameter server": {"aggregation": "parameter-server"},
    "asynchronous server": {
        "aggregation": "parameter-server",
        "staleness": _STALENESS,
    },
    "gossip": {"aggregation": "gossip"},
    "model-parallel": {"aggregation": "model-parallel"},
}


_BATCHES = (64, 256, 1024, 4096)
# Of the highest validation accuracy at a batch of 64 on the default dataset, seed 0, among powers
# of 2 from 2^-10 to 2^-3; Adam's is the published one.
LAMB_RATE, LARS_RATE = 2**-7, 2**-8
_RULES = {
    "Adam, linear": {},
    "Adam, linear, no warm-up": {"warmup_examples": 0},
    "Adam, square root": {"rate_scaling": "sqrt"},
    "LAMB, square root": {"optimizer": "lamb", "rate_scaling": "sqrt", "learning_rate": LAMB_RATE},
    "LARS, square root": {"optimizer": "lars", "rate_scaling": "sqrt", "learning_rate": LARS_RATE},
}


def make_matrix(ranks: Sequence[int], large_batch: bool = False) -> Matrix:
    """Return what is trained on up to so many ranks.

    Parameters
    ----------
    ranks : sequence of int
        Ascending, at least 2: the first of them for all ways, the others for strategies.
    large_batch : bool
        Train with large batches too.

    Returns
    -------
    Matrix
    """
    single = Way(SINGLE, 1, {"strategy": "single", "threads": 1})
    strategies = [Way(label, ranks[0], changes) for label, changes in _STRATEGIES.items()]
    aggregations = [
        Way(label, ranks[0], {"strategy": "horovod", **changes})
        for label, changes in _AGGREGATIONS.items()
    ]
    more = [
        Way(label, count, changes) for label, changes in _STRATEGIES.items() for count in ranks[1:]
    ]
    weak = [single, *(Way(HOROVOD, count, _STRATEGIES[HOROVOD]) for count in ranks)]
    whole = _BATCH * ranks[-1]
    strong = [
        Way(way.label, way.ranks, {**way.changes, "batch_size": whole // way.ranks})
        for way in weak
        if way.ranks < ranks[-1] and whole % way.ranks == 0
    ]
    rules = [
        Way(label, 1, {**single.changes, **changes, "batch_size": batch})
        for label, changes in _RULES.items()
        for batch in _BATCHES
    ]
    return Matrix(
        strategies=[single, *strategies, *more, *aggregations],
        strong=[*strong, weak[-1]],
        weak=weak,
        large_batch=rules if large_batch else [],
    )
