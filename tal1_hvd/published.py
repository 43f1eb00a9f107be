"""The published experiment that this package reproduces: density localisation, 50 epochs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from tal1_hvd.simulation.settings import SimulationSettings


class PublishedResult(NamedTuple):
    """A column of the published tables.

    Attributes
    ----------
    name : str
    train_seconds : float
    accuracy, loss, auroc, auprc : float
        Fractions; loss in nats.
    """

    name: str
    train_seconds: float
    accuracy: float
    loss: float
    auroc: float
    auprc: float


FILTERS = 15
# In bp; the pooling in positions of the convolution's output.
FILTER_WIDTH = 10
POOL_WIDTH = 35
SHORTEST_INPUT = FILTER_WIDTH + POOL_WIDTH - 1
EPOCHS = 50
PUBLISHED = (
    PublishedResult("1 GPU", 133.15, 0.9382, 0.1680, 0.98, 0.98),
    PublishedResult("2 GPUs", 99.34, 0.9454, 0.1392, 0.98, 0.98),
    PublishedResult("4 GPUs", 58.04, 0.9592, 0.1036, 0.991, 0.98),
    PublishedResult("TPU", 56.97, 0.9532, 0.1191, 0.987, 0.986),
)
# On the way there, accuracy of the validation split is compared with the best of the test split.
TARGET_ACCURACY = max(result.accuracy for result in PUBLISHED)


def is_published_data(manifest: Mapping[str, Any]) -> bool:
    """Say whether a run's data is that of the publication, whatever the seed.

    Parameters
    ----------
    manifest : dict
        What `manifest.json` holds.
    """
    default = json.loads(json.dumps(asdict(SimulationSettings())))
    return {**manifest["dataset"]["parameters"], "seed": default["seed"]} == default
