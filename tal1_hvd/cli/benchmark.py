"""Measure how fast training is, against plain Keras with MirroredStrategy on the same data.

The contestants train in turn, each for two numbers of epochs; the difference by the outside clock
is the time of epochs alone, validation and checkpoints included. What counts are the ratios: they
hold on a noisy machine too.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from dataclasses import asdict
from pathlib import Path

from tal1_hvd.benchmark.contest import Plan, summarise
from tal1_hvd.benchmark.contest import run as run_contest
from tal1_hvd.cli.arguments import Parser
from tal1_hvd.cli.errors import say
from tal1_hvd.cli.tables import show_benchmark
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.files import atomic_folder
from tal1_hvd.distributed.launch import ranks_from, require_horovod
from tal1_hvd.machine import usable_cores
from tal1_hvd.simulation.cache import cached_dataset
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.training.plan import plan_batches
from tal1_hvd.training.settings import TrainSettings


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="dataset folder (default: the default simulated dataset, kept in the user's cache)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for benchmark.json and benchmark.csv (default: none)"
    )
    for flag, default, meaning in (
        ("--epochs", 60, "of the longer training"),
        ("--less", 10, "epochs of the shorter one"),
        ("--repeats", 3, "turns of each contestant"),
        ("--seed", 0, "of weights and shuffles"),
    ):
        parser.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{meaning} (default: {default})"
        )
    parser.add_argument(
        "--ranks",
        metavar="N|auto",
        default="auto",
        help="of ours, beside 1; auto: one a core, at most 4 (default: auto)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure and show."""
    ranks = ranks_from(args.ranks)
    if ranks > 1:
        require_horovod()
    data = args.data
    if data is None:
        data = cached_dataset(SimulationSettings(), say)
    dataset = open_dataset(data)
    plan = Plan(
        data=dataset.path,
        examples=len(dataset.rows("train")),
        epochs=args.epochs,
        less=args.less,
        repeats=args.repeats,
        ranks=(1,) if ranks == 1 else (1, ranks),
        seed=args.seed,
    )
    for size in plan.ranks:
        # What cannot be trained is found before anything is timed.
        plan_batches(TrainSettings(seed=args.seed), dataset, 0, size)
    if args.out is None:
        show_benchmark(summarise(run_contest(plan, say)), plan.epochs)
        return 0
    with atomic_folder(Path(args.out)) as folder:
        rows = run_contest(plan, say)
        summary = summarise(rows)
        machine = {"platform": platform.platform(), "cores": usable_cores()}
        described = {**asdict(plan), "data": str(plan.data), "machine": machine}
        (folder / "benchmark.json").write_text(
            json.dumps({"plan": described, "summary": summary, "rows": rows}, indent=2) + "\n"
        )
        with (folder / "benchmark.csv").open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    show_benchmark(summary, plan.epochs)
    return 0
