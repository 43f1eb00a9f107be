"""What a contest found: medians and ratios, as files and as a plot."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tal1_hvd.benchmark.breakdown import PARTS
from tal1_hvd.benchmark.contest import BASELINE, Plan, name_of
from tal1_hvd.machine import usable_cores


def summarise(rows: Sequence[dict[str, Any]], ranks: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return each contestant's medians, and how much faster than plain Keras it was.

    Parameters
    ----------
    rows : sequence of dict
        What `contest.run` returned.
    ranks : sequence of int
        World sizes of ours.

    Returns
    -------
    dict
        By contestant: medians of `run`'s figures (`seconds_to_target` is None unless every repeat
        reached it); `ratio`, `ratio_low`, `ratio_high`: median and range over repeats of the
        baseline's time a sequence divided by its own in that repeat; `efficiency`: median over
        repeats of the time a sequence on one rank divided by its own and by its number of ranks.
        None where nothing was measured.
    """
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    by_name = {name: [row for row in rows if row["contestant"] == name] for name in names}
    sizes = {name_of(size): size for size in ranks}
    result = {}
    for name, own in by_name.items():
        ratios = _ratios(by_name[BASELINE], own)
        efficiency = None
        if name in sizes and name_of(1) in by_name:
            speedup = _median(_ratios(by_name[name_of(1)], own))
            efficiency = None if speedup is None else speedup / sizes[name]
        reached = all(row["seconds_to_target"] is not None for row in own)
        result[name] = {
            **{
                key: _median([row[key] for row in own])
                for key in ("microseconds", "examples_per_second", "seconds", "peak_mb")
            },
            "seconds_to_target": _median([row["seconds_to_target"] for row in own])
            if reached
            else None,
            "ratio": _median(ratios),
            "ratio_low": min(ratios, default=None),
            "ratio_high": max(ratios, default=None),
            "efficiency": efficiency,
        }
    return result


def write_results(
    folder: Path,
    plan: Plan,
    rows: Sequence[dict[str, Any]],
    summary: Mapping[str, Mapping[str, Any]],
    parts: Mapping[str, Mapping[str, float]],
) -> None:
    """Write ``benchmark.json``, ``benchmark.csv`` and ``benchmark.png``.

    Parameters
    ----------
    folder : Path
        It exists.
    plan : Plan
    rows, summary
        Of `contest.run` and `summarise`.
    parts : dict
        By contestant, what `break_down` returned.
    """
    machine = {"platform": platform.platform(), "cores": usable_cores()}
    report = {
        "plan": {**asdict(plan), "data": str(plan.data), "machine": machine},
        "summary": summary,
        "step": parts,
        "rows": rows,
    }
    (folder / "benchmark.json").write_text(json.dumps(report, indent=2) + "\n")
    with (folder / "benchmark.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot(summary, parts, folder / "benchmark.png")


def plot(
    summary: Mapping[str, Mapping[str, Any]],
    parts: Mapping[str, Mapping[str, float]],
    path: Path,
) -> None:
    """Draw time a sequence by contestant, and the parts of ours' steps, to a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    times, shares = figure.subplots(1, 2)
    known = {name: found for name, found in summary.items() if found["microseconds"] is not None}
    bars = times.barh(list(known), [found["microseconds"] for found in known.values()])
    ratios = [found["ratio"] for found in known.values()]
    times.bar_label(bars, ["" if ratio is None else f" {ratio:.1f}x" for ratio in ratios])
    # Nothing can be drawn on a logarithmic scale without a number.
    times.set(xscale="log" if known else "linear", xlabel="microseconds a sequence")
    times.margins(x=0.2)
    left = np.zeros(len(parts))
    for part in PARTS:
        widths = np.array([found[part] for found in parts.values()])
        shares.barh(list(parts), widths, left=left, label=part.replace("_", " "))
        left += widths
    shares.set(xlabel="microseconds a step, by part")
    shares.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=4, frameon=False)
    for axes in (times, shares):
        axes.invert_yaxis()
    figure.savefig(path, dpi=150)


def _ratios(ones: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[float]:
    """Return the ratios of two contestants' times a sequence in the repeats that have both."""
    times = [
        (one["microseconds"], other["microseconds"])
        for one, other in zip(ones, others, strict=True)
    ]
    return [one / other for one, other in times if one is not None and other is not None]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
