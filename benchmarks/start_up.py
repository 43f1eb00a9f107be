"""Seconds from the start of `train` to its first steps, and from its last to its end.

python benchmarks/start_up.py [RANKS] [REPEATS]

The first step lies between the line that announces training and that of the first epoch, which
takes 0.2 to 0.6 s itself, its first graph call included.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

from tal1_hvd.simulation.cache import cached_dataset
from tal1_hvd.simulation.settings import SimulationSettings

MARKS = {"tal1-hvd: training": "announced", "tal1-hvd: epoch 1/": "first epoch done"}


def main() -> None:
    """Measure and print medians and ranges."""
    ranks = sys.argv[1] if len(sys.argv) > 1 else "2"
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    data = cached_dataset(SimulationSettings())
    runs = [measure(str(data), ranks) for _ in range(repeats)]
    print(f"seconds, {ranks} ranks, {repeats} starts")
    for mark in runs[0]:
        seconds = [run[mark] for run in runs]
        spread = f"({min(seconds):.1f}-{max(seconds):.1f})"
        print(f"{mark:18}{statistics.median(seconds):6.1f}  {spread}")


def measure(data: str, ranks: str) -> dict[str, float]:
    """Train for an epoch; return when each mark was seen, and how long the end took."""
    seen = {}
    with tempfile.TemporaryDirectory() as folder:
        train = ["train", "--ranks", ranks, "--threads", "1", "--epochs", "1"]
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "tal1_hvd", *train, "--data", data, "--out", f"{folder}/run"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            for line in process.stderr or ():
                for start, mark in MARKS.items():
                    if line.startswith(start):
                        seen[mark] = time.perf_counter() - began
        if process.returncode:
            sys.exit(f"train ended with exit code {process.returncode}")
        last = seen["first epoch done"]
        return {**seen, "from there to end": time.perf_counter() - began - last}


if __name__ == "__main__":
    main()
