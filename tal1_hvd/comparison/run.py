"""Trains what a comparison holds, each cell by the command `train` into a run folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tal1_hvd.benchmark.breakdown import break_down
from tal1_hvd.comparison.matrix import Cell, Matrix, Way, make_matrix
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.files import atomic_file, atomic_folder, exists, lock_folder, require_plain
from tal1_hvd.distributed.end_with_parent import end_with_parent
from tal1_hvd.errors import InputError
from tal1_hvd.report.words import number
from tal1_hvd.simulation.cache import cached_dataset
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.training.interruptions import NOT_FINITE
from tal1_hvd.training.plan import plan_batches
from tal1_hvd.training.run_folder import RunFolder

_LOG_LINES = 3
# Steps are taken apart as often as there are seeds, but not more often.
_MOST_TURNS = 3
_SECONDS_TO_END = 20.0
_MOST = {"--seeds": 1_000, "--epochs": 1_000_000}


@dataclass(frozen=True)
class Plan:
    """What a comparison is to be.

    Attributes
    ----------
    data : str, optional
        Dataset folder; a simulated one for each seed, if left out.
    fingerprint : str, optional
        Of that dataset.
    processor : str
    cores : int
        Of the machine that trains.
    seeds : int
    epochs : int
    ranks : tuple of int
        World sizes, ascending, at least 2.
    large_batch : bool
        Train with large batches too.
    """

    data: str | None
    fingerprint: str | None
    processor: str
    cores: int
    seeds: int
    epochs: int
    ranks: tuple[int, ...]
    large_batch: bool = False

    def __post_init__(self) -> None:
        for option, value in (("--seeds", self.seeds), ("--epochs", self.epochs)):
            if not 1 <= value <= _MOST[option]:
                raise InputError(f"{option}: must lie between 1 and {_MOST[option]:,}, got {value}")
        if not self.ranks or min(self.ranks) < 2 or sorted(set(self.ranks)) != list(self.ranks):
            shown = " ".join(map(str, self.ranks))
            raise InputError(
                f"--ranks: expected numbers of at least 2, each larger than the one before, got "
                f"{shown or 'none'}"
            )

    @property
    def matrix(self) -> Matrix:
        """What is trained."""
        return make_matrix(self.ranks, self.large_batch)


def _difference(found: Any, wanted: Mapping[str, Any]) -> str:
    """Say in what a plan that was noted differs from the one that is wanted."""
    if not isinstance(found, dict):
        return "its plan.json says none"
    pairs = {key: (found.get(key), wanted.get(key)) for key in {**wanted, **found}}
    return ", ".join(f"{key} {a} there, {b} here" for key, (a, b) in pairs.items() if a != b)


@dataclass(frozen=True)
class Folder:
    """The folder of a comparison.

    Attributes
    ----------
    path : Path
    """

    path: Path

    def lock(self) -> AbstractContextManager[object]:
        """Take the folder for this process alone, until the block or the process ends.

        Raises
        ------
        InputError
            Another process trains into it.
        """
        return lock_folder(self.path, "another process is comparing into it")

    def run(self, cell: Cell) -> RunFolder:
        """Return a cell's run folder."""
        return RunFolder(self.path / "runs" / cell.name)

    def steps(self, way: Way) -> Path:
        """Return the file of the parts of a step."""
        return self.path / "steps" / f"{way.name}.json"

    @classmethod
    def open(cls, path: Path, plan: Plan) -> Folder:
        """Make the folder of a new comparison, or take the one that was begun.

        Raises
        ------
        InputError
            It holds something else, or another comparison, or cannot be written.
        """
        noted = path / "plan.json"
        wanted = json.loads(json.dumps(asdict(plan)))
        if exists(noted):
            require_plain(path)
            try:
                found = json.loads(noted.read_text())
            except (OSError, ValueError, RecursionError) as error:
                raise InputError(f"{noted}: cannot be read: {error}") from None
            if found != wanted:
                raise InputError(
                    f"{path}: holds another comparison ({_difference(found, wanted)}); choose "
                    "another --out"
                )
            return cls(path)
        with atomic_folder(path) as folder:
            (folder / "plan.json").write_text(json.dumps(wanted) + "\n")
            for name in ("runs", "steps", "logs"):
                (folder / name).mkdir()
        return cls(path)


def require_trainable(plan: Plan) -> None:
    """Raise InputError if some way cannot train on the data."""
    data = data_of(plan, 0)
    dataset = open_dataset(data, verify=False)
    for cell in plan.matrix.cells(seeds=1):
        try:
            settings = cell.way.settings(data, cell.seed, plan.epochs)
            plan_batches(settings, dataset, 0, cell.way.ranks)
        except InputError as error:
            raise InputError(f"{cell.way.title}: {error}") from None


def train_all(plan: Plan, folder: Folder, tell: Callable[[str], None]) -> None:
    """Train every cell that is not finished, and take every way's step apart.

    Of large batches, those whose loss is not finite are left without results.

    Parameters
    ----------
    plan : Plan
    folder : Folder
    tell : callable
        Told of each cell.

    Raises
    ------
    InputError
        The data cannot be used.
    RuntimeError
        A training failed.
    """
    cells = plan.matrix.cells(plan.seeds)
    total = len(cells) + len(plan.matrix.strategies)
    for count, cell in enumerate(cells, 1):
        run = folder.run(cell)
        done = exists(run.metrics)
        try:
            if not done:
                _wait_until_free(run)
                _train(_flags(plan, cell, run), folder.path / "logs" / f"{cell.name}.log", cell)
        except InputError as error:
            if cell.way not in plan.matrix.large_batch or NOT_FINITE not in str(error):
                raise
            tell(f"{count}/{total}  {error}")
            continue
        metrics = run.read_metrics()
        accuracy = number(metrics["test"] and metrics["test"]["accuracy"])
        tell(
            f"{count}/{total}  {cell.way.title}, seed {cell.seed}: accuracy {accuracy}, "
            f"{metrics['train_seconds']:.1f} s{' (done before)' if done else ''}"
        )
    for count, way in enumerate(plan.matrix.strategies, len(cells) + 1):
        _measure_step(plan, folder, way, lambda text, count=count: tell(f"{count}/{total}  {text}"))


def data_of(plan: Plan, seed: int) -> str:
    """Return the dataset of a seed, simulated once into the cache unless one is given."""
    if plan.data is not None:
        return plan.data
    return str(cached_dataset(SimulationSettings(seed=seed)))


def _flags(plan: Plan, cell: Cell, run: RunFolder) -> list[str]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in cell.way.changes.items()]
    if cell.way.ranks > 1:
        flags.append(f"--ranks={cell.way.ranks}")
    return [
        *flags,
        f"--data={data_of(plan, cell.seed)}",
        f"--seed={cell.seed}",
        f"--epochs={plan.epochs}",
        f"--out={run.path}",
        "--resume",
    ]


def _wait_until_free(run: RunFolder) -> None:
    """Wait for ranks of a comparison that was killed, which end within seconds."""
    deadline = time.monotonic() + _SECONDS_TO_END
    while exists(run.path) and time.monotonic() < deadline:
        try:
            with run.lock():
                return
        except InputError:
            time.sleep(_SECONDS_TO_END / 100)


def _train(flags: Sequence[str], log: Path, cell: Cell) -> None:
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as handle:
        command = [sys.executable, "-m", "tal1_hvd", "train", *flags]
        code = subprocess.run(
            end_with_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code == 0:
        return
    said = log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
    message = f"{cell.way.title}, seed {cell.seed}: exit code {code} ({log}): {' | '.join(said)}"
    raise InputError(message) if code == 2 else RuntimeError(message)


def _measure_step(plan: Plan, folder: Folder, way: Way, tell: Callable[[str], None]) -> None:
    path = folder.steps(way)
    if exists(path):
        return
    settings = way.settings(data_of(plan, 0), 0, plan.epochs)
    turns = [break_down(settings, way.ranks) for _ in range(min(plan.seeds, _MOST_TURNS))]
    parts = {part: median(turn[part] for turn in turns) for part in turns[0]}
    tell(f"one step of {way.title}: {parts['step']:.0f} µs")
    with atomic_file(path) as handle:
        handle.write(json.dumps(parts) + "\n")
