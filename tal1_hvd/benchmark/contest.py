"""Plain Keras, PyTorch and ours, in turn, on the same data: seconds by the outside clock."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tal1_hvd.errors import InputError
from tal1_hvd.published import TARGET_ACCURACY

BASELINE = "keras"


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes
    ----------
    data : Path
        Dataset folder.
    examples : int
        Of its training split.
    epochs, less : int
        Each contestant trains for both; the difference of the times is that of epochs alone,
        without start-up.
    repeats : int
    ranks : tuple of int
        World sizes of ours.
    seed : int
    """

    data: Path
    examples: int
    epochs: int = 60
    less: int = 10
    repeats: int = 3
    ranks: tuple[int, ...] = (1, 2)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.less < self.epochs:
            raise InputError(
                f"--less: must be at least 1 and below --epochs, {self.epochs}, got {self.less}"
            )
        if self.repeats < 1:
            raise InputError(f"--repeats: must be at least 1, got {self.repeats}")


@dataclass(frozen=True)
class Timing:
    """One training, timed from outside.

    Attributes
    ----------
    seconds : float
        From the start of the process to its end.
    peak_mb : float
        Resident memory of its largest process, in MB.
    accuracy : list of float
        On the validation split after each epoch.
    elapsed : list of float
        Seconds from the first step to the end of each epoch.
    """

    seconds: float
    peak_mb: float
    accuracy: list[float]
    elapsed: list[float]


def name_of(ranks: int) -> str:
    """Return the name under which ours on so many ranks contends."""
    return f"{ranks} rank{'s' if ranks > 1 else ''}"


def contestants(plan: Plan) -> dict[str, Callable[[int], Timing]]:
    """Return each contestant's name and how it trains for a number of epochs.

    PyTorch is one where it is installed.
    """
    ours = {
        name_of(ranks): lambda epochs, ranks=ranks: _ours(plan, ranks, epochs)
        for ranks in plan.ranks
    }
    plain = {BASELINE: "plain_keras"}
    if find_spec("torch") is not None:
        plain["pytorch"] = "plain_pytorch"
    theirs = {
        name: lambda epochs, module=module: _plain(plan, module, epochs)
        for name, module in plain.items()
    }
    return {**theirs, **ours}


def run(plan: Plan, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Let the contestants train in turn, as often as the plan says.

    Parameters
    ----------
    plan : Plan
    tell : callable
        Told of each training's time, and of what could not be measured.

    Returns
    -------
    list of dict
        A row for each repeat and contestant: `repeat`, `contestant`, `microseconds` a sequence and
        `examples_per_second` (None where the outside clock and the training's own disagree by more
        than a factor of 2, because start-up took longer once than the other time),
        `seconds` (of the longer training, all in), `seconds_to_target` (validation accuracy as
        good as the best published; None if never), `peak_mb`.
    """
    rows = []
    for repeat in range(plan.repeats):
        for name, train in contestants(plan).items():
            turn = f"repeat {repeat + 1}/{plan.repeats}: {name}"
            short = train(plan.less)
            tell(f"{turn}, {plan.less} epochs: {short.seconds:.1f} s")
            long = train(plan.epochs)
            tell(f"{turn}, {plan.epochs} epochs: {long.seconds:.1f} s")
            sequences = (plan.epochs - plan.less) * plan.examples
            outside = long.seconds - short.seconds
            inside = long.elapsed[-1] - long.elapsed[plan.less - 1]
            measured = 0.5 < outside / inside < 2
            rate = outside / sequences
            if not measured:
                tell(
                    f"{turn} does not count: {plan.epochs - plan.less} epochs more took "
                    f"{outside:.1f} s by the outside clock, {inside:.1f} s by its own; choose more "
                    "--epochs, or a larger dataset, or a quieter machine"
                )
            reached = np.flatnonzero(np.array(long.accuracy) >= TARGET_ACCURACY)
            rows.append(
                {
                    "repeat": repeat + 1,
                    "contestant": name,
                    "microseconds": 1e6 * rate if measured else None,
                    "examples_per_second": 1 / rate if measured else None,
                    "seconds": long.seconds,
                    "seconds_to_target": long.elapsed[reached[0]] if len(reached) else None,
                    "peak_mb": max(short.peak_mb, long.peak_mb),
                }
            )
    return rows


def _plain(plan: Plan, module: str, epochs: int) -> Timing:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "course.json"
        command = [sys.executable, "-m", f"tal1_hvd.benchmark.{module}"]
        command += ["--data", str(plan.data), "--epochs", str(epochs), "--seed", str(plan.seed)]
        seconds, peak = _time([*command, "--out", str(out)])
        course = json.loads(out.read_text())
    return Timing(seconds, peak, course["accuracy"], course["seconds"])


def _ours(plan: Plan, ranks: int, epochs: int) -> Timing:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "tal1_hvd", "train", "--data", str(plan.data)]
        command += ["--epochs", str(epochs), "--seed", str(plan.seed), "--out", str(out)]
        seconds, peak = _time([*command, "--ranks", str(ranks), "--threads", "1"])
        with (out / "history.csv").open() as handle:
            history = list(csv.DictReader(handle))
        whole = json.loads((out / "metrics.json").read_text())["train_seconds"]
    elapsed = np.cumsum([float(row["seconds"]) for row in history])
    # Checkpoints and logs lie between epochs: each bears its share.
    elapsed *= whole / elapsed[-1]
    return Timing(
        seconds, peak, [float(row["validation_accuracy"]) for row in history], elapsed.tolist()
    )


def _time(command: Sequence[str]) -> tuple[float, float]:
    """Run a command; return its seconds and the largest resident memory below it in MB."""
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            words = errors.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"{' '.join(command)} ended with: {words[-1] if words else status}")
    return seconds, usage.ru_maxrss / 1024
