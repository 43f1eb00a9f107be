"""Every way to distribute training, trained for real and set side by side."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from tests.jobs import run

pytestmark = [pytest.mark.mpi, pytest.mark.slow]

FLAGS = ("--quick", "--epochs", "2")


@pytest.fixture(scope="module")
def compared(small_data: Path, tmp_path_factory) -> tuple[Path, list[str]]:
    """Return the folder of a comparison, and the command that made it."""
    out = tmp_path_factory.mktemp("compare") / "out"
    command = [sys.executable, "-m", "tal1_hvd", "compare", *FLAGS]
    command += ["--data", str(small_data), "--out", str(out)]
    job = run(command)
    assert job.returncode == 0, job.stderr
    *table, page, data = job.stdout.splitlines()
    assert (page, data) == (str(out / "report.html"), str(out / "compare.csv"))
    assert sum(" rank" in line for line in table) == 8
    return out, command


def test_every_cell_is_filled(compared) -> None:
    folder, _ = compared
    with (folder / "compare.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert all(value for row in rows for value in row.values())
    assert [(row["strategy"], row["aggregation"], row["world_size"]) for row in rows] == [
        ("single", "allreduce", "1"),
        ("horovod", "allreduce", "2"),
        ("mirrored", "allreduce", "2"),
        ("multiworker", "allreduce", "2"),
        ("horovod", "parameter-server", "2"),
        ("horovod", "parameter-server (staleness 4)", "2"),
        ("horovod", "gossip", "2"),
        ("horovod", "model-parallel", "2"),
    ]
    # The same computation, whoever does it.
    assert len({row["auroc"] for row in rows[1:5]}) == 1
    assert all(float(row["train_seconds"]) > 0 for row in rows)


def test_page_is_there(compared) -> None:
    folder, _ = compared
    text = (folder / "report.html").read_text()
    assert "Fastest: " in text
    assert (folder / "figures" / "weak_scaling.svg").exists()
    assert (folder / "figures" / "communication.png").exists()


def test_goes_on_where_it_was(compared) -> None:
    folder, command = compared
    untouched = folder / "runs" / "horovod-2-seed0" / "metrics.json"
    before = untouched.stat().st_mtime_ns
    gone = folder / "runs" / "gossip-2-seed0" / "metrics.json"
    gone.unlink()
    job = run(command)
    assert job.returncode == 0, job.stderr
    assert job.stderr.count("done before") == 8
    assert gone.exists()
    assert untouched.stat().st_mtime_ns == before
