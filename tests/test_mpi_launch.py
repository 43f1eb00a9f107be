"""Ranks started in every documented way, as a user would."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tal1_hvd.training.event_log import read_events
from tests.jobs import (
    BIN,
    PROGRAMS,
    TIMEOUT,
    mpirun,
    read_until,
    run,
    send,
    start,
    train_flags,
)

pytestmark = pytest.mark.mpi

LAUNCHERS = {
    "alone": (1, lambda flags: [BIN / "python", *flags]),
    "ranks": (2, lambda flags: [BIN / "tal1-hvd", "train", "--ranks", "2", *flags[2:]]),
    "ranks-1": (1, lambda flags: [BIN / "tal1-hvd", "train", "--ranks", "1", *flags[2:]]),
    "mpirun": (2, lambda flags: [*mpirun(2), *flags]),
    "horovodrun": (4, lambda flags: [BIN / "horovodrun", "-np", "4", "python", *flags]),
    "gloo": (2, lambda flags: [BIN / "horovodrun", "--gloo", "-np", "2", "python", *flags]),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_trains_and_leaves_one_whole_run(launcher: str, small_data: Path, tmp_path: Path) -> None:
    size, command = LAUNCHERS[launcher]
    out = tmp_path / "run"
    job = run(command(train_flags(small_data, out, "--epochs", "2", "--batch-size", "16")))
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("test accuracy") == 1
    assert job.stderr.count("epoch 2/2") == 1
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["world_size"] == size
    assert metrics["global_batch_size"] == 16 * size
    assert metrics["test"]["n"] == 80
    manifest = json.loads((out / "manifest.json").read_text())
    assert [rank["rank"] for rank in manifest["ranks"]] == list(range(size))
    assert len({rank["process"] for rank in manifest["ranks"]}) == size
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        "checkpoints",
        "config.yaml",
        "history.csv",
        "manifest.json",
        "metrics.json",
        "model.keras",
        "predictions.tsv",
        "tensorboard",
        "events.jsonl",
        "logs",
    }
    assert {path.name for path in (out / "logs").iterdir()} == {
        f"rank-{rank}.log" for rank in range(size)
    }
    for rank in range(size):
        lines = (out / "logs" / f"rank-{rank}.log").read_text().splitlines()
        assert f" rank {rank}/{size} " in lines[0]
        assert lines[-1].endswith("finished: all epochs are done")
    usages = [
        event["ranks"] for event in read_events(out / "events.jsonl") if event["event"] == "ranks"
    ]
    for usage in usages:
        assert [rank["rank"] for rank in usage] == list(range(size))
        for rank in usage:
            # Who is alone waits for nobody.
            assert (0 < rank["waited"] < rank["seconds"]) == (size > 1)
    assert len(usages) == 2


@pytest.mark.parametrize("strategy", ["horovod", "multiworker"])
def test_stopped_before_ranks_have_connected(
    strategy: str, small_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = train_flags(small_data, out, "--epochs", "2", "--strategy", strategy)
    job = start([BIN / "tal1-hvd", "train", "--ranks", "2", *flags[2:]])
    read_until(job, "starting 2 ranks")
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 75, errors
    go_on = f"tal1-hvd train --out {out} --resume --ranks 2"
    assert errors.splitlines() == [
        "tal1-hvd: stopped by a signal before the ranks had connected",
        f"tal1-hvd: go on with: {go_on}",
    ]
    resumed = run([BIN / "tal1-hvd", *go_on.split()[1:]])
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 2/2" in resumed.stderr


def test_timeline(small_data: Path, tmp_path: Path) -> None:
    """By the flag, Horovod writes its timeline into the run folder."""
    flags = train_flags(small_data, tmp_path / "run", "--epochs", "1", "--timeline")
    job = run([BIN / "tal1-hvd", "train", "--ranks", "2", *flags[2:]])
    assert job.returncode == 0, job.stderr
    names = {
        event.get("name") for event in json.loads((tmp_path / "run/timeline.json").read_text())
    }
    assert "NEGOTIATE_ALLREDUCE" in names


def test_status_of_a_killed_job(small_data: Path, tmp_path: Path) -> None:
    """From outside, while ranks train, and when they are gone without a word."""
    out = tmp_path / "run"
    job = start([*mpirun(2), *train_flags(small_data, out, "--epochs", "100000")])
    read_until(job, "epoch 2/")
    status = json.loads(run([BIN / "tal1-hvd", "status", out, "--json"]).stdout)
    assert (status["state"], status["epochs"]) == ("training", 100000)
    assert status["epoch"] >= 2
    assert [rank["rank"] for rank in status["ranks"]] == [0, 1]
    send(status["session"]["process"], signal.SIGKILL)
    job.communicate(timeout=TIMEOUT)
    shown = run([BIN / "tal1-hvd", "status", out])
    assert f"{out}: killed: process {status['session']['process']} of rank 0" in shown.stdout


def test_timeline_needs_horovod(small_data: Path, tmp_path: Path) -> None:
    flags = train_flags(small_data, tmp_path / "run", "--timeline")
    job = run([BIN / "python", *flags])
    assert job.returncode == 2
    assert "error: --timeline: Horovod writes it" in job.stderr
    assert not (tmp_path / "run").exists()


def test_ranks_of_a_machine_without_ssh(small_data: Path, tmp_path: Path) -> None:
    """Open MPI looks for it even if nothing is to be started elsewhere."""
    flags = train_flags(small_data, tmp_path / "run", "--epochs", "1")
    path = f"PATH={BIN}"
    job = run(["/usr/bin/env", path, BIN / "tal1-hvd", "train", "--ranks", "2", *flags[2:]])
    assert job.returncode == 0, job.stderr


@pytest.mark.parametrize("program", ["collectives", "fit"])
@pytest.mark.parametrize("size", [2, 3])
def test_program(program: str, size: int) -> None:
    job = run([*mpirun(size), PROGRAMS / f"{program}.py"])
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("rank ") == size


def test_check_proves_the_installation() -> None:
    job = run([*mpirun(2), "-m", "tal1_hvd.distributed.check"])
    assert job.returncode == 0, job.stderr
    assert job.stdout.startswith("ok: 2-rank all-reduce, Horovod 0.28.1")


@pytest.mark.parametrize(
    ("flags", "meaning"),
    [
        (["--batch-size", "300"], "more than a rank's 280 of 560 training examples"),
        (["--data", "nowhere"], "nowhere: no such dataset folder"),
        (["--epochs", "0"], "--epochs: must be at least 1"),
    ],
)
def test_bad_input_is_one_line_from_all_ranks(
    flags: list[str], meaning: str, small_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job = run([*mpirun(2), *train_flags(small_data, out, *flags)])
    assert job.returncode == 2
    errors = [line for line in job.stderr.splitlines() if "tal1-hvd" in line]
    assert len(errors) == 1
    assert meaning in errors[0]
    assert "Traceback" not in job.stderr
    assert not list(tmp_path.iterdir())


def test_single_strategy_refuses_several_ranks(small_data: Path, tmp_path: Path) -> None:
    job = run([*mpirun(2), *train_flags(small_data, tmp_path / "run", "--strategy", "single")])
    assert job.returncode == 2
    assert "a launcher started 2 ranks" in job.stderr
