"""What tests of whole sessions share: running one, and reading what it left."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest import mock

from tal1_hvd.training import interruptions, trainer
from tal1_hvd.training.begin import Request
from tal1_hvd.training.checkpoint import load_checkpoint
from tal1_hvd.training.interruptions import Stopped
from tal1_hvd.training.reporters import Silent
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.session import Result, run_session
from tests.helpers import forget_launcher

EPOCHS = 4
DEFAULTS = {"epochs": EPOCHS, "batch_size": 32, "learning_rate": 0.01, "threads": 2}


def session(changes: dict[str, Any], out: Path, resume: bool = False) -> Result:
    """Run a session; in the process of the sessions."""
    forget_launcher()
    return run_session(Request(changes, out, resume))


class Scheduler(Silent):
    """Sends this process a signal when so many graph calls are done."""

    def __init__(self, calls: int):
        self._calls, self.messages = calls, []

    def message(self, text: str) -> None:
        """Keep it."""
        self.messages.append(text)

    def advance(self, examples: int) -> None:
        """Count, unless it tells what was done before."""
        self._calls -= examples > 0
        if self._calls == 0:
            os.kill(os.getpid(), signal.SIGUSR1)


def in_short_calls(
    changes: dict[str, Any], out: Path, resume: bool, calls: int
) -> tuple[str | None, list[str]]:
    """Run a session with two steps a graph call; a signal comes after so many, never for -1.

    It looks for signals after every call, however long a look takes, so that the answer is one.

    Returns
    -------
    stopped : str, optional
        What it says where the signal ends it.
    messages : list of str
    """
    forget_launcher()
    scheduler = Scheduler(calls)
    often = mock.patch.object(interruptions, "_SHARE", float("inf"))
    with often, mock.patch.object(trainer, "_MOST_STEPS_A_CALL", 2):
        try:
            run_session(Request(changes, out, resume), lambda: scheduler)
        except Stopped as stopped:
            return str(stopped), scheduler.messages
    return None, scheduler.messages


def copied(folder: RunFolder, target: Path) -> RunFolder:
    """Return a copy of a run, which may be changed."""
    shutil.copytree(folder.path, target)
    return RunFolder(target)


def history(folder: RunFolder) -> list[dict[str, str]]:
    """Return the rows of a run's history, by column."""
    with (folder.path / "history.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def predictions(folder: RunFolder) -> list[list[str]]:
    """Return the rows of a run's predictions, the header first."""
    lines = (folder.path / "predictions.tsv").read_text().splitlines()
    return [line.split("\t") for line in lines]


def state(folder: RunFolder, name: str = "last") -> list[bytes]:
    """Return all that a checkpoint restores, bit by bit."""
    loaded = load_checkpoint(getattr(folder, name))
    arrays = [*loaded.model, *loaded.optimizer, *loaded.best]
    return [array.tobytes() for array in arrays]


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    """Return a row or metrics without what depends on the clock."""
    timed = ("train_seconds", "seconds", "examples_per_second")
    return {name: value for name, value in values.items() if name not in timed}


def assert_same_results(found: RunFolder, expected: RunFolder) -> None:
    """Expect two runs to be one, bit by bit, but for the clock."""
    assert state(found) == state(expected)
    assert state(found, "best") == state(expected, "best")
    assert [timeless(r) for r in history(found)] == [timeless(r) for r in history(expected)]
    assert timeless(found.read_metrics()) == timeless(expected.read_metrics())
    assert predictions(found) == predictions(expected)


def files(folder: RunFolder) -> dict[Path, bytes]:
    """Return the bytes of every file of a run."""
    paths = [path for path in folder.path.rglob("*") if path.is_file()]
    return {path.relative_to(folder.path): path.read_bytes() for path in paths}
