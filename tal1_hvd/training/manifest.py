"""What a run notes about where and with what it was made."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tal1_hvd._version import __version__
from tal1_hvd.data.batches import Batching
from tal1_hvd.data.dataset import Dataset
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.errors import InputError
from tal1_hvd.published import EPOCHS, is_published_data
from tal1_hvd.training.settings import TrainSettings

# Variable with the user's own command, where that has started the ranks.
COMMAND = "TAL1_HVD_COMMAND"
_PACKAGES = ("tensorflow", "keras", "horovod", "numpy", "simdna", "openmpi")


def make_manifest(
    settings: TrainSettings,
    dataset: Dataset,
    batching: Batching,
    communicator: Communicator,
    device: str,
) -> dict[str, Any]:
    """Gather what a run notes; a collective, called by all ranks.

    Returns
    -------
    dict
        versions, host, command, start (ISO 8601, UTC), world size, global batch size, each rank's
        host, process, device, instruction set of the first layer and seed, and the dataset's path,
        task, parameters and fingerprint.
    """
    # Imports TensorFlow, which runs by now.
    from tal1_hvd.models.compiled import instruction_set

    own = [
        {
            "rank": communicator.rank + replica,
            "host": platform.node(),
            "process": os.getpid(),
            "device": device,
            "first_layer": instruction_set(),
            # Every draw is keyed by seed, epoch and example, so ranks share the seed.
            "seed": settings.seed,
        }
        for replica in range(communicator.replicas)
    ]
    return {
        "tool_version": __version__,
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "command": json.loads(os.environ.get(COMMAND, "null")) or sys.argv,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "strategy": communicator.name,
        "world_size": communicator.size,
        "global_batch_size": batching.global_batch,
        "ranks": [rank for process in communicator.all_gather_json(own) for rank in process],
        "dataset": {
            "path": str(dataset.path.resolve()),
            "task": dataset.description["task"],
            "parameters": dataset.description["parameters"],
            "fingerprint": dataset.fingerprint,
        },
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a run's manifest.

    Raises
    ------
    InputError
        It is missing or damaged.
    """
    try:
        manifest = json.loads(path.read_text())
        path_noted, fingerprint = (manifest["dataset"][key] for key in ("path", "fingerprint"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a run's manifest: {error!r}") from None
    if not isinstance(path_noted, str) or not isinstance(fingerprint, str):
        raise InputError(f"{path}: not a run's manifest: it names no dataset")
    return manifest


def is_published_experiment(
    settings: TrainSettings, metrics: Mapping[str, Any], manifest: Mapping[str, Any]
) -> bool:
    """Say whether a run is the published experiment, whatever its seed and number of ranks.

    Parameters
    ----------
    settings : TrainSettings
    metrics, manifest : dict
        What `metrics.json` and `manifest.json` hold.
    """
    # Of the learning rate the publication says nothing more.
    other = {"model", "batch_size", "accumulation", "optimizer", "learning_rate"}
    same_training = not other & set(settings.differences(TrainSettings()))
    return same_training and metrics["epochs"] == EPOCHS and is_published_data(manifest)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            # The CPU build of TensorFlow is a package of another name.
            continue
    if "tensorflow" not in found:
        import tensorflow as tf

        found["tensorflow"] = tf.__version__
    return found
