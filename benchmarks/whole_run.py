"""Where the seconds of a whole training of the published experiment go: python ... [RANKS] [TURNS].

Steps, validation (scoring and metrics), and the rest: checkpoints, logs, and waiting for them.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.simulation.cache import cached_dataset
from tal1_hvd.simulation.settings import SimulationSettings


def main() -> None:
    """Train in turn and print."""
    ranks = sys.argv[1] if len(sys.argv) > 1 else "2"
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    data = cached_dataset(SimulationSettings())
    examples = len(open_dataset(data).rows("train"))
    parts = np.array([seconds(data, examples, ranks) for _ in range(turns)])
    for name, own in zip(("all", "steps", "validation", "rest"), parts.T, strict=True):
        share = np.median(own / parts[:, 0])
        print(f"{name:12}{np.median(own):6.1f} s ({own.min():.1f}-{own.max():.1f}) {share:6.0%}")


def seconds(data: Path, examples: int, ranks: str) -> tuple[float, float, float, float]:
    """Train, and return the seconds of everything, of steps, of validation and of the rest."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "tal1_hvd", "train", "--data", str(data)]
        command += ["--out", str(out), "--ranks", ranks, "--threads", "1"]
        subprocess.run(command, check=True, capture_output=True)
        whole = json.loads((out / "metrics.json").read_text())["train_seconds"]
        with (out / "history.csv").open() as file:
            rows = list(csv.DictReader(file))
    epochs = sum(float(row["seconds"]) for row in rows)
    steps = sum(examples / float(row["examples_per_second"]) for row in rows)
    return whole, steps, epochs - steps, whole - epochs


if __name__ == "__main__":
    main()
