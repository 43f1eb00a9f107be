"""Training under tf.distribute, as users start it: the same as on one rank."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import yaml

from tal1_hvd.training.checkpoint import load_checkpoint
from tal1_hvd.training.run_folder import RunFolder
from tests.commands import MODULE, start
from tests.jobs import PROGRAMS
from tests.sessions import history, state

# Each starts TensorFlow anew.
pytestmark = pytest.mark.slow

GLOBAL_BATCH = 48
FLAGS = ["--epochs", 2, "--precision", "float64", "--learning-rate", 0.005, "--threads", 1]
RANKS = {"mirrored": 3, "multiworker": 2}


def train(out, data, size, *flags):
    """Train on so many ranks that share the global batch; return the run and what it said."""
    batch = ["--batch-size", GLOBAL_BATCH // size]
    job = start([*MODULE, "train", "--data", data, "--out", out, *FLAGS, *batch, *flags])
    assert job.returncode == 0, job.stderr
    return RunFolder(out), job


@pytest.fixture(scope="module")
def alone(learnable_data, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "alone", learnable_data, 1)[0]


@pytest.fixture(scope="module", params=RANKS)
def replicated(request, learnable_data, tmp_path_factory):
    strategy, size = request.param, RANKS[request.param]
    out = tmp_path_factory.mktemp("runs") / strategy
    flags = ["--strategy", strategy, "--ranks", size]
    return strategy, size, *train(out, learnable_data, size, *flags)


def assert_same_weights(found, expected, tolerance=1e-9):
    for name in ("last", "best"):
        ours, theirs = (load_checkpoint(getattr(folder, name)) for folder in (found, expected))
        for kind in ("model", "optimizer", "best"):
            for one, other in zip(getattr(ours, kind), getattr(theirs, kind), strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("optimizer", ["lamb", "lars"])
def test_optimizers_for_large_batches(learnable_data, tmp_path, optimizer):
    flags = ["--optimizer", optimizer, "--rate-scaling", "sqrt"]
    one, _ = train(tmp_path / "one", learnable_data, 1, *flags)
    replicas = ["--strategy", "mirrored", "--ranks", 2]
    several, _ = train(tmp_path / "several", learnable_data, 2, *flags, *replicas)
    assert_same_weights(several, one)


class TestReplicated:
    def test_as_on_one_rank(self, replicated, alone):
        _, _, folder, _ = replicated
        assert_same_weights(folder, alone)
        for row, expected in zip(history(folder), history(alone), strict=True):
            for name in ("train_loss", "train_accuracy", "validation_loss", "validation_auroc"):
                assert float(row[name]) == pytest.approx(float(expected[name]), abs=1e-9)
        ours, theirs = (run.read_metrics()["test"] for run in (folder, alone))
        assert ours["auroc"] == theirs["auroc"]

    def test_learns(self, alone):
        assert alone.read_metrics()["train"]["auroc"] > 0.6

    def test_run_says_how_it_was_made(self, replicated):
        strategy, size, folder, job = replicated
        metrics = folder.read_metrics()
        assert (metrics["strategy"], metrics["world_size"]) == (strategy, size)
        assert metrics["global_batch_size"] == GLOBAL_BATCH
        manifest = json.loads(folder.manifest.read_text())
        assert [rank["rank"] for rank in manifest["ranks"]] == list(range(size))
        processes = {rank["process"] for rank in manifest["ranks"]}
        assert len(processes) == (1 if strategy == "mirrored" else size)
        settings = yaml.safe_load(folder.config.read_text())
        assert (settings["strategy"], settings["ranks"]) == (strategy, size)
        assert f"{size} ranks ({strategy})" in job.stderr

    def test_tensorflows_notes_are_not_shown(self, replicated):
        assert all(line.startswith("tal1-hvd: ") for line in replicated[3].stderr.splitlines())

    def test_same_bits_again(self, replicated, learnable_data, tmp_path):
        strategy, size, folder, _ = replicated
        flags = ["--strategy", strategy, "--ranks", size]
        again, _ = train(tmp_path / "run", learnable_data, size, *flags)
        assert state(again) == state(folder)


def test_resumed_under_another_strategy(learnable_data, alone, tmp_path):
    out = tmp_path / "run"
    train(out, learnable_data, 2, "--strategy", "mirrored", "--ranks", 2, "--epochs", 1)
    go_on = [*MODULE, "train", "--out", out, "--resume", "--epochs", 2]
    job = start([*go_on, "--strategy", "single"])
    assert job.returncode == 0, job.stderr
    assert_same_weights(RunFolder(out), alone)


def test_resumed_on_as_many_devices(learnable_data, alone, tmp_path):
    out = tmp_path / "run"
    train(out, learnable_data, 3, "--strategy", "mirrored", "--ranks", 3, "--epochs", 1)
    job = start([*MODULE, "train", "--out", out, "--resume", "--epochs", 2])
    assert job.returncode == 0, job.stderr
    assert "3 ranks (mirrored)" in job.stderr
    assert_same_weights(RunFolder(out), alone)


def test_accumulated_passes_and_shards(learnable_data, tmp_path):
    """Each rank keeps its own part, whatever process it lives in."""
    flags = ["--shuffle", "shard", "--accumulation", 2, "--ranks", 2]
    runs = [
        train(tmp_path / strategy, learnable_data, 4, "--strategy", strategy, *flags)[0]
        for strategy in ("mirrored", "multiworker")
    ]
    assert_same_weights(*runs)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--strategy", "tpu"], ["--strategy tpu: found no TPU", "tensorflow-tpu"]),
        (["--strategy", "multiworker"], ["TF_CONFIG names no workers", "--ranks"]),
        (["--strategy", "mirrored", "--ranks", 211], ["fewer than 211 ranks"]),
        (["--strategy", "mirrored", "--compression", "fp16"], ["--compression: fp16 needs"]),
    ],
)
def test_refused(learnable_data, tmp_path, flags, words):
    out = tmp_path / "run"
    job = start([*MODULE, "train", "--data", learnable_data, "--out", out, *flags])
    assert job.returncode == 2
    (line,) = job.stderr.splitlines()
    assert all(word in line for word in words)
    assert not out.exists()


class TestTpu:
    def run(self, program, *words):
        job = start([sys.executable, PROGRAMS / program, *words])
        assert job.returncode == 0, job.stderr
        return job

    def test_gradients_by_xla_on_8_devices(self):
        assert float(self.run("xla.py").stdout) < 1e-6

    def test_whole_step_by_xla(self):
        assert float(self.run("whole_step_by_xla.py").stdout) < 1e-12

    def test_stand_in(self, learnable_data, tmp_path, alone):
        flags = ["--data", learnable_data, "--out", tmp_path / "run", *FLAGS]
        job = self.run("tpu_stand_in.py", *flags, "--batch-size", GLOBAL_BATCH // 8)
        assert "8 ranks (tpu), TPU core each" in job.stderr
        assert_same_weights(RunFolder(tmp_path / "run"), alone)
        assert RunFolder(tmp_path / "run").read_metrics()["strategy"] == "tpu"

    def test_entry_point(self):
        job = start([sys.executable, "-m", "tal1_hvd.train_tpu", "--help"])
        assert job.returncode == 0
        assert job.stdout.startswith("usage: tal1-hvd train")
