"""What a run will do, worked out and checked before anything starts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tal1_hvd.data.batches import Batching
from tal1_hvd.data.dataset import Dataset, open_dataset
from tal1_hvd.data.files import exists
from tal1_hvd.distributed.environment import launched_elastically
from tal1_hvd.errors import InputError
from tal1_hvd.models.registry import require_filters, require_length
from tal1_hvd.simulation.cache import cached_dataset
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.training.begin import Request
from tal1_hvd.training.manifest import read_manifest
from tal1_hvd.training.reporters import Reporter
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import CHANGEABLE, TrainSettings, read_settings


@dataclass(frozen=True)
class Goal:
    """What a run is to do, the same for all ranks.

    Attributes
    ----------
    settings : TrainSettings
    data : str, optional
        Where the dataset is now; None for the default one.
    manifest : dict, optional
        A resumed run's, if training had begun.
    ranks : int
        With which the run began, as far as its settings tell; by them the global batch that stays
        is known where ranks come and go.
    """

    settings: TrainSettings
    data: str | None
    manifest: dict[str, Any] | None
    ranks: int


def read_goal(request: Request, size: int) -> Goal:
    """Work out what is asked for.

    Parameters
    ----------
    request : Request
        One that `begin` has let pass.
    size : int
        Ranks there are now.

    Returns
    -------
    Goal

    Raises
    ------
    InputError
        The settings are wrong, or a run cannot go on with them or on so many ranks, or is damaged.
    """
    if not request.resume:
        settings = TrainSettings(**request.changes)
        return Goal(settings, settings.data, None, size)
    folder = RunFolder(request.out)
    settings = plan_resume(folder, request.changes, size)
    manifest = read_manifest(folder.manifest) if folder.has_begun() else None
    data = settings.data
    if manifest and "data" not in request.changes:
        # Where the default dataset was, there need not be one any more: it is simulated again.
        noted = manifest["dataset"]["path"]
        data = noted if data is not None or exists(Path(noted)) else None
    fixed = settings.fixed_global_batch and launched_elastically()
    return Goal(settings, data, manifest, read_settings(folder.config)[1] if fixed else size)


@dataclass(frozen=True)
class Plan:
    """A goal worked out for one rank, and checked.

    Attributes
    ----------
    goal : Goal
    dataset : Dataset
    batching : Batching
    """

    goal: Goal
    dataset: Dataset
    batching: Batching


def make_plan(goal: Goal, rank: int, size: int, reporter: Reporter, verify: bool = True) -> Plan:
    """Work out and check all that can be checked before TensorFlow starts.

    Parameters
    ----------
    goal : Goal
    rank, size : int
    reporter : Reporter
        Told if the default dataset is simulated.
    verify : bool
        Check the dataset's checksums; one process a machine is enough.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        The dataset is missing, damaged, too small, or not the one that the run was started with.
    """
    data = goal.data
    if data is None:
        data = cached_dataset(SimulationSettings(), reporter.message)
    dataset = open_dataset(data, verify=verify, cache_mb=goal.settings.cache_mb)
    if goal.manifest and goal.manifest["dataset"]["fingerprint"] != dataset.fingerprint:
        raise InputError(f"--data: {data} is not the dataset that the run was started with")
    return Plan(goal, dataset, plan_batches(goal.settings, dataset, rank, size, goal.ranks))


def plan_batches(
    settings: TrainSettings, dataset: Dataset, rank: int, size: int, ranks: int | None = None
) -> Batching:
    """Deal the training rows to ranks and steps.

    Parameters
    ----------
    settings : TrainSettings
    dataset : Dataset
    rank, size : int
    ranks : int, optional
        Whose global batch they share where it is fixed.

    Returns
    -------
    Batching

    Raises
    ------
    InputError
        The dataset has no training or validation rows, or too few for so many ranks or so large a
        batch; or the model cannot be split over so many ranks.
    """
    require_length(settings.model, dataset.length)
    examples = len(dataset.rows("train"))
    for split in ("train", "validation"):
        if not len(dataset.rows(split)):
            raise InputError(f"{dataset.path}: the {split} split is empty")
    if size > examples:
        raise InputError(
            f"{dataset.path}: {examples} training examples are fewer than {size} ranks; "
            "start fewer ranks"
        )
    batch, total = settings.batch_size, None
    if settings.fixed_global_batch and ranks is not None:
        total = batch * settings.accumulation * ranks
        batch = -(-total // (size * settings.accumulation))
    share = examples // size
    # Where ranks join, the last small step of an epoch may be all of it.
    if not settings.elastic and batch * settings.accumulation > share:
        raise InputError(
            f"--batch-size: {batch} x {settings.accumulation} passes is more than "
            f"a rank's {share} of {examples} training examples"
        )
    if settings.aggregation == "model-parallel":
        require_filters(settings.model, size)
        # Every rank takes the whole global batch.
        rank, size, batch = 0, 1, batch * size
    return Batching(
        examples=examples,
        rank=rank,
        size=size,
        batch=batch,
        accumulation=settings.accumulation,
        shuffle=settings.shuffle,
        seed=settings.seed,
        step_examples=total,
    )


def plan_resume(run: RunFolder, changes: dict[str, Any], size: int) -> TrainSettings:
    """Work out the settings with which a run goes on.

    Parameters
    ----------
    run : RunFolder
    changes : dict
        Settings that the user gave anew.
    size : int
        Ranks there are now.

    Returns
    -------
    TrainSettings
        The run's own, with the changes, and a batch a rank that keeps its global batch.

    Raises
    ------
    InputError
        The run's settings are damaged, a change would alter what it computes, or its global batch
        cannot be shared by so many ranks.
    """
    before, ranks = read_settings(run.config)
    after = replace(before, **changes)
    if after.elastic and launched_elastically():
        # Ranks come and go all the time: a rank keeps its batch, or all of them the global one.
        _require_changeable(before, after, CHANGEABLE)
        return after
    global_batch = before.batch_size * before.accumulation * ranks
    per_step = size * replace(before, **changes).accumulation
    if global_batch % per_step:
        raise InputError(
            f"--resume: the run's global batch of {global_batch} cannot be shared by {size} "
            + ("rank" if size == 1 else "ranks")
            + (f" x {per_step // size} passes" if per_step > size else "")
        )
    own_weights = before.aggregation in ("gossip", "model-parallel")
    for what, option in (
        ("examples", "--shuffle shard" if before.shuffle == "shard" else None),
        ("weights", f"--aggregation {before.aggregation}" if own_weights else None),
    ):
        if option and size != ranks:
            raise InputError(
                f"--resume: with {option} each of {ranks} ranks has {what} of its own, so the "
                f"run cannot go on with {size}"
            )
    batch = global_batch // per_step
    after = replace(before, **{"batch_size": batch, **changes})
    if after.batch_size != batch:
        raise InputError(
            f"--batch-size: the run's global batch of {global_batch} is {batch} on each of {size} "
            f"ranks, got {after.batch_size}"
        )
    _require_changeable(before, after, CHANGEABLE | {"batch_size", "accumulation"})
    return after


def _require_changeable(
    before: TrainSettings, after: TrainSettings, changeable: Collection[str]
) -> None:
    """Raise InputError if other settings differ than those which a resumed run may change."""
    for name in after.differences(before):
        if name not in changeable:
            raise InputError(
                f"--{name.replace('_', '-')}: the run was made with {getattr(before, name)!r}, "
                f"which --resume cannot change to {getattr(after, name)!r}"
            )
