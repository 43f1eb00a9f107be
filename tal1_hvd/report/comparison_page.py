"""The page about a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tal1_hvd.benchmark.breakdown import PARTS
from tal1_hvd.comparison.matrix import Matrix
from tal1_hvd.comparison.results import Finding, Outcome, communication, find
from tal1_hvd.comparison.run import Plan
from tal1_hvd.machine import processor_name, usable_cores
from tal1_hvd.published import EPOCHS, PUBLISHED, TARGET_ACCURACY
from tal1_hvd.report import figures
from tal1_hvd.report.page import Page, Section, Table
from tal1_hvd.report.words import number, percent, tenths, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Steps = Mapping[str, Mapping[str, float]]

# Of accuracy, what is not counted as lost.
_AS_GOOD = 0.005
_PART_NAMES = {
    "first_layer": "the first layer",
    "other_compute": "other compute",
    "all_reduce": "what joins the ranks",
    "input": "input",
}


def comparison_page(plan: Plan, outcomes: Sequence[Outcome], steps: Steps) -> Page:
    """Return the page about a comparison.

    Parameters
    ----------
    plan : Plan
    outcomes : sequence of Outcome
    steps : dict
        By name of a way, the microseconds of a step and of its parts.
    """
    matrix = plan.matrix
    findings = find(outcomes, matrix.strategies)
    fastest = min(findings, key=lambda finding: finding.seconds)
    best = max(findings, key=lambda finding: finding.mean("accuracy"))
    highlights = {
        "fastest": fastest.title,
        "its training time": f"{fastest.seconds:.2f} s",
        "highest mean accuracy": f"{best.mean('accuracy'):.2%}",
        "ways": str(len(findings)),
        "seeds": str(plan.seeds),
    }
    sections = [
        _times_and_scores(plan, findings, fastest, steps),
        _learning(findings),
        _scaling(matrix, outcomes),
        _communication(findings, steps),
        *([_large_batch(find(outcomes, matrix.large_batch))] if matrix.large_batch else []),
        _cells(outcomes),
    ]
    cores = usable_cores()
    subtitle = (
        f"{plan.epochs} epochs on {'one dataset' if plan.data else 'a simulated dataset a seed'}; "
        f"{processor_name()}, {cores} core{'s' if cores > 1 else ''}"
    )
    return Page("Ways to distribute training, compared", subtitle, highlights, sections)


def reason(findings: Sequence[Finding], steps: Steps) -> str:
    """Say which way is fastest, and what it saves against the next on as many ranks.

    Parameters
    ----------
    findings : sequence of Finding
    steps : dict
        By name of a way, the microseconds of a step and of its parts.
    """
    ranked = sorted(findings, key=lambda finding: finding.seconds)
    first, others = ranked[0], ranked[1:]
    said = f"Fastest: {first.title}, {first.seconds:.2f} s."
    peers = [finding for finding in others if finding.way.ranks == first.way.ranks]
    if not peers:
        return said
    second = peers[0]
    mine, theirs = steps[first.way.name], steps[second.way.name]
    saved = {part: theirs[part] - mine[part] for part in PARTS}
    part = max(saved, key=lambda name: saved[name])
    return (
        f"{said} The next on as many ranks, {second.title}, took {second.seconds:.2f} s. A step "
        f"took {mine['step']:.0f} µs against {theirs['step']:.0f}; the largest part of the "
        f"difference, {saved[part]:.0f} µs, is {_PART_NAMES[part]}."
    )


def _times_and_scores(
    plan: Plan, findings: Sequence[Finding], fastest: Finding, steps: Steps
) -> Section:
    head = ["", "training time", "accuracy", "loss", "auROC", "auPRC", "examples a second",
            f"to {TARGET_ACCURACY:.2%} in validation"]  # fmt: skip
    ours = [
        [
            finding.title + (" *" if finding is fastest else ""),
            f"{finding.seconds:.2f} s",
            *(number(finding.mean(key)) for key in ("accuracy", "loss", "auroc", "auprc")),
            whole(finding.rate),
            tenths(finding.seconds_to_target, " s"),
        ]
        for finding in findings
    ]
    theirs = [
        [
            f"published, {p.name}",
            f"{p.train_seconds:.2f} s",
            *(number(value) for value in (p.accuracy, p.loss, p.auroc, p.auprc)),
            "",
            "",
        ]
        for p in PUBLISHED
    ]
    text = [
        f"* {reason(findings, steps)}",
        f"Test split; means over {plan.seeds} seed{'s' if plan.seeds > 1 else ''}, median times. "
        "Training time counts validation and checkpoints, not start-up; examples a second count "
        "training alone. Each rank has one thread and a batch of 64, so that more ranks make "
        "fewer, larger steps.",
    ]
    if plan.epochs != EPOCHS:
        text.append(f"The published times are of {EPOCHS} epochs, these of {plan.epochs}.")
    if any(finding.oversubscribed for finding in findings):
        text.append(
            "Oversubscribed ways had more ranks than the machine has cores: their times say "
            "nothing about scaling."
        )
    drawn: dict[str, tuple[str, Figure]] = {
        "training_time": (
            "Training time; a dot is a seed.",
            figures.bars(
                {finding.title: finding.seconds for finding in findings},
                "seconds",
                {f.title: [o.metrics["train_seconds"] for o in f.outcomes] for f in findings},
            ),
        )
    }
    return Section("Time and accuracy", text, [Table(head, [*ours, *theirs])], drawn)


def _learning(findings: Sequence[Finding]) -> Section:
    def mean(finding: Finding, column: str) -> np.ndarray:
        return np.mean([outcome.history[column] for outcome in finding.outcomes], axis=0)

    drawn = {}
    for part, title in (("train", "training"), ("validation", "validation")):
        for key, what in (("loss", "loss, nats"), ("accuracy", "accuracy")):
            curves = {f.title: mean(f, f"{part}_{key}") for f in findings if not f.oversubscribed}
            drawn[f"{part}_{key}"] = (
                f"{title.capitalize()} {key} by epoch, mean over seeds.",
                figures.learning_curve(curves, f"{title} {what}"),
            )
    curves = {
        finding.title: (
            np.mean([o.elapsed for o in finding.outcomes], axis=0),
            mean(finding, "validation_accuracy"),
        )
        for finding in findings
        if not finding.oversubscribed
    }
    drawn["accuracy_by_time"] = (
        "Validation accuracy by time.",
        figures.lines(curves, "seconds", "validation accuracy", markers=False),
    )
    return Section("Learning curves", figures=drawn)


def _scaling(matrix: Matrix, outcomes: Sequence[Outcome]) -> Section:
    head = ["", "global batch", "examples a second", "times one rank", "efficiency"]
    tables, drawn = [], {}
    for name, ways, what in (
        ("weak", matrix.weak, "the same batch a rank"),
        ("strong", matrix.strong, "the same global batch"),
    ):
        findings = find(outcomes, ways)
        one = findings[0].rate
        rows = [
            [
                finding.title,
                str(finding.way.global_batch),
                whole(finding.rate),
                f"{finding.rate / one:.2f}",
                # More ranks than cores cannot show how training scales.
                "-" if finding.oversubscribed else percent(finding.rate / one / finding.way.ranks),
            ]
            for finding in findings
        ]
        tables.append(Table([f"{name} scaling: {what}", *head[1:]], rows))
        ranks = [finding.way.ranks for finding in findings]
        fits = [finding for finding in findings if not finding.oversubscribed]
        more = [finding for finding in findings if finding.oversubscribed]
        curves = {"linear": (ranks, ranks), **_speedups("measured", fits, one)}
        if more:
            curves.update(_speedups("oversubscribed", [fits[-1], *more], one))
        drawn[f"{name}_scaling"] = (
            f"{name.capitalize()} scaling: {what}.",
            figures.lines(
                curves, "ranks", "times as fast as one rank",
                logarithmic="x", dotted=("linear", "oversubscribed"),
            ),
        )  # fmt: skip
    return Section("Scaling of Horovod", (), tables, drawn)


def _speedups(
    name: str, findings: Sequence[Finding], one: float
) -> dict[str, tuple[list[int], list[float]]]:
    ranks = [finding.way.ranks for finding in findings]
    return {name: (ranks, [finding.rate / one for finding in findings])}


def _communication(findings: Sequence[Finding], steps: Steps) -> Section:
    head = [
        "",
        "bytes a step",
        "step, µs",
        "first layer",
        "other compute",
        "joining ranks",
        "input",
    ]
    rows = []
    for finding in findings:
        step = steps[finding.way.name]
        parts = [percent(step[part] / step["step"]) for part in PARTS]
        rows.append([finding.title, whole(finding.bytes_per_step), whole(step["step"]), *parts])
    shares = {finding.title: 100 * communication(steps[finding.way.name]) for finding in findings}
    text = [
        "Bytes are those that all ranks together send to others: counted for parameter servers "
        "and gossip, by the definition of a ring all-reduce elsewhere. Parts of a step are medians "
        "of single calls of many steps; what joins the ranks is what a step takes beyond that "
        "of a rank alone, waiting for others and for cores included.",
    ]
    drawn = {
        "communication": (
            "Share of a step that ranks spend on each other.",
            figures.bars(shares, "% of a step", {}),
        )
    }
    return Section("Bytes and communication", text, [Table(head, rows)], drawn)


def _large_batch(findings: Sequence[Finding]) -> Section:
    rules = {finding.way.label: [] for finding in findings}
    for finding in findings:
        rules[finding.way.label].append(finding)
    batches = sorted({finding.way.global_batch for finding in findings})
    first = next(iter(rules.values()))[0]
    wanted = first.mean("accuracy") - _AS_GOOD
    rows, curves = [], {}
    for rule, own in rules.items():
        accuracies = [finding.mean("accuracy") for finding in own]
        kept = [finding.way.global_batch for finding in own if finding.mean("accuracy") >= wanted]
        rows.append([rule, *map(number, accuracies), f"{max(kept):,}" if kept else "none"])
        curves[rule] = (batches, [100 * accuracy for accuracy in accuracies])
    text = [
        f"Test accuracy, means over seeds, of one rank; the last column is the largest batch that "
        f"came within {100 * _AS_GOOD:g} points of {first.way.label.lower()} scaling at a batch of "
        f"{batches[0]}. The number of epochs is the same for all, so a larger batch makes fewer "
        "updates. Linear and square root say how the learning rate grows with the batch."
    ]
    drawn = {
        "large_batch": (
            "Test accuracy by global batch.",
            figures.lines(curves, "global batch", "test accuracy, %", logarithmic="x"),
        )
    }
    head = ["rule", *(f"{batch:,}" for batch in batches), "as good up to"]
    return Section("Large batches", text, [Table(head, rows)], drawn)


def _cells(outcomes: Sequence[Outcome]) -> Section:
    head = ["", "seed", "global batch", "accuracy", "auROC", "training time"]
    rows = [
        [
            outcome.cell.way.title,
            str(outcome.cell.seed),
            str(outcome.metrics["global_batch_size"]),
            number(outcome.score["accuracy"]),
            number(outcome.score["auroc"]),
            f"{outcome.metrics['train_seconds']:.2f} s",
        ]
        for outcome in outcomes
    ]
    text = ["Each is a run folder under runs/, which the commands report and predict take."]
    return Section("All trainings", text, [Table(head, rows)])
