"""The image and the cluster of containers, where an engine runs and the image is built.

docker build -f docker/Dockerfile -t tal1-hvd .
launch/test tests/test_containers.py
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.jobs import BIN, TIMEOUT, run

FILE = Path(__file__).parents[1] / "docker" / "docker-compose.yml"
COMPOSE = ["docker", "compose", "-f", str(FILE), "-p", "tal1-test"]
UP = ["up", "--no-build", "--scale", "worker=3"]


def _has_image() -> bool:
    try:
        found = subprocess.run(
            ["docker", "image", "inspect", "tal1-hvd"], capture_output=True, timeout=60, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0


pytestmark = [
    pytest.mark.mpi,
    pytest.mark.slow,
    pytest.mark.skipif(not _has_image(), reason="no container engine that has the image tal1-hvd"),
]


@pytest.fixture
def runs(small_data: Path, tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """Return the folder of a cluster's runs; nothing is left of the cluster afterwards."""
    folder = tmp_path / "runs"
    folder.mkdir()
    # For the image's user, whoever runs the tests.
    folder.chmod(0o777)
    monkeypatch.setenv("TAL1_HVD_RUNS", str(folder))
    monkeypatch.setenv("TAL1_HVD_DATA", str(small_data))
    yield folder
    subprocess.run([*COMPOSE, "down", "-v"], capture_output=True, check=True, timeout=TIMEOUT)


@contextmanager
def _training(begun: str = "epoch 5/") -> Iterator[Iterator[str]]:
    """Start a cluster; yield what its launcher says from some words on."""
    started = run([*COMPOSE, *UP, "-d"])
    assert started.returncode == 0, started.stderr
    with subprocess.Popen(
        [*COMPOSE, "logs", "-f", "launcher"], stdout=subprocess.PIPE, text=True
    ) as logs:
        assert logs.stdout is not None
        assert any(begun in line for line in logs.stdout)
        yield logs.stdout
        logs.terminate()


def _exit_code() -> int:
    """Wait for the launcher to end."""
    waited = run(["docker", "wait", "tal1-test-launcher-1"])
    assert waited.returncode == 0, waited.stderr
    return int(waited.stdout)


def test_explains_itself() -> None:
    shown = run(["docker", "run", "--rm", "--network", "none", "tal1-hvd"])
    assert shown.returncode == 0, shown.stderr
    assert "Mount a folder for results at /runs" in shown.stdout
    assert "usage: tal1-hvd COMMAND" in shown.stdout


def test_the_same_run_as_on_one_machine(
    runs: Path, small_data: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("TRAIN", "--data /data --epochs 5")
    cluster = run([*COMPOSE, *UP, "--exit-code-from", "launcher"])
    assert cluster.returncode == 0, cluster.stdout + cluster.stderr
    out = tmp_path / "here"
    here = ["--ranks", "3", "--data", small_data, "--epochs", "5", "--out", out]
    assert run([BIN / "tal1-hvd", "train", *here]).returncode == 0
    there = runs / "cluster"
    ranks = json.loads((there / "manifest.json").read_text())["ranks"]
    assert len({rank["host"] for rank in ranks}) == 3
    assert (there / "predictions.tsv").read_bytes() == (out / "predictions.tsv").read_bytes()


def test_a_worker_is_lost(runs: Path, small_data: Path, tmp_path: Path, monkeypatch) -> None:
    """One of three elastic ranks is killed: every example of its epoch is seen exactly once."""
    exact = ["--precision", "float64", "--epochs", "600"]
    elastic = ["--elastic", "--fixed-global-batch", "--data", "/data", *exact]
    monkeypatch.setenv("TRAIN", " ".join(elastic))
    with _training() as lines:
        killed = run(["docker", "kill", "tal1-test-worker-2"])
        assert killed.returncode == 0, killed.stderr
        assert any("2 ranks now, going on after epoch" in line for line in lines)
    assert _exit_code() == 0
    out = tmp_path / "alone"
    alone = ["--ranks", "1", "--data", small_data, "--batch-size", "192", "--out", out, *exact]
    assert run([BIN / "tal1-hvd", "train", *alone]).returncode == 0
    with (
        np.load(runs / "cluster" / "checkpoints" / "last.npz") as ours,
        np.load(out / "checkpoints" / "last.npz") as theirs,
    ):
        for name in theirs.files:
            if name.startswith("model/"):
                np.testing.assert_allclose(ours[name], theirs[name], atol=1e-9, rtol=0)


def test_a_worker_joins(runs: Path, monkeypatch) -> None:
    monkeypatch.setenv("TRAIN", "--elastic --data /data --epochs 2000")
    with _training() as lines:
        more = run([*COMPOSE, "up", "--no-build", "-d", "--scale", "worker=4"])
        assert more.returncode == 0, more.stderr
        assert any("4 ranks now, going on after epoch" in line for line in lines)
    stopped = run(["docker", "stop", "-t", "60", "tal1-test-launcher-1"])
    assert stopped.returncode == 0, stopped.stderr
    assert _exit_code() == 75


@pytest.mark.parametrize(
    "stop",
    [["docker", "stop", "-t", "60", "tal1-test-worker-2"], [*COMPOSE, "stop"]],
    ids=["one worker", "all"],
)
def test_stopped_in_good_order(stop: list[str], runs: Path, monkeypatch) -> None:
    """As when a node is drained: all ranks keep what they have."""
    monkeypatch.setenv("TRAIN", "--data /data --epochs 100000")
    with _training() as lines:
        stopped = run(stop)
        assert stopped.returncode == 0, stopped.stderr
        assert any("stopped by a signal after epoch" in line for line in lines)
    assert _exit_code() == 75
    assert (runs / "cluster" / "checkpoints" / "last.npz").exists()


@pytest.mark.parametrize("options", ["", "--elastic"])
def test_stopped_as_it_starts(options: str, runs: Path, monkeypatch) -> None:
    """Before there is a rank that could hear of it."""
    monkeypatch.setenv("TRAIN", f"{options} --data /data --epochs 100000")
    with _training("3 workers, 1 ranks each"):
        stopped = run(["docker", "stop", "-t", "60", "tal1-test-launcher-1"])
        assert stopped.returncode == 0, stopped.stderr
    assert _exit_code() == 75
