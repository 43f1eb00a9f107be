"""How training scales past this machine: measures here, predicts there, writes docs/scaling.md.

python benchmarks/scaling.py [TURNS]

Measures steps on 2 ranks of this machine (as many TURNS, 3, as are given; medians), takes the
constants of `tal1_hvd.benchmark.cost_model` from some of them, checks it against the others, and
writes what it predicts for up to 1,000 ranks into docs/, with a figure.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined

from tal1_hvd.benchmark.breakdown import break_down
from tal1_hvd.benchmark.cost_model import (
    ALGORITHMS,
    NETWORKS,
    Constants,
    Network,
    Step,
    best_ranks,
    efficiency,
    most_ranks,
    step_time,
)
from tal1_hvd.distributed.launch import find_launcher
from tal1_hvd.machine import processor_name, usable_cores
from tal1_hvd.report import figures
from tal1_hvd.simulation.cache import cached_dataset
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.training.settings import TrainSettings

DOCS = Path(__file__).parent.parent / "docs"
TEMPLATE = Path(__file__).with_name("scaling.md.j2")
PARAMETERS = 1_246
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000)
WIDTHS = {"none": 4, "fp16": 2}
STEPS = {
    "batch 64": Step(),
    "batch 256": Step(batch=256),
    "batch 1,024": Step(batch=1024),
    "batch 64, 4 passes a step": Step(accumulation=4),
    "batch 64, float16 on the way": Step(width=2),
}
# All ranks sum, as Horovod has them do; a server is no such thing.
SUMS = ("ring", "tree")
MESSAGES = (8, 1_000_000)
EXCHANGES = 2_000


class Point(NamedTuple):
    """What is measured, on each of two ranks."""

    batch: int
    accumulation: int = 1
    compression: str = "none"

    @property
    def step(self) -> Step:
        """What the model knows of it."""
        return Step(self.batch, self.accumulation, WIDTHS[self.compression])


# The first gives the overhead, and with the second the time of computing; the others are checked.
FITTED = (Point(64), Point(1024))
POINTS = (
    *FITTED,
    Point(16),
    Point(256),
    Point(64, accumulation=4),
    Point(64, compression="fp16"),
)


def main() -> None:
    """Measure, predict, write."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    here = measure_messages()
    data = str(cached_dataset(SimulationSettings()))
    times = np.array([[measure(data, point) for point in POINTS] for _ in range(turns)])
    steps, alone = (dict(zip(POINTS, each, strict=True)) for each in np.median(times, axis=0).T)
    constants = fit(steps, alone, here)
    (DOCS / "scaling.md").write_text(document(steps, constants, here, turns))
    curves = {
        f"{network.name}, {name}": (
            RANKS,
            [100 * efficiency(constants, Step(algorithm=name), n, network) for n in RANKS],
        )
        for network in NETWORKS
        for name in SUMS
    }
    drawn = figures.lines(curves, "ranks", "efficiency, %", logarithmic=True)
    drawn.savefig(DOCS / "scaling.svg", metadata={"Date": None})


def measure(data: str, point: Point) -> tuple[float, float]:
    """Return the microseconds of a step, and of its computing while the other rank computes too.

    Without reading its rows, which another thread does.
    """
    settings = TrainSettings(
        data=data,
        batch_size=point.batch,
        accumulation=point.accumulation,
        compression=point.compression,
    )
    parts = break_down(settings, 2)
    step, alone = parts["step"] - parts["input"], parts["first_layer"] + parts["other_compute"]
    print(point, f"{step:.0f} microseconds, computing {alone:.0f}", flush=True)
    return step, alone


def measure_messages() -> Network:
    """Measure messages between two processes of this machine, over MPI."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times.npy"
        command = [*find_launcher(2), sys.executable, __file__, "--exchange", str(out)]
        subprocess.run(command, check=True)
        small, large = np.load(out)
    bandwidth = (MESSAGES[1] - MESSAGES[0]) / (large - small)
    return Network("between processes of this machine", float(small), float(bandwidth))


def exchange(out: Path) -> None:
    """Send messages there and back between two ranks; rank 0 writes microseconds of one way."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    times = []
    for size in MESSAGES:
        buffer = np.zeros(size, dtype=np.uint8)
        comm.Barrier()
        began = time.perf_counter()
        for _ in range(EXCHANGES):
            if comm.rank == 0:
                comm.Send(buffer, 1)
                comm.Recv(buffer, 1)
            else:
                comm.Recv(buffer, 0)
                comm.Send(buffer, 0)
        times.append(1e6 * (time.perf_counter() - began) / EXCHANGES / 2)
    if comm.rank == 0:
        np.save(out, times)


def fit(steps: dict[Point, float], alone: dict[Point, float], here: Network) -> Constants:
    """Take the constants from two points."""
    small, large = FITTED
    per_example = (alone[large] - alone[small]) / (large.batch - small.batch)
    fixed = max(alone[small] - per_example * small.batch, 0.0)
    computing = Constants(fixed, per_example, 0.0, PARAMETERS)
    overhead = steps[small] - step_time(computing, small.step, 2, here)
    return Constants(fixed, per_example, max(overhead, 0.0), PARAMETERS)


def document(measured: dict[Point, float], constants: Constants, here: Network, turns: int) -> str:
    """Return docs/scaling.md."""
    checked = [point for point in POINTS if point not in FITTED]
    error = {
        point: step_time(constants, point.step, 2, here) / measured[point] - 1 for point in POINTS
    }
    predictions = [
        (
            describe(point),
            f"{measured[point]:,.0f}",
            f"{measured[point] * (1 + error[point]):,.0f}",
            f"{error[point]:+.0%}" if point in checked else "fitted",
        )
        for point in POINTS
    ]
    names = [network.name for network in NETWORKS]
    weak = [
        (
            f"{network.name}, {name}",
            *(f"{efficiency(constants, Step(algorithm=name), n, network):.0%}" for n in RANKS[1:]),
        )
        for network in NETWORKS
        for name in ALGORITHMS
    ]
    limits = [
        (
            f"{words}, {name}",
            *(
                count(most_ranks(constants, replace(step, algorithm=name), network))
                for network in NETWORKS
            ),
        )
        for words, step in STEPS.items()
        for name in SUMS
    ]
    algorithms = [
        (f"{name}, {n:,} ranks", *(f"{time_of(n, 4 * PARAMETERS, w):,.0f}" for w in NETWORKS))
        for name, time_of in ALGORITHMS.items()
        for n in (8, 64, 1_000)
    ]
    strong = [
        (
            f"{batch:,}, {name}",
            *(strongest(constants, batch, network, name) for network in NETWORKS),
        )
        for batch in (1_024, 4_096, 16_384)
        for name in SUMS
    ]
    values = {
        "turns": turns,
        "cores": usable_cores(),
        "processor": processor_name(),
        "constants": constants,
        "here": here,
        "networks": NETWORKS,
        "mean_error": np.mean([abs(error[point]) for point in checked]),
        "worst_error": max((error[point] for point in checked), key=abs),
        "predictions": table(("", "measured, µs", "predicted, µs", "error"), predictions),
        "weak": table(("ranks", *(f"{n:,}" for n in RANKS[1:])), weak),
        "limits": table(("", *names), limits),
        "algorithms": table(("µs", *names), algorithms),
        "strong": table(("examples a step", *names), strong),
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE.read_text()).render(values)


def strongest(constants: Constants, examples: int, network: Network, algorithm: str) -> str:
    """Return on how many ranks a step is shortest, and its time."""
    ranks = best_ranks(constants, examples, network, algorithm)
    step = Step(batch=examples // ranks, algorithm=algorithm)
    shortest = step_time(constants, step, ranks, network)
    return f"{ranks:,} ({shortest:,.0f} µs)"


def count(ranks: int) -> str:
    """Return a number of ranks; above what the model is meant for, only that."""
    return f"{ranks:,}" if ranks <= RANKS[-1] else "over 1,000"


def describe(point: Point) -> str:
    """Return a point in words."""
    words = f"batch {point.batch:,}"
    words += f", {point.accumulation} passes" if point.accumulation > 1 else ""
    return words + (f", {point.compression}" if point.compression != "none" else "")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    if "--exchange" in sys.argv:
        exchange(Path(sys.argv[-1]))
    else:
        main()
