"""Starts real jobs for the tests that need several ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
PROGRAMS = Path(__file__).parent / "programs"
TIMEOUT = 180


def mpirun(ranks: int, *options: str) -> list[str]:
    """Return the command line of ``mpirun`` up to the program."""
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    launcher = [str(BIN / "mpirun"), *root, "--oversubscribe", "--bind-to", "none"]
    return [*launcher, *options, "-np", str(ranks), sys.executable]


def train_flags(data: Path, out: Path, *more: str) -> list[str]:
    """Return the arguments of a short training."""
    return ["-m", "tal1_hvd.train", "--data", str(data), "--out", str(out), *more]


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a job to its end."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
    """Start a job whose errors can be read while it runs."""
    return subprocess.Popen(
        # Where the tests run in the background of a script, SIGINT is ignored, and inherited so.
        ["env", "--default-signal=INT", *(str(part) for part in command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def read_until(job: subprocess.Popen[str], text: str) -> None:
    """Read a job's errors up to a line that holds `text`."""
    assert job.stderr is not None
    for line in job.stderr:
        if text in line:
            return
    raise AssertionError(f"the job ended without saying {text!r}")


def send(process: int, number: signal.Signals) -> None:
    """Send a signal to one process."""
    os.kill(process, number)


def living(processes: Sequence[int]) -> list[int]:
    """Return which have not ended; where nobody waits for orphans, these stay, empty."""

    def is_living(process: int) -> bool:
        try:
            return bool(Path(f"/proc/{process}/cmdline").read_bytes())
        except OSError:
            return False

    return [process for process in processes if is_living(process)]
