"""The documented commands for several machines, by a stand-in for SSH with a bare environment."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from tests.jobs import BIN, PROGRAMS, run

pytestmark = pytest.mark.mpi
ROOT = Path(__file__).parents[1]
SHOWN = (ROOT / "README.md").read_text() + (ROOT / "docs" / "clusters.md").read_text()
COMMANDS = [
    "mpirun -np 8 --host n1:4,n2:4 --bind-to none python -m tal1_hvd.train",
    "horovodrun -np 8 -H host1:4,host2:4 python -m tal1_hvd.train",
    "horovodrun --gloo -np 8 -H n1:4,n2:4 python -m tal1_hvd.train",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_ranks_on_two_machines(command: str, small_data: Path, tmp_path: Path, monkeypatch) -> None:
    assert command in SHOWN
    agent = tmp_path / "bin" / "ssh"
    agent.parent.mkdir()
    agent.write_text((PROGRAMS / "ssh").read_text())
    agent.chmod(0o755)
    # This environment is the activated one.
    monkeypatch.setenv("PATH", f"{agent.parent}:{BIN}:{os.environ['PATH']}")
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.setenv(name, "1")
    words = shlex.split(command.replace("-np 8", "-np 2").replace(":4", ":1"))
    out = tmp_path / "run"
    job = run([*words, "--data", small_data, "--out", out, "--epochs", "2"])
    assert job.returncode == 0, job.stderr
    ranks = json.loads((out / "manifest.json").read_text())["ranks"]
    assert [rank["rank"] for rank in ranks] == [0, 1]
