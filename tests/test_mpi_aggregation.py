"""Parameter server, gossip and model parallelism on real ranks."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from tal1_hvd.training.run_folder import RunFolder
from tests.jobs import BIN, PROGRAMS, mpirun, run, train_flags
from tests.sessions import history, state

pytestmark = pytest.mark.mpi

GLOBAL_BATCH = 64
# Kernel, bias, dense kernel and its bias at 150 bp.
PAYLOAD = 8 * (10 * 4 * 15 + 15 + 60 + 1)


def train(data: Path, out: Path, size: int, *more: str) -> RunFolder:
    batch = ("--batch-size", str(GLOBAL_BATCH // size), "--precision", "float64")
    job = run([*mpirun(size), *train_flags(data, out, *batch, *more)])
    assert job.returncode == 0, job.stderr
    return RunFolder(out)


def variables(folder: RunFolder) -> dict[str, np.ndarray]:
    with np.load(folder.last) as archive:
        return {name: archive[name] for name in archive.files if name != "note"}


def test_synchronous_server_is_one_rank(small_data: Path, tmp_path: Path) -> None:
    size = 4
    one = train(small_data, tmp_path / "one", 1, "--epochs", "1")
    flags = ("--epochs", "1", "--aggregation", "parameter-server")
    several = train(small_data, tmp_path / "several", size, *flags)
    for name, array in variables(one).items():
        np.testing.assert_allclose(variables(several)[name], array, rtol=0, atol=1e-9)
    metrics = several.read_metrics()
    assert metrics["aggregation"] == "parameter-server"
    # Gradients to rank 0, and weights back.
    assert metrics["bytes_per_step"] == 2 * (size - 1) * PAYLOAD


@pytest.mark.parametrize("size", [2, 4])
def test_split_model_is_one_rank(small_data: Path, tmp_path: Path, size: int) -> None:
    one = train(small_data, tmp_path / "one", 1, "--epochs", "1")
    flags = ("--epochs", "1", "--aggregation", "model-parallel")
    several = train(small_data, tmp_path / "several", size, *flags)
    found = variables(several)
    for name, array in variables(one).items():
        if not name.startswith("optimizer"):
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-9, err_msg=name)
    metrics = several.read_metrics()
    assert metrics["global_batch_size"] == GLOBAL_BATCH
    # A logit of 8 bytes of each example goes round the ring.
    assert metrics["bytes_per_step"] == 2 * (size - 1) * 8 * GLOBAL_BATCH
    ours, theirs = ({**history(folder)[0]} for folder in (several, one))
    for column in ("train_loss", "train_accuracy"):
        assert float(ours[column]) == pytest.approx(float(theirs[column]), abs=1e-12)


@pytest.mark.parametrize(("aggregation", "size"), [("model-parallel", 2), ("gossip", 3)])
def test_resumed_as_if_never_stopped(
    small_data: Path, tmp_path: Path, aggregation: str, size: int
) -> None:
    flags = ("--aggregation", aggregation)
    whole = train(small_data, tmp_path / "whole", size, "--epochs", "3", *flags)
    parts = train(small_data, tmp_path / "parts", size, "--epochs", "1", *flags)
    resume = ["-m", "tal1_hvd.train", "--out", parts.path, "--resume", "--epochs", "3"]
    job = run([*mpirun(size), *resume])
    assert job.returncode == 0, job.stderr
    assert state(parts) == state(whole)


def test_gossip_keeps_its_ranks(small_data: Path, tmp_path: Path) -> None:
    folder = train(small_data, tmp_path / "run", 2, "--epochs", "1", "--aggregation", "gossip")
    metrics = folder.read_metrics()
    assert metrics["bytes_per_step"] == 2 * PAYLOAD
    (row,) = history(folder)
    assert 0 < float(row["consensus_distance"]) < 1
    job = run([*mpirun(1), "-m", "tal1_hvd.train", "--out", folder.path, "--resume"])
    assert job.returncode == 2
    assert "with --aggregation gossip each of 2 ranks has weights of its own" in job.stderr


@pytest.mark.parametrize(
    ("size", "weights"),
    [
        # x <- W x - g, twice from 0: once W (-g) - g. Two ranks average with each other...
        (2, [-1.5 - 1, -1.5 - 2]),
        # ...and of four, each with its two neighbours on the ring.
        (4, [-7 / 3 - 1, -2 - 2, -3 - 3, -8 / 3 - 4]),
    ],
)
def test_gossip_by_hand(size: int, weights: list[float]) -> None:
    job = run([*mpirun(size), PROGRAMS / "gossip_steps.py"])
    assert job.returncode == 0, job.stderr
    text, sent = job.stdout.strip().rsplit(" ", 1)
    found = np.array(ast.literal_eval(text))
    np.testing.assert_allclose(found[:, 0], weights, rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], np.std(weights), rtol=1e-12)
    np.testing.assert_allclose(found[:, 2], np.mean(weights), rtol=1e-12)
    # A number of 8 bytes to each neighbour, of which two ranks have one.
    assert float(sent) == 8 * size * (1 if size == 2 else 2)


class TestAsynchronousServer:
    def test_no_rank_is_further_ahead_than_it_may_be(self) -> None:
        job = run([*mpirun(2), PROGRAMS / "staleness.py"])
        assert job.returncode == 0, job.stderr
        # The third answer waited for rank 1's gradient of 100.
        assert json.loads(job.stdout) == [-1, -2, -103]

    def test_every_gradient_is_applied(self, small_data: Path, tmp_path: Path) -> None:
        flags = ("--aggregation", "parameter-server", "--staleness", "3")
        folder = train(small_data, tmp_path / "run", 2, "--epochs", "2", *flags)
        metrics = folder.read_metrics()
        steps = -(-560 // GLOBAL_BATCH)
        # Each of 2 ranks makes an update of each of its steps.
        assert variables(folder)["optimizer/1"] == 2 * 2 * steps
        assert metrics["bytes_per_step"] == 2 * PAYLOAD
        losses = [float(row["validation_loss"]) for row in history(folder)]
        assert losses[1] < losses[0]


def test_gloo_is_refused(small_data: Path, tmp_path: Path) -> None:
    gloo = [BIN / "horovodrun", "--gloo", "-np", "2", "python"]
    flags = train_flags(small_data, tmp_path / "run", "--aggregation", "gossip")
    job = run([*gloo, *flags])
    assert job.returncode != 0
    assert "--aggregation gossip: needs MPI; start the ranks by mpirun" in job.stderr
