"""The page about a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from tal1_hvd.comparison.matrix import LAMB_RATE, LARS_RATE, Matrix
from tal1_hvd.comparison.reason import Steps, reason
from tal1_hvd.comparison.results import Finding, Outcome, communication, find, shares
from tal1_hvd.comparison.run import Plan
from tal1_hvd.published import EPOCHS, PUBLISHED, TARGET_ACCURACY
from tal1_hvd.report import figures
from tal1_hvd.report.page import Page, Section, Table
from tal1_hvd.report.words import number, percent, tenths, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of accuracy, what is not counted as lost.
_AS_GOOD = 0.005


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
    large = find(outcomes, matrix.large_batch)
    fastest = min(findings, key=lambda finding: finding.seconds)
    best = max(findings, key=lambda finding: finding.mean("accuracy"))
    highlights = {
        "fastest": fastest.title,
        "its training time": f"{fastest.seconds:.2f} s",
        "highest accuracy": f"{best.mean('accuracy'):.2%}",
        "reached by": best.title,
        "ways": str(len(findings)),
        "seeds": str(plan.seeds),
    }
    sections = [
        _times_and_scores(plan, findings, fastest, steps),
        _learning(findings),
        _scaling(matrix, outcomes),
        _communication(findings, steps),
        *([_large_batch(large, plan.seeds)] if large else []),
        _cells(outcomes),
    ]
    subtitle = (
        f"{plan.epochs} epochs on {plan.data or 'a simulated dataset a seed'}; "
        f"{plan.processor}, {plan.cores} core{'s' if plan.cores > 1 else ''}"
    )
    return Page("Ways to distribute training, compared", subtitle, highlights, sections)


def _times_and_scores(
    plan: Plan, findings: Sequence[Finding], fastest: Finding, steps: Steps
) -> Section:
    same_data = all(o.published_data for finding in findings for o in finding.outcomes)
    head = ["", "training time", "accuracy", "loss", "auROC", "auPRC", "examples a second"]
    head += [f"to {TARGET_ACCURACY:.2%} in validation"] if same_data else []
    ours = [
        [
            finding.title + (" *" if finding is fastest else ""),
            f"{finding.seconds:.2f} s",
            *(number(finding.mean(key)) for key in ("accuracy", "loss", "auroc", "auprc")),
            whole(finding.rate),
            *([_to_target(finding)] if same_data else []),
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
        for p in (PUBLISHED if same_data else ())
    ]
    text = [
        f"* {reason(findings, steps)}",
        f"Scores of the {_split(findings)} split: means over {plan.seeds} seeds, as times are "
        "medians. "
        if plan.seeds > 1
        else f"Scores of the {_split(findings)} split and times are of one training each: they "
        "vary from seed to seed, and with what else the machine does. ",
        "Training time counts validation and checkpoints, not start-up; examples a second count "
        "training alone. Each rank has one thread and a batch of 64, so that more ranks make "
        "fewer, larger steps.",
    ]
    if same_data:
        text.append(
            f"The last column is the time until {TARGET_ACCURACY:.2%}, the best published test "
            "accuracy, were reached in validation: the median of the seeds that did, and how many "
            "these are if not all; a dash if none."
        )
    if same_data and plan.epochs != EPOCHS:
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


def _to_target(finding: Finding) -> str:
    seconds, reached = finding.seconds_to_target
    some = 0 < reached < len(finding.outcomes)
    return tenths(seconds, " s") + (f" ({reached} of {len(finding.outcomes)})" if some else "")


def _learning(findings: Sequence[Finding]) -> Section:
    def mean(finding: Finding, column: str) -> np.ndarray:
        return np.mean([outcome.history[column] for outcome in finding.outcomes], axis=0)

    drawn = {}
    for part, title in (("train", "training"), ("validation", "validation")):
        for key, what in (("loss", "loss, nats"), ("accuracy", "accuracy")):
            curves = {f.way.title: mean(f, f"{part}_{key}") for f in findings}
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
        "Validation accuracy by time, of ways with no more ranks than cores.",
        figures.lines(curves, "seconds", "validation accuracy", markers=False),
    )
    text = [
        "Ways that compute the same (all-reduce, a synchronous server, MirroredStrategy and "
        "MultiWorkerMirroredStrategy, on as many ranks) lie on top of each other."
    ]
    return Section("Learning curves", text, figures=drawn)


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
                logarithmic=True, dotted=("linear", "oversubscribed"),
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
        parts = [percent(share) for share in shares(step).values()]
        rows.append([finding.title, whole(finding.bytes_per_step), whole(step["step"]), *parts])
    joining = {f.title: 100 * communication(steps[f.way.name]) for f in findings}
    text = [
        "Bytes are those that all ranks together send to others: counted for parameter servers "
        "and gossip, by the definition of a ring all-reduce elsewhere. Parts of a step are medians "
        "of single calls of many steps; what joins the ranks is what a step takes beyond that "
        "of a rank alone, waiting for others and for cores included.",
    ]
    drawn = {
        "communication": (
            "Share of a step that ranks spend on each other.",
            figures.bars(joining, "% of a step", {}),
        )
    }
    return Section("Bytes and communication", text, [Table(head, rows)], drawn)


def _large_batch(findings: Sequence[Finding], seeds: int) -> Section:
    rules: dict[str, list[Finding]] = {}
    for finding in findings:
        rules.setdefault(finding.way.label, []).append(finding)
    batches = sorted({finding.way.global_batch for finding in findings})
    accuracies = {
        rule: [f.mean("accuracy") if len(f.outcomes) == seeds else None for f in own]
        for rule, own in rules.items()
    }
    reference, first = next(iter(accuracies.items()))
    rows, curves = [], {}
    for rule, found in accuracies.items():
        as_good = takewhile(
            lambda pair: None not in (first[0], pair[1]) and pair[1] >= first[0] - _AS_GOOD,
            zip(batches, found, strict=True),
        )
        *_, last = "none", *(f"{batch:,}" for batch, _ in as_good)
        rows.append([rule, *map(number, found), last])
        known = [(b, 100 * a) for b, a in zip(batches, found, strict=True) if a is not None]
        curves[rule] = ([b for b, _ in known], [a for _, a in known])
    text = [
        f"Accuracy on the {_split(findings)} split, means over seeds, of one rank; a dash where "
        "the loss of a seed was not finite. The last column is the largest batch up to which a "
        f"rule stayed within {100 * _AS_GOOD:g} points of {reference} at a batch of {batches[0]}. "
        "All train for as many epochs, so a larger batch makes fewer updates.",
        "The learning rate grows from its value at a batch of 64 in proportion to the batch "
        "(linear) or to its square root. That value is the published one, 0.001, for Adam, which "
        f"was not tuned; {LAMB_RATE:g} for LAMB and {LARS_RATE:g} for LARS are the powers of 2 of "
        "the highest validation accuracy on the default dataset, seed 0.",
    ]
    drawn = {
        "large_batch": (
            "Accuracy by global batch.",
            figures.lines(curves, "global batch", "accuracy, %", logarithmic=True),
        )
    }
    head = ["rule", *(f"{batch:,}" for batch in batches), "as good up to"]
    return Section("Large batches", text, [Table(head, rows)], drawn)


def _split(findings: Sequence[Finding]) -> str:
    """Return the split that was scored."""
    return next((outcome.split for finding in findings for outcome in finding.outcomes), "test")


def _cells(outcomes: Sequence[Outcome]) -> Section:
    head = ["run folder", "seed", "global batch", "accuracy", "auROC", "training time"]
    rows = [
        [
            f"runs/{outcome.cell.name}",
            str(outcome.cell.seed),
            str(outcome.metrics["global_batch_size"]),
            number(outcome.score["accuracy"]),
            number(outcome.score["auroc"]),
            f"{outcome.metrics['train_seconds']:.2f} s",
        ]
        for outcome in outcomes
    ]
    text = ["Each is a run folder, which the commands report, evaluate and predict take."]
    return Section("All trainings", text, [Table(head, rows)])
