"""Killed, stopped and failing ranks: the job ends with a word, and goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tal1_hvd.training.checkpoint import load_checkpoint
from tests.jobs import (
    BIN,
    PROGRAMS,
    TIMEOUT,
    living,
    mpirun,
    read_until,
    run,
    send,
    start,
    train_flags,
)

pytestmark = pytest.mark.mpi

EPOCHS = "60"
LONG = "2000"
LAUNCHERS = [mpirun(2), [BIN / "horovodrun", "--gloo", "-np", "2", BIN / "python"]]


def processes(run_folder: Path) -> list[int]:
    manifest = json.loads((run_folder / "manifest.json").read_text())
    return [rank["process"] for rank in manifest["ranks"]]


def assert_same_outcome(one: Path, other: Path) -> None:
    assert (one / "predictions.tsv").read_bytes() == (other / "predictions.tsv").read_bytes()
    for name in ("last.npz", "best.npz"):
        with (
            np.load(one / "checkpoints" / name) as a,
            np.load(other / "checkpoints" / name) as b,
        ):
            assert all(np.array_equal(a[key], b[key]) for key in a.files if key != "note")

    def history(folder: Path) -> list[list[str]]:
        lines = (folder / "history.csv").read_text().splitlines()
        return [line.split(",")[:-2] for line in lines]  # the last two are speed

    assert history(one) == history(other)


@pytest.fixture(scope="module")
def unbroken(small_data: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    job = run([*mpirun(2), *train_flags(small_data, out, "--epochs", EPOCHS)])
    assert job.returncode == 0, job.stderr
    return out


@pytest.mark.parametrize(("rank", "moment"), [(1, "epoch 3/"), (0, "epoch 7/")])
def test_killed_and_resumed_is_as_if_never_stopped(
    rank: int, moment: str, small_data: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = train_flags(small_data, out, "--epochs", EPOCHS)[2:]
    job = start([*mpirun(2), PROGRAMS / "every_epoch.py", *flags])
    read_until(job, moment)
    send(processes(out)[rank], signal.SIGKILL)
    job.communicate(timeout=TIMEOUT)
    assert job.returncode != 0
    assert 0 < load_checkpoint(out / "checkpoints" / "last.npz").progress.epoch < int(EPOCHS)
    assert not (out / "metrics.json").exists()
    command = [BIN / "tal1-hvd", "train", "--ranks", "2", "--out", out, "--resume"]
    resumed = run(command)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_outcome(out, unbroken)
    again = run(command)
    assert again.returncode == 0
    assert "already finished" in again.stderr


def test_killed_before_its_first_checkpoint(
    small_data: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [BIN / "tal1-hvd", "train", "--ranks", "2"]
    job = start([*command, *train_flags(small_data, out, "--epochs", EPOCHS)[2:]])
    read_until(job, "training paper")
    send(processes(out)[0], signal.SIGKILL)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 1
    assert f"go on with: tal1-hvd train --out {out} --resume --ranks 2" in errors
    resumed = run([*command, "--out", out, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert_same_outcome(out, unbroken)


@pytest.mark.parametrize(
    ("launcher", "rank", "ranks"),
    [
        (LAUNCHERS[0], "0", "2"),
        (LAUNCHERS[0], "1", "1"),
        (LAUNCHERS[1], "0", "1"),
        (LAUNCHERS[1], "1", "2"),
    ],
    ids=["mpirun-0", "mpirun-1", "gloo-0", "gloo-1"],
)
def test_killed_before_ranks_meet(
    launcher, rank: str, ranks: str, small_data: Path, unbroken: Path, tmp_path: Path
) -> None:
    """The run has its settings, and how many ranks shared its global batch, from the beginning."""
    out = tmp_path / "run"
    flags = train_flags(small_data, out, "--epochs", EPOCHS)[2:]
    killed = run([*launcher, PROGRAMS / "killed.py", rank, "connecting", *flags])
    assert killed.returncode != 0
    assert [path.name for path in out.iterdir()] == ["config.yaml"]
    command = [BIN / "tal1-hvd", "train", "--out", out, "--resume", "--ranks", ranks]
    resumed = run(command)
    assert resumed.returncode == 0, resumed.stderr
    if ranks == "2":
        assert_same_outcome(out, unbroken)
    else:
        found, expected = (json.loads((f / "metrics.json").read_text()) for f in (out, unbroken))
        assert found["global_batch_size"] == expected["global_batch_size"]


def test_killed_before_it_could_begin(tmp_path: Path, monkeypatch) -> None:
    """Without a word about the data, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train = ["-m", "tal1_hvd.train", "--epochs", "1", "--out"]
    unbroken = run([*mpirun(2), *train, tmp_path / "unbroken"])
    assert unbroken.returncode == 0, unbroken.stderr
    for number, launcher in enumerate(LAUNCHERS):
        out = tmp_path / f"run{number}"
        killed = run([*launcher, PROGRAMS / "killed.py", "0", "born", *train[2:], out])
        assert killed.returncode != 0
        assert not out.exists()
        resumed = run([*launcher, *train, out, "--resume"])
        assert resumed.returncode == 0, resumed.stderr
        assert f"{out}: no run to go on with yet; starting it" in resumed.stderr
        assert_same_outcome(out, tmp_path / "unbroken")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("strategy", ["horovod", "multiworker"])
def test_stopped_by_a_scheduler(
    strategy: str, number: signal.Signals, small_data: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [BIN / "tal1-hvd", "train", "--ranks", "2"]
    flags = train_flags(small_data, out, "--epochs", EPOCHS, "--strategy", strategy)[2:]
    job = start([*command, *flags])
    read_until(job, "epoch 2/")
    send(job.pid, number)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 75, errors
    assert "stopped by a signal after epoch" in errors
    assert f"tal1-hvd: go on with: tal1-hvd train --out {out} --resume --ranks 2" in errors
    assert 2 <= load_checkpoint(out / "checkpoints" / "last.npz").progress.epoch < int(EPOCHS)
    resumed = run([*command, "--out", out, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    if strategy == "horovod":
        assert_same_outcome(out, unbroken)


def test_signal_to_mpirun_reaches_the_ranks(
    small_data: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job = start([*mpirun(2), *train_flags(small_data, out, "--epochs", EPOCHS)])
    read_until(job, "epoch 3/")
    send(job.pid, signal.SIGUSR1)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 75, errors
    assert f"go on with: tal1-hvd train --out {out} --resume --ranks 2\n" in errors
    resumed = run([*mpirun(2), *train_flags(small_data, out)[:2], "--out", out, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert_same_outcome(out, unbroken)


def test_interrupted_job_says_how_to_go_on(
    small_data: Path, unbroken: Path, tmp_path: Path
) -> None:
    """By Ctrl-C, which a terminal sends to all that was started from it."""
    out = tmp_path / "run"
    command = [BIN / "tal1-hvd", "train", "--ranks", "2"]
    flags = train_flags(small_data, out, "--epochs", EPOCHS)[2:]
    job = start([*command, *flags], start_new_session=True)
    read_until(job, "epoch 2/")
    ranks = processes(out)
    os.killpg(job.pid, signal.SIGINT)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 130, errors
    assert f"interrupted; go on with: tal1-hvd train --out {out} --resume --ranks 2\n" in errors
    assert not living(ranks)
    status = run([BIN / "tal1-hvd", "status", out])
    assert f"{out}: stopped" in status.stdout
    resumed = run([*command, "--out", out, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert_same_outcome(out, unbroken)


def test_ranks_end_with_a_launcher_that_is_killed(small_data: Path, tmp_path: Path) -> None:
    flags = train_flags(small_data, tmp_path / "run", "--epochs", "100000")[2:]
    job = start([BIN / "tal1-hvd", "train", "--ranks", "2", *flags])
    read_until(job, "starting 2 ranks")
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    while not (mpirun := [int(child) for child in children.read_text().split()]):
        assert job.poll() is None
    send(job.pid, signal.SIGKILL)
    job.wait()
    until = time.monotonic() + 30
    while living(mpirun):
        assert time.monotonic() < until
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_half_written_checkpoint_is_never_picked_up(small_data: Path, tmp_path: Path) -> None:
    flags = train_flags(small_data, tmp_path / "run", "--epochs", "6", "--batch-size", "32")
    killed = run([BIN / "python", PROGRAMS / "killed_writing.py", *flags[2:]])
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "run" / "checkpoints").glob(".*.tmp"))
    resume = ["-m", "tal1_hvd.train", "--out", tmp_path / "run", "--resume"]
    resumed = run([BIN / "python", *resume])
    assert resumed.returncode == 0, resumed.stderr
    assert not list((tmp_path / "run" / "checkpoints").glob(".*.tmp"))
    whole = tmp_path / "whole"
    flags = train_flags(small_data, whole, "--epochs", "6", "--batch-size", "32")
    assert run([BIN / "python", *flags]).returncode == 0
    assert_same_outcome(tmp_path / "run", whole)


def test_data_that_is_cut_short_in_training(small_data: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(small_data, data)
    job = start([*mpirun(2), *train_flags(data, out, "--epochs", "100000")])
    read_until(job, "epoch 5/")
    with (data / "sequences.npy").open("r+b") as handle:
        # In its last page: what is mapped can still be read, so this always ends in good order.
        handle.truncate(handle.seek(0, 2) - 1)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 2, errors
    assert f"{data}/sequences.npy: was cut short after it was opened" in errors


def test_data_that_changes_in_training(small_data: Path, tmp_path: Path) -> None:
    """A bit of a base flips: nothing is written as a result."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(small_data, data)
    job = start([*mpirun(2), *train_flags(data, out, "--epochs", "400")])
    read_until(job, "epoch 5/")
    with (data / "sequences.npy").open("r+b") as handle:
        handle.seek(-1, 2)
        base = handle.read()[0]
        handle.seek(-1, 2)
        handle.write(bytes([base ^ 1]))
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 2, errors
    assert f"tal1-hvd: error: {data}/sequences.npy: was changed after it was made" in errors
    assert "train anew, with another --out" in errors
    assert not {path.name for path in out.iterdir()} & {"metrics.json", "model.keras"}


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=["mpirun", "gloo"])
def test_a_rank_that_raises_ends_the_job(launcher, small_data: Path, tmp_path: Path) -> None:
    flags = train_flags(small_data, tmp_path / "run", "--epochs", LONG)[2:]
    job = start([*launcher, PROGRAMS / "raises.py", *flags])
    read_until(job, "epoch 3/")
    _, errors = job.communicate(timeout=30)
    assert job.returncode not in (0, 2)
    assert "tal1-hvd: error: rank 1 failed: ValueError: this disk is on fire" in errors


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_rank_is_named_and_the_job_ended(
    rank: int, small_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = train_flags(small_data, out, "--epochs", LONG, "--stall-timeout", "3")
    job = start([*mpirun(2), *flags])
    read_until(job, "epoch 2/")
    stopped = processes(out)[rank]
    send(stopped, signal.SIGSTOP)
    _, errors = job.communicate(timeout=60)
    assert job.returncode not in (0, 2)
    assert f"rank {rank} (host " in errors
    assert f"process {stopped}) has given no sign of life" in errors


@pytest.mark.parametrize("moment", ["born", "connecting", "leaving"])
@pytest.mark.parametrize("launcher", LAUNCHERS, ids=["mpirun", "gloo"])
def test_a_rank_stopped_out_of_sight_of_others_is_named(
    launcher, moment: str, small_data: Path, tmp_path: Path
) -> None:
    """As it is born, before ranks have connected, and after they have parted."""
    out = tmp_path / "run"
    flags = train_flags(small_data, out, "--epochs", "2", "--stall-timeout", "3")[2:]
    job = run([*launcher, PROGRAMS / "stops.py", moment, *flags])
    assert job.returncode not in (0, 2)
    assert "rank 1 (host " in job.stderr
    assert "has been stopped (SIGSTOP) for" in job.stderr
    assert (out / "metrics.json").exists() == (moment == "leaving")
    resumed = run([*mpirun(2), "-m", "tal1_hvd.train", "--out", out, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert ("already finished" in resumed.stderr) == (moment == "leaving")
    assert (out / "metrics.json").exists()


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=["mpirun", "gloo"])
def test_a_stopped_launcher_is_ended(launcher, small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = train_flags(small_data, out, "--epochs", LONG, "--stall-timeout", "3")
    job = start([*launcher, *flags])
    read_until(job, "epoch 2/")
    ranks = processes(out)
    send(job.pid, signal.SIGSTOP)
    job.communicate(timeout=60)
    assert job.returncode == -signal.SIGKILL
    until = time.monotonic() + 30
    while living(ranks):
        assert time.monotonic() < until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_horovodrun_hands_signals_on(
    number: signal.Signals, small_data: Path, tmp_path: Path
) -> None:
    """As mpirun does: it ends its ranks by SIGTERM, and by SIGUSR1 they end it."""
    out = tmp_path / "run"
    flags = train_flags(small_data, out, "--epochs", LONG)
    job = start([BIN / "horovodrun", "-np", "2", BIN / "python", *flags])
    read_until(job, "epoch 2/")
    ranks = processes(out)
    send(job.pid, number)
    _, errors = job.communicate(timeout=60)
    if number == signal.SIGUSR1:
        assert job.returncode == 75, errors
        assert "a checkpoint holds all of it" in errors
    assert job.returncode != 0
    assert not living(ranks)
