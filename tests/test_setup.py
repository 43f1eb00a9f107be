"""``launch/setup``: what it says when something is missing, and that it is done when it is done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def setup(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "launch" / "setup"],
        env={**os.environ, "TAL1_HVD_VENV": str(tmp_path / "venv"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "meaning"),
    [
        ({"TAL1_HVD_PYTHON": "/bin/false"}, "no Python 3.10 to 3.12 among /bin/false"),
        ({"CXX": "no-such-compiler"}, "no C++ compiler ('no-such-compiler')"),
        ({"TAL1_HVD_MPI": "other"}, "it takes pypi or system"),
    ],
)
def test_says_what_is_missing_in_one_line(environment, meaning: str, tmp_path: Path) -> None:
    job = setup(tmp_path, **environment)
    assert job.returncode == 2
    assert job.stdout == ""
    assert job.stderr.count("\n") == 1
    assert job.stderr.startswith("setup: error: ")
    assert meaning in job.stderr
    assert not (tmp_path / "venv").exists()


def test_needs_an_mpi_where_the_system_one_is_wanted(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "realpath", "sha256sum", "cut", "cat", "uname"):
        found = next(
            path / name
            for path in map(Path, os.environ["PATH"].split(os.pathsep))
            if (path / name).exists()
        )
        (tools / name).symlink_to(found)
    job = setup(tmp_path, PATH=str(tools), TAL1_HVD_MPI="system", TAL1_HVD_PYTHON=sys.executable)
    assert job.returncode == 2
    assert "mpirun or mpicxx is not on the PATH" in job.stderr
