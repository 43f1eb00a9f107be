"""Ranks on Ray and Spark, which start a cluster of their own on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shutil
import signal
from pathlib import Path

import pytest

from tests.jobs import BIN, TIMEOUT, living, read_until, run, send, start, train_flags

pytestmark = pytest.mark.mpi


def _misses(module: str, java: bool = False) -> bool:
    no_java = java and not ("JAVA_HOME" in os.environ or shutil.which("java"))
    return importlib.util.find_spec(module) is None or no_java


EXECUTORS = [
    pytest.param("ray", marks=pytest.mark.skipif(_misses("ray"), reason="no Ray")),
    pytest.param(
        "spark",
        marks=pytest.mark.skipif(_misses("pyspark", java=True), reason="no pyspark or no Java"),
    ),
]


def command(executor: str, data: Path, out: Path, *more: str) -> list[str | Path]:
    flags = train_flags(data, out, *more)[2:]
    return [BIN / "tal1-hvd", "train", "--launcher", executor, "--ranks", "2", *flags]


def processes(out: Path) -> list[int]:
    return [rank["process"] for rank in json.loads((out / "manifest.json").read_text())["ranks"]]


@pytest.fixture(scope="module")
def on_mpi(small_data: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("on_mpi") / "run"
    flags = train_flags(small_data, out, "--epochs", "30")[2:]
    job = run([BIN / "tal1-hvd", "train", "--ranks", "2", *flags])
    assert job.returncode == 0, job.stderr
    return out


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_same_run_as_with_mpirun(
    executor: str, small_data: Path, on_mpi: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job = run(command(executor, small_data, out, "--epochs", "30"))
    assert job.returncode == 0, job.stderr
    assert f"starting 2 ranks on {executor.capitalize()}" in job.stderr
    assert job.stderr.count("epoch 30/30") == 1
    assert job.stdout.count("test accuracy") == 1
    assert (out / "predictions.tsv").read_bytes() == (on_mpi / "predictions.tsv").read_bytes()
    assert {path.name for path in out.iterdir()} == {path.name for path in on_mpi.iterdir()}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_killed_rank_ends_the_job_which_goes_on(
    executor: str, small_data: Path, on_mpi: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job = start(command(executor, small_data, out, "--epochs", "30"))
    read_until(job, "epoch 1/")
    send(processes(out)[1], signal.SIGKILL)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 1
    go_on = f"tal1-hvd train --out {out} --resume --ranks 2 --launcher {executor}"
    # Of the killed rank, or of the other, which misses it, if that is seen first.
    codes = [f"the job ended with exit code {code}; go on with: {go_on}\n" for code in (1, 137)]
    assert any(line in errors for line in codes)
    resumed = run([BIN / "tal1-hvd", *go_on.split()[1:]])
    assert resumed.returncode == 0, resumed.stderr
    assert (out / "predictions.tsv").read_bytes() == (on_mpi / "predictions.tsv").read_bytes()


@pytest.mark.parametrize(
    ("executor", "number", "code"),
    [
        *(pytest.param(*one.values, signal.SIGTERM, 75, marks=one.marks) for one in EXECUTORS),
        pytest.param(*EXECUTORS[0].values, signal.SIGINT, 130, marks=EXECUTORS[0].marks),
    ],
)
def test_a_signal_leads_to_a_checkpoint(
    executor: str, number: signal.Signals, code: int, small_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job = start(command(executor, small_data, out, "--epochs", "100000"))
    read_until(job, "epoch 2/")
    ranks = processes(out)
    job.send_signal(number)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == code
    assert "checkpoint" in errors
    assert f"--resume --ranks 2 --launcher {executor}" in errors
    assert not [path for path in out.iterdir() if path.name.startswith(".ranks")]
    assert not living(ranks)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_stopped_before_ranks_have_connected(
    executor: str, small_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job = start(command(executor, small_data, out))
    read_until(job, "starting 2 ranks")
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 75, errors
    assert "stopped by a signal before the ranks had connected" in errors
    assert f"--resume --ranks 2 --launcher {executor}" in errors
    assert {path.name for path in out.iterdir()} == {".lock", "config.yaml"}


@pytest.mark.parametrize("executor", EXECUTORS[:1])
@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"RAY_ADDRESS": "127.0.0.1:1"}, "RAY_ADDRESS: no cluster answers at 127.0.0.1:1"),
        # A cluster of this machine alone that says it has GPUs.
        ({"RAY_OVERRIDE_RESOURCES": '{"GPU": 2}'}, "TensorFlow sees no GPU, but CUDA_VISIBLE_"),
        ({"RAY_OVERRIDE_RESOURCES": '{"GPU": 1}'}, "more than the 1 GPUs of the Ray cluster"),
    ],
    ids=["no cluster", "GPUs without a driver", "too few GPUs"],
)
def test_clusters_that_cannot_train(
    executor: str,
    environment: dict[str, str],
    text: str,
    small_data: Path,
    tmp_path: Path,
    monkeypatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    job = run(command(executor, small_data, tmp_path / "run"))
    assert job.returncode == 2, job.stderr
    starting, error = job.stderr.splitlines()
    assert starting == "tal1-hvd: starting 2 ranks on Ray"
    assert text in error


@pytest.mark.parametrize("executor", EXECUTORS[1:])
def test_no_spark_master(executor: str, small_data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MASTER", "spark://127.0.0.1:1")
    job = run(command(executor, small_data, tmp_path / "run"))
    assert job.returncode == 2, job.stderr
    assert job.stderr.startswith(
        "tal1-hvd: starting 2 ranks on Spark\n"
        "tal1-hvd: error: MASTER: no cluster answers at 127.0.0.1:1: "
    )
    assert job.stderr.count("\n") == 2


@pytest.mark.parametrize("executor", EXECUTORS)
def test_ranks_end_with_the_command(executor: str, small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = start(command(executor, small_data, out, "--epochs", "100000"))
    read_until(job, "epoch 2/")
    ranks = [os.pidfd_open(process) for process in processes(out)]
    job.kill()
    job.communicate(timeout=TIMEOUT)
    for rank in ranks:
        assert select.select([rank], [], [], 60)[0], "a rank trains on"
        os.close(rank)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_ranks_refuse_is_one_line(executor: str, small_data: Path, tmp_path: Path) -> None:
    flags = ("--batch-size", "300")
    job = run(command(executor, small_data, tmp_path / "run", *flags))
    assert job.returncode == 2
    assert len(job.stderr.splitlines()) == 1
    assert "more than a rank's 280 of 560 training examples" in job.stderr
    assert not list(tmp_path.iterdir())
