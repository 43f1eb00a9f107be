"""What Horovod's settings make of a step on 2 ranks of this machine, against this package's.

python benchmarks/horovod_settings.py [TURNS]

Every turn (3) trains 12 epochs with each; shown is the median time of an epoch's step, without the
first two epochs, and its ratio to that of this package's settings in the same turn.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tal1_hvd.simulation.cache import cached_dataset
from tal1_hvd.simulation.settings import SimulationSettings

RANKS, BATCH, EPOCHS, WARM_UP = 2, 64, 12, 2
PROGRAM = [sys.executable, "-m", "tal1_hvd.train"]
ROOT = ["--allow-run-as-root"] if os.geteuid() == 0 else []
MPI = [str(Path(sys.executable).parent / "mpirun"), *ROOT, "--oversubscribe", "-np", str(RANKS)]
UNBOUND = [*MPI, "--bind-to", "none", *PROGRAM]
GLOO = [str(Path(sys.executable).parent / "horovodrun"), "--gloo", "-np", str(RANKS), *PROGRAM]

# name: launcher, environment, flags
VARIANTS: dict[str, tuple[list[str], dict[str, str], list[str]]] = {
    "ours": (UNBOUND, {}, []),
    "Horovod's and Open MPI's defaults": (
        UNBOUND,
        {"HOROVOD_CYCLE_TIME": "1", "OMPI_MCA_mpi_yield_when_idle": "0"},
        [],
    ),
    "cycle of 1 ms": (UNBOUND, {"HOROVOD_CYCLE_TIME": "1"}, []),
    "cycle of 0.2 ms": (UNBOUND, {"HOROVOD_CYCLE_TIME": "0.2"}, []),
    "waiting ranks do not yield": (UNBOUND, {"OMPI_MCA_mpi_yield_when_idle": "0"}, []),
    "no response cache": (UNBOUND, {"HOROVOD_CACHE_CAPACITY": "0"}, []),
    "ranks bound to cores": ([*MPI, "--bind-to", "core", *PROGRAM], {}, []),
    "Gloo": (GLOO, {}, []),
    "compression to float16": (UNBOUND, {}, ["--compression", "fp16"]),
    "2 batches an all-reduce": (UNBOUND, {}, ["--accumulation", "2"]),
    "4 batches an all-reduce": (UNBOUND, {}, ["--accumulation", "4"]),
}


def main() -> None:
    """Measure in turn and print."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    data = cached_dataset(SimulationSettings())
    times = np.array(
        [[microseconds(data, *variant) for variant in VARIANTS.values()] for _ in range(turns)]
    )
    print(f"{'microseconds a batch of every rank':36}{'median':>8}{'ratio':>8}  (range)")
    ratios = times / times[:, :1]
    for name, own, ratio in zip(VARIANTS, times.T, ratios.T, strict=True):
        spread = f"({ratio.min():.2f}-{ratio.max():.2f})"
        print(f"{name:36}{np.median(own):8.0f}{np.median(ratio):8.2f}  {spread}")


def microseconds(
    data: Path, launcher: list[str], environment: dict[str, str], flags: list[str]
) -> float:
    """Train, and return the median time of a batch on every rank."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train = ["--data", str(data), "--out", str(out), "--epochs", str(EPOCHS), *flags]
        command = [*launcher, *train]
        subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
        with (out / "history.csv").open() as file:
            speeds = [float(row["examples_per_second"]) for row in csv.DictReader(file)]
    return 1e6 * RANKS * BATCH / float(np.median(speeds[WARM_UP:]))


if __name__ == "__main__":
    main()
