"""What a run will do, worked out and checked before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tal1_hvd.data.batches import Batching
from tal1_hvd.data.dataset import Dataset
from tal1_hvd.data.files import exists
from tal1_hvd.errors import InputError
from tal1_hvd.models.registry import require_length
from tal1_hvd.training.manifest import read_manifest
from tal1_hvd.training.settings import CHANGEABLE, TrainSettings


def plan_batches(settings: TrainSettings, dataset: Dataset, rank: int, size: int) -> Batching:
    """Deal the training rows to ranks and steps.

    Parameters
    ----------
    settings : TrainSettings
    dataset : Dataset
    rank, size : int

    Returns
    -------
    Batching

    Raises
    ------
    InputError
        The dataset has no training or validation rows, or too few for so many ranks or so large a
        batch.
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
    share = examples // size
    if settings.batch_size * settings.accumulation > share:
        raise InputError(
            f"--batch-size: {settings.batch_size} x {settings.accumulation} passes is more than "
            f"a rank's {share} of {examples} training examples"
        )
    return Batching(
        examples=examples,
        rank=rank,
        size=size,
        batch=settings.batch_size,
        accumulation=settings.accumulation,
        shuffle=settings.shuffle,
        seed=settings.seed,
    )


def plan_resume(
    run: Path, changes: dict[str, Any], size: int
) -> tuple[TrainSettings, dict[str, Any]]:
    """Work out the settings with which a run goes on.

    Parameters
    ----------
    run : Path
        The run folder.
    changes : dict
        Settings that the user gave anew.
    size : int
        Ranks there are now.

    Returns
    -------
    settings : TrainSettings
        The run's own, with the changes, and a batch a rank that keeps its global batch.
    manifest : dict
        What the run noted when it started.

    Raises
    ------
    InputError
        There is no run, a change would alter what it computes, or its global batch cannot be
        shared by so many ranks.
    """
    if not exists(run / "config.yaml"):
        raise InputError(
            f"{run}: no run to resume here (it has no config.yaml); to start one, give --data, or "
            "leave --resume out"
        )
    before = TrainSettings.from_yaml(run / "config.yaml")
    manifest = read_manifest(run / "manifest.json")
    global_batch = manifest["global_batch_size"]
    per_step = size * replace(before, **changes).accumulation
    if global_batch % per_step:
        raise InputError(
            f"--resume: the run's global batch of {global_batch} cannot be shared by {size} "
            + ("rank" if size == 1 else "ranks")
            + (f" x {per_step // size} passes" if per_step > size else "")
        )
    if before.shuffle == "shard" and size != manifest.get("world_size"):
        raise InputError(
            f"--resume: with --shuffle shard each of {manifest.get('world_size')} ranks has "
            f"examples of its own, so the run cannot go on with {size}"
        )
    batch = global_batch // per_step
    after = replace(before, **{"batch_size": batch, **changes})
    if after.batch_size != batch:
        raise InputError(
            f"--batch-size: the run's global batch of {global_batch} is {batch} on each of {size} "
            f"ranks, got {after.batch_size}"
        )
    fixed = [
        name
        for name in after.differences(before)
        if name not in CHANGEABLE | {"batch_size", "accumulation"}
    ]
    if fixed:
        name = fixed[0]
        raise InputError(
            f"--{name.replace('_', '-')}: the run was made with {getattr(before, name)!r}, which "
            f"--resume cannot change to {getattr(after, name)!r}"
        )
    return after, manifest
