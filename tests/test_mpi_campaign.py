"""The campaign of faults, in short."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.jobs import run

pytestmark = pytest.mark.mpi

CAMPAIGN = Path(__file__).parent.parent / "benchmarks" / "faults.py"


def test_campaign() -> None:
    """One kill of each kind of job, and a fault that needs no rights."""
    # By this seed both kills fall into training, not into start-up, where seconds vary.
    short = ["--no-docs", "--kills", "2", "--epochs", "100", "--seed", "38"]
    short += ["--only", "checkpoint_corrupt"]
    job = run([sys.executable, CAMPAIGN, *short])
    assert job.returncode == 0, job.stdout + job.stderr
    rows = [line for line in job.stdout.splitlines() if line.startswith("| ")]
    kills = [row for row in rows if "SIGKILL" in row]
    assert [row.split(" | ")[0] for row in kills] == [
        "| 1 x SIGKILL, mpirun",
        "| 1 x SIGKILL, elastic",
    ]
    assert all(row.endswith("| nothing |") for row in kills)
    (corrupt,) = [row for row in rows if row.startswith("| checkpoint corrupt")]
    assert "`--resume` refuses (2): `error: corrupt-" in corrupt
    assert corrupt.endswith("| 2 | nothing saved, once the file is back |")
