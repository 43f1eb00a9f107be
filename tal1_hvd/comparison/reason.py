"""Why the fastest way of a comparison is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tal1_hvd.benchmark.breakdown import PARTS
from tal1_hvd.comparison.results import Finding

Steps = Mapping[str, Mapping[str, float]]

_PART_NAMES = {
    "first_layer": "the first layer",
    "other_compute": "other compute",
    "all_reduce": "what joins the ranks",
    "input": "input",
}


def reason(findings: Sequence[Finding], steps: Steps) -> str:
    """Say which way is fastest, and by what it saves time against the next.

    Parameters
    ----------
    findings : sequence of Finding
    steps : dict
        By name of a way, the microseconds of a step and of its parts.
    """
    first, *others = sorted(findings, key=lambda finding: finding.seconds)
    said = f"Fastest: {first.title}, {first.seconds:.2f} s."
    if not others:
        return said
    second = others[0]
    said += f" The next, {second.title}, took {second.seconds:.2f} s."
    mine, theirs = steps[first.way.name], steps[second.way.name]
    sizes = first.way.global_batch, second.way.global_batch
    took = [f"{step['step']:,.0f} µs" for step in (mine, theirs)]
    if sizes[0] != sizes[1]:
        took = [f"{time} for {size} examples" for time, size in zip(took, sizes, strict=True)]
    if mine["step"] / sizes[0] >= theirs["step"] / sizes[1]:
        return (
            f"{said} Steps do not explain it: taken apart alone, one took {took[0]} against "
            f"{took[1]}."
        )
    said += f" A step took {took[0]} against {took[1]}"
    if sizes[0] != sizes[1]:
        return f"{said}."
    saved = {part: theirs[part] - mine[part] for part in PARTS}
    part = max(saved, key=lambda name: saved[name])
    return (
        f"{said}; the largest part of the difference, {saved[part]:,.0f} µs, is "
        f"{_PART_NAMES[part]}."
    )
