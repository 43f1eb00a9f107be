"""Jobs whose ranks can be found and harmed, for benchmarks/faults.py."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from tal1_hvd.training.checkpoint import load_checkpoint

BIN = Path(sys.executable).parent
LAUNCH = Path(__file__).parent.parent / "launch"
# Seconds within which a job has to end or go on, and after which it is taken for hung.
IN_TIME = 60.0
HUNG = 150.0
FOREVER = ("--epochs", 1_000_000)


class UnexpectedError(Exception):
    """A fault led to something else than it should."""


class MissingError(Exception):
    """A fault needs what is not here."""


def require(condition: bool, otherwise: str) -> None:
    """Raise UnexpectedError, with what has been seen, unless a condition holds."""
    if not condition:
        raise UnexpectedError(otherwise)


def require_root() -> None:
    """Raise MissingError unless this user may mount and make networks."""
    if os.geteuid() != 0:
        raise MissingError("needs root")


class Job:
    """A started command, with all that it says in one file; nothing is left of it after its block.

    Parameters
    ----------
    command : sequence
    log : Path
    environment : mapping, optional
        Added to this process's own.
    """

    def __init__(
        self,
        command: Sequence[object],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ):
        self._log = log
        self.began = time.monotonic()
        with log.open("wb") as handle:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TAL1_HVD_VENV": str(BIN.parent), **(environment or {})},
            )

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def text(self) -> str:
        """Return what it has said."""
        return self._log.read_text(errors="replace")

    def says(self, text: str, seconds: float = HUNG) -> bool:
        """Wait until it says something, or ends, or the time is over; say whether it did."""
        until = time.monotonic() + seconds
        while text not in self.text():
            if self.process.poll() is not None or time.monotonic() > until:
                return text in self.text()
            time.sleep(0.05)
        return True

    def ranks(self) -> list[psutil.Process]:
        """Return the ranks' processes in the order of their start; waits until there are some."""
        until = time.monotonic() + HUNG
        while self.process.poll() is None and time.monotonic() < until:
            found = {}
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        if child.cmdline()[1:3] == ["-m", "tal1_hvd.train"]:
                            found[child.pid] = child
            if found:
                return [found[pid] for pid in sorted(found)]
            time.sleep(0.05)
        return []

    def end(self, seconds: float = HUNG) -> int | None:
        """Wait for its end; return its exit code, or None, and kill it, if it hangs."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """Leave nothing of it."""
        if self.process.poll() is not None:
            # Its number may be another's by now.
            return
        left = [self.process.pid]
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
            left += [child.pid for child in children]
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()


def mpirun(ranks: int, *options: object) -> list[object]:
    """Return the command line of mpirun up to the program."""
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [BIN / "mpirun", *root, "--bind-to", "none", "--oversubscribe", *options, "-np", ranks]


def train(out: Path, *options: object) -> list[object]:
    """Return the command line of a rank."""
    return [BIN / "python", "-m", "tal1_hvd.train", "--out", out, *options]


def weights(run: Path) -> list[np.ndarray]:
    """Return the weights that a run has ended with."""
    with np.load(run / "checkpoints" / "last.npz") as checkpoint:
        return [checkpoint[name] for name in checkpoint.files if name.startswith("model/")]


def furthest(one: Path, other: Path) -> float:
    """Return the largest difference between two runs' weights."""
    pairs = zip(weights(one), weights(other), strict=True)
    # NumPy's, as Python's can lose a NaN.
    return float(np.max([np.abs(a - b).max() for a, b in pairs]))


def epochs_saved(run: Path) -> int:
    """Return how many epochs the last checkpoint holds."""
    path = run / "checkpoints" / "last.npz"
    return load_checkpoint(path).progress.epoch if path.exists() else 0


# seconds, how it was noticed and what became of it, exit code, what was lost
Row = tuple[str, str, str, str]


@dataclass(frozen=True)
class Setting:
    """Where jobs run.

    Attributes
    ----------
    folder, data : Path
    flags : tuple
        Of a training that ends by itself.
    """

    folder: Path
    data: Path
    flags: tuple[object, ...]
    _numbers: itertools.count = field(default_factory=itertools.count)

    def fresh(self, name: str) -> tuple[Path, Path]:
        """Return a run folder that is not there yet, and a file for what its job says."""
        place = self.folder / f"{name}-{next(self._numbers)}"
        place.mkdir()
        return place / "run", place / "log"


Case = Callable[[Setting], Row]


def complaint(text: str) -> str:
    """Return the line by which a job names what has befallen it."""
    errors = [line for line in text.splitlines() if "error" in line.lower()]
    ours = [line.partition("tal1-hvd: ")[2] for line in errors if "tal1-hvd: " in line]
    found = (ours or errors or text.splitlines() or [""])[0].strip()
    # Without the temporary folders, and no longer than a line of a table.
    found = re.sub(rf"{re.escape(tempfile.gettempdir())}/[^/]+/", "", found)
    return f"`{found if len(found) <= 200 else f'{found[:200]}...'}`"


def resumes(out: Path, setting: Setting, epochs: int) -> str:
    """Go on with a run for two epochs more than it has; return what was lost.

    Raises
    ------
    UnexpectedError
        If it does not go on, or from before the epochs that had been saved.
    """
    saved = epochs_saved(out)
    more = train(out, "--resume", "--data", setting.data, "--epochs", max(saved, epochs) + 2)
    job = Job([*mpirun(2), *more], out.with_name("again"))
    code = job.end()
    require(code == 0, f"--resume ends with {code}: {complaint(job.text())}")
    require(saved >= epochs, f"{epochs - saved} saved epochs are lost")
    return "nothing saved"


def until_saved(job: Job, out: Path, epochs: int = 1) -> None:
    """Wait until as many epochs are saved; raise UnexpectedError if that does not happen."""
    until = time.monotonic() + IN_TIME
    while epochs_saved(out) < epochs:
        code = job.process.poll()
        require(code is None, f"ends with {code}: {complaint(job.text())}")
        require(time.monotonic() < until, f"no checkpoint in {IN_TIME:.0f} s")
        time.sleep(0.1)


def until_it_goes_on(job: Job, out: Path) -> None:
    """Wait for a checkpoint of an epoch that was not begun before this call."""
    until_saved(job, out, epochs_saved(out) + 2)


def ended(job: Job, since: float) -> tuple[str, str]:
    """Wait for a job's end; return the seconds since then, and its exit code, as text.

    Raises
    ------
    UnexpectedError
        If it ends in good order, or not in time.
    """
    code = job.end()
    seconds = time.monotonic() - since
    require(code is not None, "hangs")
    require(code != 0, "ends as if nothing had been")
    require(seconds <= IN_TIME, f"ends after {seconds:.0f} s only")
    return f"{seconds:.1f}", str(code)


def stop(job: Job) -> None:
    """End a job that trains on."""
    job.process.terminate()
    require(job.end() is not None, "hangs when it is asked to stop")


def left(ranks: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return which ranks still live when they should have ended; they get time to."""
    return [
        rank
        for rank in psutil.wait_procs(ranks, timeout=IN_TIME)[1]
        # Where nobody waits for orphans, these stay in the list of processes.
        if rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE
    ]
