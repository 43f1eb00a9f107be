"""What several test files share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.simulation.simulate import simulate


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests with several ranks where Horovod is not installed."""
    if importlib.util.find_spec("horovod") is None:
        skip = pytest.mark.skip(reason="Horovod is not installed; launch/setup builds it")
        for item in items:
            if "mpi" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of 800 sequences of 150 bp: 560 train, 160 validation, 80 test."""
    settings = SimulationSettings(length=150, center=100, positives=400, negatives=400, seed=3)
    return simulate(settings, tmp_path_factory.mktemp("data") / "small")
