"""What faults do to training: harms real jobs on purpose, and writes docs/faults.md.

python benchmarks/faults.py [--kills 50] [--epochs 400] [--seed 0] [--only NAME ...] [--no-docs]

Half of the kills meet jobs of 2 ranks under mpirun, half elastic ones of 3 under launch/elastic;
each a random rank at a random moment from its start to its end, by SIGKILL, SIGSTOP and SIGTERM in
turn. Afterwards a run goes on by --resume where it has ended, and its result is compared with that
of a run that nothing befell. Each of the other faults comes once. With Horovod from launch/setup;
faults of the network and the disk need root, those of the network OpenSSH's server and iproute2,
that of the clock libfaketime; else they are left out.

Exit code: 0 if nothing was lost and everything ended or went on within 60 seconds; else 1.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

import psutil
from fault_cases import CASES
from fault_jobs import (
    IN_TIME,
    LAUNCH,
    Case,
    Job,
    MissingError,
    Setting,
    UnexpectedError,
    epochs_saved,
    furthest,
    left,
    mpirun,
    train,
)
from jinja2 import Environment, StrictUndefined

from tal1_hvd.machine import processor_name, usable_cores
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.simulation.simulate import simulate

TEMPLATE = Path(__file__).with_name("faults.md.j2")
DOCS = Path(__file__).parent.parent / "docs" / "faults.md"
SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM)
RANKS = {"mpirun": 2, "elastic": 3}


class Kill(NamedTuple):
    """What one kill led to.

    Attributes
    ----------
    launcher, number : str
    moment : float
        Seconds after the job's start.
    seconds : float
        Until the job ended, or the other ranks went on.
    code : int, optional
        The job's exit code; None if it hung.
    went_on : bool
        Without a new start.
    kept : bool
        In the end the result was that of a run that nothing befell, and no rank lived on.
    """

    launcher: str
    number: str
    moment: float
    seconds: float
    code: int | None
    went_on: bool
    kept: bool

    @property
    def is_well(self) -> bool:
        """Whether all came as it should."""
        return self.kept and self.code is not None and self.seconds <= IN_TIME


def job_of(launcher: str, setting: Setting, out: Path, log: Path, *more: object) -> Job:
    """Start a job of a launcher, or go on with it."""
    if launcher == "mpirun":
        return Job([*mpirun(2), *train(out, *setting.flags, *more)], log)
    exact = ["--precision", "float64", "--fixed-global-batch", *setting.flags]
    return Job([LAUNCH / "elastic", "--ranks", 3, "--out", out, *exact, *more], log)


def is_kept(launcher: str, out: Path, whole: Path) -> bool:
    """Say whether a run's result is that of another, bit by bit or, on fewer ranks, to 1e-9."""
    if launcher == "mpirun":
        name = "predictions.tsv"
        return (out / name).read_bytes() == (whole / name).read_bytes()
    return furthest(out, whole) < 1e-9


def kill(
    launcher: str, setting: Setting, whole: Path, lasts: float, number: signal.Signals, draw
) -> Kill:
    """Harm one job at a random moment, see what becomes of it, and go on with it."""
    moment, which = draw.uniform(0, lasts), draw.random()
    while True:
        result = _kill_at(moment, which, launcher, setting, whole, number)
        if result is not None:
            return result
        # It was over before its time.
        moment *= 0.9


def _kill_at(
    moment: float, which: float, launcher: str, setting: Setting, whole: Path, number
) -> Kill | None:
    out, log = setting.fresh("killed")
    with job_of(launcher, setting, out, log) as job:
        time.sleep(moment)
        ranks = job.ranks()
        saved = epochs_saved(out)
        since = time.monotonic()
        try:
            ranks[int(which * len(ranks))].send_signal(number)
        except (IndexError, psutil.NoSuchProcess):
            hangs = job.end() is None
            return Kill(launcher, number.name, moment, 0, None, False, False) if hangs else None
        went_on = launcher == "elastic" and job.says("now, going on")
        seconds = time.monotonic() - since
        code = job.end()
        if not went_on:
            seconds = time.monotonic() - since
        kept = code is not None and epochs_saved(out) >= saved and not left(ranks)
    if code != 0:
        again = job_of(launcher, setting, out, log.with_suffix(".again"), "--resume")
        kept = kept and again.end() == 0
    kept = kept and is_kept(launcher, out, whole)
    return Kill(launcher, number.name, moment, seconds, code, went_on or code == 0, kept)


def kills(count: int, seed: int, setting: Setting) -> Iterator[Kill]:
    """Yield what as many kills led to."""
    draw = random.Random(seed)  # noqa: S311 (no secret)
    wholes = {}
    for launcher in RANKS:
        out, log = setting.fresh(f"whole-{launcher}")
        job = job_of(launcher, setting, out, log)
        if job.end() != 0:
            raise RuntimeError(job.text())
        wholes[launcher] = out, time.monotonic() - job.began
    for turn in range(count):
        launcher = list(RANKS)[turn % 2]
        number = SIGNALS[turn // 2 % len(SIGNALS)]
        result = kill(launcher, setting, *wholes[launcher], number, draw)
        print(f"kill {turn + 1}/{count}: {result}", flush=True)
        yield result


def kill_rows(results: list[Kill]) -> Iterator[list[str]]:
    """Yield the table's lines about kills: one for each launcher and signal."""
    for launcher, number in dict.fromkeys((kill.launcher, kill.number) for kill in results):
        some = [kill for kill in results if (kill.launcher, kill.number) == (launcher, number)]
        seconds = [kill.seconds for kill in some]
        codes = Counter("hung" if kill.code is None else str(kill.code) for kill in some)
        yield [
            f"{len(some)} x {number}, {launcher}",
            f"{statistics.median(seconds):.1f} (most {max(seconds):.1f})",
            f"{sum(kill.went_on for kill in some)} of {len(some)}",
            ", ".join(f"{code} ({n})" for code, n in codes.most_common()),
            "nothing" if all(kill.kept for kill in some) else "**results differ**",
        ]


def case_rows(cases: dict[str, Case], setting: Setting) -> Iterator[tuple[list[str], bool]]:
    """Yield the table's lines about the other faults, and whether all came as it should."""
    for name, case in cases.items():
        is_well = True
        try:
            result = case(setting)
        except MissingError as error:
            result = "-", f"not tried: {error}", "-", "-"
        except UnexpectedError as error:
            result = "-", f"**{error}**", "-", "-"
            is_well = False
        print(f"{name}: {result}", flush=True)
        yield [name.replace("_", " "), *result], is_well


def page(**values: object) -> str:
    """Return docs/faults.md."""
    template = Environment(undefined=StrictUndefined, autoescape=False).from_string(  # noqa: S701 (Markdown)
        TEMPLATE.read_text()
    )
    values |= {"today": date.today(), "cores": usable_cores(), "processor": processor_name()}
    return template.render(**values).rstrip() + "\n"


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=400, help="of the jobs that are killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--no-docs", action="store_true", help="print the page, write no file")
    args = parser.parse_args()
    simulated = SimulationSettings(
        length=400, center=100, positives=1000, negatives=1000, seed=args.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        data = simulate(simulated, Path(folder) / "data")
        setting = Setting(Path(folder), data, ("--data", data, "--epochs", args.epochs))
        cases = [*case_rows({name: CASES[name] for name in args.only}, setting)]
        harmed = list(kills(args.kills, args.seed, setting))
        text = page(
            kills=[*kill_rows(harmed)],
            cases=[row for row, _ in cases],
            seed=args.seed,
            training=f"2,000 sequences of 400 bp, {args.epochs:,} epochs",
        )
    print(text)
    if not args.no_docs:
        DOCS.write_text(text)
    well = all(kill.is_well for kill in harmed) and all(is_well for _, is_well in cases)
    return 0 if well else 1


if __name__ == "__main__":
    # So that jobs, mounts and networks are cleared away then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
