"""Measure how fast training is, against plain Keras with MirroredStrategy on the same data.

Plain PyTorch takes part where it is installed (pip install torch). The contestants train in turn,
each for two numbers of epochs; the difference by the outside clock is the time of epochs alone,
validation and checkpoints included. What counts are the ratios within a turn. On 2 cores a turn
takes about 5 minutes, most of it plain Keras.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tal1_hvd.benchmark.breakdown import break_down
from tal1_hvd.benchmark.contest import Plan, name_of
from tal1_hvd.benchmark.contest import run as run_contest
from tal1_hvd.benchmark.results import summarise, write_results
from tal1_hvd.cli.arguments import Parser
from tal1_hvd.cli.errors import say
from tal1_hvd.cli.tables import show_benchmark, show_step
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.files import atomic_folder
from tal1_hvd.distributed.launch import find_launcher, ranks_from
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
        "--out", metavar="DIR", help="folder for benchmark.json, .csv and .png (default: none)"
    )
    for flag, default, meaning in (
        ("--epochs", 60, "of the longer training"),
        ("--less", 10, "epochs of the shorter one, whose time is taken off; below --epochs"),
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
        help="ours trains on 1 rank and on so many; auto: one a core, at most 4 (default: auto)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure and show."""
    ranks = ranks_from(args.ranks)
    if ranks > 1:
        find_launcher(ranks)
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
        rows, parts = _measure(plan)
        summary = summarise(rows, plan.ranks)
    else:
        with atomic_folder(Path(args.out)) as folder:
            rows, parts = _measure(plan)
            summary = summarise(rows, plan.ranks)
            write_results(folder, plan, rows, summary, parts)
    show_benchmark(summary, plan.epochs)
    show_step(parts)
    return 0


def _measure(plan: Plan) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Return the contest's rows and the parts of ours' steps, which take seconds and come first."""
    say("parts of a step")
    settings = TrainSettings(data=str(plan.data), seed=plan.seed)
    parts = {name_of(size): break_down(settings, size) for size in plan.ranks}
    return run_contest(plan, say), parts
