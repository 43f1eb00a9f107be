"""What a comparison found, gathered from its run folders."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tal1_hvd.benchmark.breakdown import PARTS
from tal1_hvd.comparison.matrix import Cell, Way
from tal1_hvd.comparison.run import Folder, Plan
from tal1_hvd.data.files import atomic_file, exists
from tal1_hvd.errors import InputError
from tal1_hvd.published import TARGET_ACCURACY, is_published_data
from tal1_hvd.training.manifest import read_manifest
from tal1_hvd.training.run_folder import RunFolder, read_columns
from tal1_hvd.training.settings import read_settings

COLUMNS = (
    "strategy",
    "aggregation",
    "model",
    "world_size",
    "seed",
    "accuracy",
    "auroc",
    "train_seconds",
    "bytes_per_step",
    "oversubscribed",
)


@dataclass(frozen=True)
class Outcome:
    """A cell that was trained.

    Attributes
    ----------
    cell : Cell
    metrics : dict
        Of ``metrics.json``.
    history : dict
        By column of ``history.csv``, an array of a value an epoch.
    published_data : bool
        It was trained on the data of the publication.
    oversubscribed : bool
        More ranks than the machine had cores.
    """

    cell: Cell
    metrics: dict[str, Any]
    history: dict[str, np.ndarray]
    published_data: bool
    oversubscribed: bool

    @property
    def split(self) -> str:
        """The split that is scored: test, or validation where there is no test split."""
        return "validation" if self.metrics["test"] is None else "test"

    @property
    def score(self) -> dict[str, Any]:
        """Of that split."""
        return self.metrics[self.split]

    @property
    def elapsed(self) -> np.ndarray:
        """Seconds from the first step to the end of each epoch; checkpoints are shared out."""
        elapsed = np.cumsum(self.history["seconds"])
        return elapsed * self.metrics["train_seconds"] / elapsed[-1]

    @property
    def seconds_to_target(self) -> float | None:
        """Until validation accuracy was as good as the best published; None if it never was."""
        reached = np.flatnonzero(self.history["validation_accuracy"] >= TARGET_ACCURACY)
        return float(self.elapsed[reached[0]]) if len(reached) else None

    def row(self) -> dict[str, Any]:
        """Return the cell's line of ``compare.csv``."""
        return {
            "strategy": self.metrics["strategy"],
            "aggregation": self.cell.way.aggregation,
            "model": self.metrics["model"],
            "world_size": self.metrics["world_size"],
            "seed": self.cell.seed,
            "accuracy": self.score["accuracy"],
            "auroc": self.score["auroc"],
            "train_seconds": self.metrics["train_seconds"],
            "bytes_per_step": round(self.metrics["bytes_per_step"]),
            "oversubscribed": str(self.oversubscribed).lower(),
        }


def read_outcomes(plan: Plan, folder: Folder) -> list[Outcome]:
    """Read all cells of a comparison that have results.

    Raises
    ------
    InputError
        A run folder is damaged, or another training's.
    """
    outcomes = []
    for cell in plan.matrix.cells(plan.seeds):
        run = folder.run(cell)
        if exists(run.metrics) or cell.way not in plan.matrix.large_batch:
            require_cell(cell, plan, run)
            metrics, history = run.read_metrics(), read_columns(run.history)
            published = is_published_data(read_manifest(run.manifest))
            more = cell.way.ranks > plan.cores
            outcomes.append(Outcome(cell, metrics, history, published, more))
    return outcomes


def require_cell(cell: Cell, plan: Plan, run: RunFolder) -> None:
    """Raise InputError if a run folder is another training's than this cell's."""
    settings, ranks = read_settings(run.config)
    wanted = cell.way.settings(settings.data, cell.seed, plan.epochs)
    differing = settings.differences(wanted)
    if differing or ranks != cell.way.ranks:
        raise InputError(
            f"{run.path}: not the run of {cell.way.title}, seed {cell.seed} "
            f"({', '.join(differing) or 'ranks'} differ); remove it"
        )


def read_steps(ways: Sequence[Way], folder: Folder) -> dict[str, dict[str, float]]:
    """Return, by name of a way, the microseconds of a step and of its parts."""
    return {way.name: json.loads(folder.steps(way).read_text()) for way in ways}


def write_csv(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write ``compare.csv``: a line for each cell whose batch a rank is the default.

    Cells of other batches would look like the same way twice; the page has them.
    """
    with atomic_file(path) as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            outcome.row() for outcome in outcomes if "batch_size" not in outcome.cell.way.changes
        )


@dataclass(frozen=True)
class Finding:
    """What a way reached over all seeds.

    Attributes
    ----------
    way : Way
    outcomes : list of Outcome
        One a seed.
    """

    way: Way
    outcomes: list[Outcome]

    def mean(self, key: str) -> float | None:
        """Return the mean score: accuracy, loss, auroc or auprc; None where one is missing."""
        scores = [outcome.score[key] for outcome in self.outcomes]
        return None if None in scores else float(np.mean(scores))

    @property
    def seconds(self) -> float:
        """Median training time."""
        return float(np.median([o.metrics["train_seconds"] for o in self.outcomes]))

    @property
    def rate(self) -> float:
        """Median examples a second while training, without validation and checkpoints."""
        rates = [np.median(o.history["examples_per_second"]) for o in self.outcomes]
        return float(np.median(rates))

    @property
    def seconds_to_target(self) -> tuple[float | None, int]:
        """Median time to the best published accuracy of the seeds that reached it; how many did."""
        times = [o.seconds_to_target for o in self.outcomes if o.seconds_to_target is not None]
        return float(np.median(times)) if times else None, len(times)

    @property
    def bytes_per_step(self) -> float:
        """Bytes that all ranks send in a step."""
        return self.outcomes[0].metrics["bytes_per_step"]

    @property
    def oversubscribed(self) -> bool:
        """More ranks than cores."""
        return self.outcomes[0].oversubscribed

    @property
    def title(self) -> str:
        """The way's, marked where there were more ranks than cores."""
        return self.way.title + (" (oversubscribed)" if self.oversubscribed else "")


def find(outcomes: Sequence[Outcome], ways: Sequence[Way]) -> list[Finding]:
    """Gather the outcomes of each way."""
    return [
        Finding(way, [outcome for outcome in outcomes if outcome.cell.way.name == way.name])
        for way in ways
    ]


def communication(step: Mapping[str, float]) -> float:
    """Return the share of a step that ranks spend on each other, waiting included."""
    return shares(step)["all_reduce"]


def shares(step: Mapping[str, float]) -> dict[str, float]:
    """Return each part's share of all parts: measured apart, they can add up to another step."""
    whole = sum(step[part] for part in PARTS)
    return {part: step[part] / whole for part in PARTS}
