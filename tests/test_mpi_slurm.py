"""The Slurm job as it is submitted; Slurm's own programs, which start and requeue it, stand in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tal1_hvd.training.checkpoint import load_checkpoint
from tests.jobs import PROGRAMS, TIMEOUT, read_until

pytestmark = pytest.mark.mpi
SCRIPT = Path(__file__).parents[1] / "launch" / "slurm.sbatch"
STOPPED = 75


def submit(folder: Path, *flags: object, **changes: str) -> subprocess.Popen[str]:
    """Start the script as Slurm does in an allocation of two tasks on another node."""
    programs = folder / "slurm"
    programs.mkdir(exist_ok=True)
    for name, text in (
        ("srun", (PROGRAMS / "srun").read_text()),
        ("scontrol", f'#!/bin/sh\necho "$@" >> {programs}/asked\n'),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    allocation = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOBID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_NODELIST": "tal1-n1",
        "SLURM_JOB_NODELIST": "tal1-n1",
        "SLURM_NNODES": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_TASKS_PER_NODE": "2",
        "SLURM_JOB_CPUS_PER_NODE": "2",
        "TAL1_HVD_VENV": sys.prefix,
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    return subprocess.Popen(
        ["bash", SCRIPT, *map(str, flags)],
        env={**os.environ, **allocation, **changes},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_stops_and_goes_on(
    number: signal.Signals, requeued: bool, small_data: Path, tmp_path: Path
) -> None:
    """Out of time it is queued again, cancelled it is not; the same command goes on with it."""
    out = tmp_path / "run"
    flags = ["--data", small_data, "--out", out]
    job = submit(tmp_path, *flags, "--epochs", 100_000)
    read_until(job, "epoch 2/")
    job.send_signal(number)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == STOPPED, errors
    asked = tmp_path / "slurm" / "asked"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 7\n" if requeued else "")
    assert ("queued again" in errors) == requeued
    done = load_checkpoint(out / "checkpoints" / "last.npz").progress.epoch
    assert done >= 2
    again = submit(tmp_path, *flags, "--epochs", done + 2)
    _, errors = again.communicate(timeout=TIMEOUT)
    assert again.returncode == 0, errors
    assert "2 ranks (horovod), CPU (1 thread) each" in errors
    assert f"going on after epoch {done}" in errors
    assert (out / "metrics.json").exists()


@pytest.mark.parametrize(
    ("flags", "changes", "said"),
    [
        (["--out", "run"], {"SLURM_JOB_ID": ""}, "to be submitted: sbatch launch/slurm.sbatch"),
        (["--epochs", "1"], {}, "--out: name a run folder, so that the job can go on with it"),
        (["--out", "run"], {"TAL1_HVD_VENV": "/nowhere"}, "found no mpirun and python in /nowhere"),
    ],
)
def test_bad_input(flags: list[str], changes: dict[str, str], said: str, tmp_path: Path) -> None:
    job = submit(tmp_path, *flags, **changes)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 2
    assert errors.startswith("launch/slurm.sbatch: error: ")
    assert said in errors
    assert errors.count("\n") == 1
