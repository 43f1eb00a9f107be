"""Tables for people, on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from tal1_hvd.errors import printable
from tal1_hvd.published import PUBLISHED, TARGET_ACCURACY
from tal1_hvd.report.words import (
    METRIC_NAMES,
    interval,
    number,
    percent,
    tenths,
    whole,
)
from tal1_hvd.training.reporters import describe_epoch

if TYPE_CHECKING:
    from tal1_hvd.comparison.results import Finding
    from tal1_hvd.training.status import Status

_OF_A_SESSION = ("model", "strategy", "world_size", "global_batch_size")
_WIDEST = 200
_WITH_INTERVAL = ("accuracy", "auroc", "auprc")


def show_metrics(metrics: dict[str, Any], way: str, published: bool) -> None:
    """Print a run's test metrics, beside the published ones where it is the same experiment.

    Parameters
    ----------
    metrics : dict
        What `metrics.json` holds.
    way : str
        How it was trained.
    published : bool
        Show the published ones.
    """
    test = metrics["test"]
    theirs = PUBLISHED if published else ()
    table = _table("")
    ranks = metrics["world_size"]
    table.add_column(f"this run\n{ranks} rank{'s' if ranks > 1 else ''}", justify="right")
    for column in theirs:
        table.add_column(f"published\n{column.name}", justify="right")
    if test is not None:
        for key in ("accuracy", "loss", "auroc", "auprc"):
            row = [number(test[key])]
            table.add_row(
                f"test {METRIC_NAMES[key]}", *row, *(number(getattr(p, key)) for p in theirs)
            )
    seconds = [f"{p.train_seconds:.2f} s" for p in theirs]
    table.add_row("training time", f"{metrics['train_seconds']:.2f} s", *seconds)
    _print(table)
    if test is not None:
        intervals = (f"{METRIC_NAMES[k]} {interval(test[f'{k}_ci95'])}" for k in _WITH_INTERVAL)
        print(f"95 % intervals: {', '.join(intervals)}")
    epochs = "1 epoch" if metrics["epochs"] == 1 else f"{metrics['epochs']} epochs"
    print(
        f"{epochs}, best {metrics['best_epoch']}; "
        f"{metrics['examples_per_second']:,.0f} examples a second; "
        f"global batch {metrics['global_batch_size']}; {way}"
    )


def show_evaluation(metrics: dict[str, Any], title: str) -> None:
    """Print all metrics of one split.

    Parameters
    ----------
    metrics : dict
        What `full_summary` returns.
    title : str
    """
    table = _table(title)
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for key, name in METRIC_NAMES.items():
        table.add_row(name, number(metrics[key]), interval(metrics.get(f"{key}_ci95")))
    _print(table)


def show_comparison(findings: Sequence[Finding]) -> None:
    """Print what the ways of a comparison reached: means over seeds, median times.

    Parameters
    ----------
    findings : sequence of Finding
    """
    table = _table("")
    for column in ("training time", "accuracy", "auROC"):
        table.add_column(column, justify="right")
    for finding in findings:
        scores = (number(finding.mean(key)) for key in ("accuracy", "auroc"))
        table.add_row(finding.title, f"{finding.seconds:.2f} s", *scores)
    _print(table)


def show_benchmark(summary: dict[str, dict[str, Any]], epochs: int) -> None:
    """Print what a benchmark found.

    Parameters
    ----------
    summary : dict
        What `summarise` returns.
    epochs : int
        Of the longer training.
    """
    table = _table("")
    for contestant in summary:
        table.add_column(contestant, justify="right", no_wrap=True)
    found = summary.values()
    for title, cells in (
        ("µs a sequence", (tenths(f["microseconds"]) for f in found)),
        ("examples a second", (whole(f["examples_per_second"]) for f in found)),
        ("times as fast", (tenths(f["ratio"]) for f in found)),
        ("  from repeat to repeat", (_range(f["ratio_low"], f["ratio_high"]) for f in found)),
        ("scaling efficiency", (percent(f["efficiency"]) for f in found)),
        (f"{epochs} epochs, all in", (tenths(f["seconds"], " s") for f in found)),
        (
            f"to {TARGET_ACCURACY:.2%} in validation",
            (tenths(f["seconds_to_target"], " s") for f in found),
        ),
        ("largest process", (whole(f["peak_mb"], " MB") for f in found)),
    ):
        table.add_row(title, *cells)
    _print(table)


def show_step(parts: Mapping[str, Mapping[str, float]]) -> None:
    """Show where a training step's time goes.

    Parameters
    ----------
    parts : dict
        By contestant, what `break_down` returned.
    """
    table = _table("one step")
    for name in next(iter(parts.values())):
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for contestant, found in parts.items():
        shares = {name: time for name, time in found.items() if name != "step"}
        whole = sum(shares.values())
        of_whole = [f"{time / whole:.0%}" for time in shares.values()]
        table.add_row(contestant, f"{found['step']:.0f} µs", *of_whole)
    _print(table)


def show_status(status: Status, run: str) -> None:
    """Print what a run does.

    Parameters
    ----------
    status : Status
    run : str
        Its folder, as the user named it.
    """
    part = f", {status.examples / max(status.epoch_examples, 1):.0%} of the next"
    done = f"epoch {status.epoch} of {status.epochs} done{part if status.examples else ''}"
    left = "" if status.seconds_left is None else f"; about {_time(status.seconds_left)} left"
    why = f": {printable(status.why)}" if status.why else ""
    print(f"{printable(run)}: {status.state}{why}; {done}{left}")
    if status.session:
        told = (f"{key.replace('_', ' ')} {status.session.get(key)}" for key in _OF_A_SESSION)
        print(printable(", ".join(told)))
    if status.row:
        print(printable(describe_epoch(status.row, status.epochs)))
    if status.checkpoint:
        ago = _time(status.now - status.checkpoint["time"])
        within = status.checkpoint.get("examples")
        rest = f" and {within:,} examples" if isinstance(within, int) and within else ""
        epoch = printable(status.checkpoint.get("epoch"))
        print(f"last checkpoint after epoch {epoch}{rest}, {ago} ago")
    table = _table("rank")
    for column in ("host", "process", "device", "a step", "waiting", "memory", "GPU memory"):
        table.add_column(column, justify="left" if column in ("host", "device") else "right")
    for rank in status.ranks:
        place = (str(rank.get(key, "-")) for key in ("rank", "host", "process", "device"))
        table.add_row(*(escape(printable(word)) for word in place), *_costs(rank))
    if status.ranks:
        _print(table)


def _costs(rank: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return what an epoch cost a rank; dashes before it is known."""
    try:
        seconds, steps = float(rank["seconds"]), max(int(rank["steps"]), 1)
        return (
            f"{1000 * seconds / steps:.2f} ms",
            percent(float(rank["waited"]) / max(seconds, 1e-9)),
            whole(float(rank["memory"]) / 1e6, " MB"),
            whole(float(rank["device_memory"]) / 1e6, " MB") if rank["device_memory"] else "-",
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return "-", "-", "-", "-"


def _time(seconds: float) -> str:
    """Return a duration in words."""
    seconds = max(round(seconds), 0)
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def _table(title: str) -> Table:
    # No colours: launchers hand a terminal to ranks whose output ends in a file.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    table.add_column(title, no_wrap=True)
    return table


def _print(table: Table) -> None:
    console = Console(highlight=False)
    # Where there is no terminal, nothing has to be cut to fit one.
    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    if not console.is_terminal:
        console.width = max(console.width, needed)
    console.print(table)
    sys.stdout.flush()


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.1f}-{high:.1f}"
