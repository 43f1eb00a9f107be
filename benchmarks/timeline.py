"""Where an all-reduce's time goes in training, from Horovod's own timeline, before and after.

python benchmarks/timeline.py [DATASET]

Trains an epoch on 2 ranks of this machine, with Horovod's and Open MPI's own defaults and with this
package's, and prints medians over the epoch's steps. The timelines stay in the current folder, for
chrome://tracing or Perfetto.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from tal1_hvd.simulation.cache import cached_dataset
from tal1_hvd.simulation.settings import SimulationSettings

BEFORE = {"HOROVOD_CYCLE_TIME": "1", "OMPI_MCA_mpi_yield_when_idle": "0"}
PHASES = ("agree", "start", "reduce", "rest", "step")


def main() -> None:
    """Measure and print microseconds a step."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else cached_dataset(SimulationSettings())
    print(f"{'microseconds':24}" + "".join(f"{phase:>13}" for phase in PHASES))
    for name, environment in (("Horovod's defaults", BEFORE), ("ours", {})):
        timeline = Path(f"timeline-{name.split()[-1]}.json")
        record(data, timeline, environment)
        median = np.median(all_reduces(json.loads(timeline.read_text())), axis=0)
        print(f"{name:24}" + "".join(f"{time:13.0f}" for time in median))


def record(data: Path, timeline: Path, environment: dict[str, str]) -> None:
    """Train for an epoch and have Horovod write its timeline."""
    variables = {**os.environ, **environment, "HOROVOD_TIMELINE": str(timeline.resolve())}
    with tempfile.TemporaryDirectory() as folder:
        train = ["train", "--ranks", "2", "--epochs", "1", "--data", str(data)]
        subprocess.run(
            [sys.executable, "-m", "tal1_hvd", *train, "--out", f"{folder}/run"],
            env=variables,
            check=True,
            capture_output=True,
        )


def all_reduces(events: list[dict]) -> np.ndarray:
    """Return the phases of every step in microseconds, shape (steps, phases).

    The ranks' agreement that all are ready, the start of the operation, the operation (with the
    wait for the slower rank), and the rest of the step: computing, and Horovod's sleep until it
    looks for tensors again.
    """
    marks = []
    # Each tensor has a line of its own, on which phases are opened and closed like brackets.
    lines: dict[int, list[str]] = defaultdict(list)
    for event in events:
        opened = lines[event["pid"]]
        if event["ph"] == "B":
            opened.append(event["name"])
            if event["name"] in ("NEGOTIATE_ALLREDUCE", "MPI_ALLREDUCE"):
                marks.append(event["ts"])
        elif event["ph"] == "E" and opened.pop() in ("NEGOTIATE_ALLREDUCE", "MPI_ALLREDUCE"):
            marks.append(event["ts"])
    times = np.array(marks).reshape(-1, 4)
    phases = np.diff(times[:-1], axis=1)
    rest = times[1:, 0] - times[:-1, 3]
    return np.column_stack([phases, rest, times[1:, 0] - times[:-1, 0]])


if __name__ == "__main__":
    main()
