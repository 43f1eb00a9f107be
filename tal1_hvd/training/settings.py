"""Settings of a training run, with the published experiment's as defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from tal1_hvd.data.dataset import CACHE_MB
from tal1_hvd.data.yaml_file import read_yaml
from tal1_hvd.errors import InputError
from tal1_hvd.models.registry import PRECISIONS, model_summaries

STRATEGIES = ("auto", "horovod", "mirrored", "multiworker", "tpu", "single")
# Those whose ranks are devices of one process, and how many they are unless it is said.
REPLICATED = {"mirrored": "auto", "tpu": "8"}
AGGREGATIONS = ("allreduce", "parameter-server", "gossip", "model-parallel")
OPTIMIZERS = ("adam", "lamb", "lars")
# By which power of the global batch the learning rate grows.
RATE_SCALINGS = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}
SHUFFLES = ("global", "shard")
COMPRESSIONS = ("none", "fp16")

# A run that is resumed may change these; all others decide what it computes.
CHANGEABLE = frozenset(
    {
        "epochs",
        "patience",
        "threads",
        "stall_timeout",
        "strategy",
        "data",
        "cache_mb",
        "elastic",
        "fixed_global_batch",
    }
)

# Exact as floating-point numbers, and more than anybody lives to see.
_LARGEST = 10**15
# Scaled with the global batch it still is a float32.
_LARGEST_RATE = 1e30
# More than any machine has cores for one rank.
_MOST_THREADS = 1024


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained.

    Attributes
    ----------
    data : str, optional
        Dataset folder; the default dataset, simulated once into the user's cache, if left out.
    model : str
    epochs : int
    batch_size : int
        Examples a rank takes in one pass.
    accumulation : int
        Passes that make one step.
    learning_rate : float
        For a global batch of 64.
    rate_scaling : {"linear", "sqrt", "none"}
        How the rate grows with the global batch: in proportion (Goyal et al. 2017), by its square
        root, or not at all.
    warmup_examples : int
        Training examples over which the rate rises linearly from `learning_rate` to its scaled
        value; 0 starts at the scaled value.
    seed : int
        Of the initial weights and of every shuffle.
    threads : int, optional
        Compute threads a rank; 1 among several ranks and one a core alone, if left out.
    strategy : {"auto", "horovod", "mirrored", "multiworker", "tpu", "single"}
    aggregation : {"allreduce", "parameter-server", "gossip", "model-parallel"}
        How the ranks make one model of what each learns.
    optimizer : {"adam", "lamb", "lars"}
        Adam (Kingma and Ba 2015), or for large batches LAMB (You et al. 2020) or LARS (You et al.
        2017).
    staleness : int, optional
        Steps that a rank may be ahead of the slowest under an asynchronous parameter server; a
        synchronous one, if left out.
    patience : int, optional
        Epochs without a lower validation loss after which training stops.
    precision : {"float32", "float64", "mixed"}
    shuffle : {"global", "shard"}
    compression : {"none", "fp16"}
        Of gradients on their way between ranks.
    cache_mb : int
        How much of the sequences a rank may keep in memory (1 MB is 1,000,000 bytes), four bases
        a byte where they do not fit otherwise; the rest is read from disk whenever it is used.
    stall_timeout : float
        Seconds without a sign of life after which a rank counts as stalled; 0 turns the watch off.
    elastic : bool
        Ranks may come and go while the run goes on; for a job that horovodrun started so.
    fixed_global_batch : bool
        The global batch stays that of the ranks with which an elastic run began; otherwise it, and
        the learning rate, follow their number.
    """

    data: str | None = None
    model: str = "paper"
    epochs: int = 50
    batch_size: int = 64
    accumulation: int = 1
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    rate_scaling: str = "linear"
    warmup_examples: int = 70_000
    seed: int = 0
    threads: int | None = None
    strategy: str = "auto"
    aggregation: str = "allreduce"
    staleness: int | None = None
    patience: int | None = None
    precision: str = "float32"
    shuffle: str = "global"
    compression: str = "none"
    cache_mb: int = CACHE_MB
    stall_timeout: float = 40.0
    elastic: bool = False
    fixed_global_batch: bool = False

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("--model", self.model, tuple(model_summaries())),
            ("--strategy", self.strategy, STRATEGIES),
            ("--precision", self.precision, tuple(PRECISIONS)),
            ("--aggregation", self.aggregation, AGGREGATIONS),
            ("--optimizer", self.optimizer, OPTIMIZERS),
            ("--rate-scaling", self.rate_scaling, tuple(RATE_SCALINGS)),
            ("--shuffle", self.shuffle, SHUFFLES),
            ("--compression", self.compression, COMPRESSIONS),
        ):
            if value not in allowed:
                raise InputError(f"{option}: {value!r} is none of {', '.join(allowed)}")
        for option, value, least in (
            ("--epochs", self.epochs, 1),
            ("--batch-size", self.batch_size, 1),
            ("--accumulation", self.accumulation, 1),
            ("--warmup-examples", self.warmup_examples, 0),
            ("--seed", self.seed, 0),
            ("--staleness", self.staleness, 0),
            ("--patience", self.patience, 1),
            ("--cache-mb", self.cache_mb, 0),
            ("--stall-timeout", self.stall_timeout, 0),
        ):
            if value is not None and not value >= least:
                raise InputError(f"{option}: must be at least {least}, got {value}")
            if value is not None and option != "--seed" and value > _LARGEST:
                raise InputError(f"{option}: must be at most {_LARGEST:g}, got {value}")
        for option, value, needs_horovod in (
            ("--compression", self.compression, self.compression != "none"),
            ("--aggregation", self.aggregation, self.aggregation != "allreduce"),
        ):
            if needs_horovod and self.strategy in ("mirrored", "multiworker", "tpu"):
                raise InputError(f"{option}: {value} needs --strategy horovod, got {self.strategy}")
        if self.compression != "none" and self.aggregation != "allreduce":
            raise InputError(
                f"--compression: {self.compression} needs --aggregation allreduce, got "
                f"{self.aggregation}"
            )
        split = self.aggregation == "model-parallel" or self.staleness is not None
        if self.optimizer != "adam" and split:
            raise InputError(
                f"--optimizer: {self.optimizer} scales whole arrays of weights, which "
                "model-parallel and an asynchronous server do not have; it needs another "
                "--aggregation"
            )
        if self.shuffle != "global":
            if self.aggregation == "model-parallel":
                raise InputError(
                    "--shuffle: --aggregation model-parallel shows every rank all examples; it "
                    f"needs global, got {self.shuffle}"
                )
            if self.aggregation == "gossip" or self.staleness is not None:
                # A shard can hold one class alone: simulated data have all positives first.
                raise InputError(
                    "--shuffle: gossip and an asynchronous server learn from each rank's batch by "
                    f"itself, which a shard would bias; they need global, got {self.shuffle}"
                )
        for option, value, needed in (
            ("--strategy", self.strategy, ("auto", "horovod")),
            ("--aggregation", self.aggregation, ("allreduce",)),
            ("--shuffle", self.shuffle, ("global",)),
        ):
            if self.elastic and value not in needed:
                raise InputError(f"{option}: --elastic needs {needed[-1]}, got {value}")
        if self.fixed_global_batch and not self.elastic:
            raise InputError("--fixed-global-batch: goes with --elastic")
        if self.staleness is not None and self.aggregation != "parameter-server":
            raise InputError(
                f"--staleness: needs --aggregation parameter-server, got {self.aggregation}"
            )
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise InputError(
                f"--threads: must lie between 1 and {_MOST_THREADS}, got {self.threads}"
            )
        if not 0 < self.learning_rate <= _LARGEST_RATE:
            raise InputError(
                f"--learning-rate: must be above 0 and at most {_LARGEST_RATE:g}, got "
                f"{self.learning_rate}"
            )

    @property
    def peer_to_peer(self) -> bool:
        """Whether ranks talk to single others in a step, rather than all to all."""
        return self.aggregation in ("parameter-server", "gossip")

    @property
    def graphs(self) -> int:
        """How many graphs a rank runs at a time: an asynchronous server has one of its own."""
        return 1 if self.staleness is None else 2

    def to_yaml(self, ranks: int) -> str:
        """Return the settings as YAML, named as the flags are: a file for ``--config``.

        The dataset is named by its absolute path, so that the file serves in any folder.

        Parameters
        ----------
        ranks : int
            How many trained with them, for ``--ranks``: the global batch depends on it.
        """
        named = {key.replace("_", "-"): value for key, value in asdict(self).items()}
        data = None if self.data is None else str(Path(self.data).absolute())
        return yaml.safe_dump({**named, "data": data, "ranks": ranks}, sort_keys=False)

    def differences(self, other: TrainSettings) -> dict[str, tuple[Any, Any]]:
        """Return the settings whose values differ: own value, other's value."""
        mine, others = asdict(self), asdict(other)
        return {name: (mine[name], others[name]) for name in mine if mine[name] != others[name]}


def describe_way(strategy: str, aggregation: str, staleness: int | None) -> str:
    """Name a strategy, and how its ranks make one model where that is no all-reduce."""
    words = [strategy] if aggregation == "allreduce" else [strategy, aggregation]
    return ", ".join(words if staleness is None else [*words, f"staleness {staleness}"])


def read_settings(path: Path) -> tuple[TrainSettings, int]:
    """Read what `TrainSettings.to_yaml` wrote.

    Returns
    -------
    settings : TrainSettings
    ranks : int
        How many trained with them.

    Raises
    ------
    InputError
        The file is unreadable, or holds other settings or types.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a file")
        named = read_yaml(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a run's settings: {error}") from None
    if not isinstance(named, dict) or "ranks" not in named:
        # A user's own file for --config need not name the ranks; a run's always does.
        raise InputError(f"{path}: not a run's settings: it does not say how many ranks trained")
    values = {str(key).replace("-", "_"): value for key, value in named.items()}
    ranks = values.pop("ranks")
    if type(ranks) is not int or ranks < 1:
        raise InputError(f"{path}: ranks cannot be {ranks!r}")
    unknown = sorted(set(values) - {field.name for field in fields(TrainSettings)})
    if unknown:
        raise InputError(f"{path}: unknown setting {unknown[0]!r}")
    for name, value in values.items():
        _require_type(path, name, value, getattr(TrainSettings, name))
    return TrainSettings(**values), ranks


def _require_type(path: Path, name: str, value: Any, default: Any) -> None:
    """Raise InputError unless a value has the type of a setting whose default is given."""
    if default is None:
        kinds: tuple[type, ...] = (str, type(None)) if name == "data" else (int, type(None))
    else:
        kinds = (float, int) if isinstance(default, float) else (type(default),)
    if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
        raise InputError(f"{path}: {name.replace('_', '-')} cannot be {value!r}")
