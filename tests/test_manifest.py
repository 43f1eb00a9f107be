"""Which runs are the published experiment."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.training.manifest import is_published_experiment
from tal1_hvd.training.settings import TrainSettings


def is_published(parameters=None, epochs=50, **changes):
    """Ask about a run on the default simulation, or on data made by other parameters."""
    if parameters is None:
        parameters = asdict(SimulationSettings())
    # As a manifest holds them: lists where there were tuples.
    dataset = json.loads(json.dumps({"task": "any", "parameters": parameters}))
    settings = replace(TrainSettings(), **changes)
    return is_published_experiment(settings, {"epochs": epochs}, {"dataset": dataset})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parameters": asdict(SimulationSettings(seed=7))},
        {"seed": 3, "data": "elsewhere", "threads": 2},
        {"strategy": "mirrored"},
        {"aggregation": "gossip"},
        {"precision": "float64"},
    ],
    ids=str,
)
def test_same_experiment(changes):
    assert is_published(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": asdict(SimulationSettings(task="presence"))},
        {"parameters": asdict(SimulationSettings(positives=9_999))},
        {"parameters": asdict(SimulationSettings(motifs=("TAL1_known3",)))},
        {"parameters": {"positives": "peaks.fa", "seed": 0}},
        {"parameters": {}},
        {"epochs": 49},
        {"batch_size": 128},
        {"accumulation": 2},
        {"optimizer": "lars"},
        {"learning_rate": 0.01},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_another_experiment(changes):
    assert not is_published(**changes)
