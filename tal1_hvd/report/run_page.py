"""The page about one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tal1_hvd.errors import InputError
from tal1_hvd.evaluation.curves import calibration_curve, precision_recall_curve, roc_curve
from tal1_hvd.published import PUBLISHED
from tal1_hvd.report import figures
from tal1_hvd.report.page import Page, Section, Table
from tal1_hvd.report.words import METRIC_NAMES, interval, number
from tal1_hvd.training.manifest import is_published_experiment, read_manifest
from tal1_hvd.training.run_folder import RunFolder, read_columns
from tal1_hvd.training.settings import describe_way, read_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BESIDE_PUBLISHED = ("accuracy", "loss", "auroc", "auprc")


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run's folder says.

    Attributes
    ----------
    name : str
    metrics, manifest : dict
        Of ``metrics.json`` and ``manifest.json``.
    settings : dict
        Of ``config.yaml``.
    history : dict
        By column of ``history.csv``, a value for each epoch; NaN where there is none.
    labels, scores : np.ndarray, shape=(n_test,)
        Of ``predictions.tsv``.
    published : bool
        It is the published experiment.
    """

    name: str
    metrics: Mapping[str, Any]
    manifest: Mapping[str, Any]
    settings: Mapping[str, Any]
    history: Mapping[str, Sequence[float]]
    labels: np.ndarray
    scores: np.ndarray
    published: bool


def read_run(folder: RunFolder) -> FinishedRun:
    """Read what a page needs.

    Raises
    ------
    InputError
        The run is not finished, or its folder is damaged.
    """
    folder.require_model()
    settings, ranks = read_settings(folder.config)
    metrics, manifest = folder.read_metrics(), read_manifest(folder.manifest)
    history = read_columns(folder.history)
    predictions = read_columns(folder.predictions, "\t", words=("id",))
    try:
        test = metrics["test"]
        for path, table, rows in (
            (folder.history, history, metrics["epochs"]),
            (folder.predictions, predictions, 0 if test is None else test["n"]),
        ):
            found = len(next(iter(table.values())))
            if found != rows:
                raise InputError(f"{path}: {found} rows, the run's metrics are of {rows}")
        labels, scores = predictions["label"], predictions["score"]
        if not np.isin(labels, (0, 1)).all() or not ((scores >= 0) & (scores <= 1)).all():
            raise InputError(
                f"{folder.predictions}: expected labels of 0 and 1, and scores from 0 to 1; the "
                "file was changed"
            )
        return FinishedRun(
            name=folder.path.resolve().name,
            metrics=metrics,
            manifest=manifest,
            settings={**asdict(settings), "ranks": ranks},
            history=history,
            labels=labels,
            scores=scores,
            published=is_published_experiment(settings, metrics, manifest),
        )
    except (KeyError, TypeError, StopIteration) as error:
        raise _changed(folder.path.name, error) from None


def run_page(run: FinishedRun) -> Page:
    """Return the page about a run.

    Raises
    ------
    InputError
        The run's files lack something.
    """
    try:
        return _page(run)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise _changed(run.name, error) from None


def _changed(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: the run's files were changed, or are of another version: {error!r}")


def _page(run: FinishedRun) -> Page:
    metrics, manifest = run.metrics, run.manifest
    test = metrics["test"]
    ranks, settings = metrics["world_size"], run.settings
    how = describe_way(metrics["strategy"], settings["aggregation"], settings["staleness"])
    highlights = {
        "test accuracy": "-" if test is None else f"{test['accuracy']:.2%}",
        "test auROC": "-" if test is None else number(test["auroc"]),
        "training time": f"{metrics['train_seconds']:.2f} s",
        "examples a second": f"{metrics['examples_per_second']:,.0f}",
        "ranks": f"{ranks} ({how})",
    }
    sections = [_scores(run), _learning(run), _speed(run), _settings(run)]
    subtitle = (
        f"{metrics['model']} by {settings['optimizer']}, {metrics['epochs']} epochs, best "
        f"{metrics['best_epoch']}; "
        f"global batch {metrics['global_batch_size']}; started {manifest['started']}; "
        f"data {manifest['dataset']['path']}"
    )
    return Page(f"Training run {run.name}", subtitle, highlights, sections)


def _scores(run: FinishedRun) -> Section:
    test = run.metrics["test"]
    if test is None:
        return Section("Test split", ["The dataset has no test sequences."])
    published = PUBLISHED if run.published else ()
    head = ["", "this run", "95 % interval", *(f"published, {p.name}" for p in published)]
    rows = []
    for key, name in METRIC_NAMES.items():
        theirs = [number(getattr(p, key)) if key in _BESIDE_PUBLISHED else "" for p in published]
        rows.append([name, number(test[key]), interval(test.get(f"{key}_ci95")), *theirs])
    seconds = [f"{p.train_seconds:.2f} s" for p in published]
    rows.append(["training time", f"{run.metrics['train_seconds']:.2f} s", "", *seconds])
    text = [
        f"{test['n']:,} sequences that took no part in training, scored by the epoch of lowest "
        "validation loss. Intervals are of 1,000 bootstrap resamples."
    ]
    return Section("Test split", text, [Table(head, rows)], _score_figures(run))


def _score_figures(run: FinishedRun) -> dict[str, tuple[str, Figure]]:
    labels, scores, test = run.labels, run.scores, run.metrics["test"]
    drawn = {}
    if test["auroc"] is not None:
        seed = run.settings["seed"]
        drawn["roc"] = (
            "Receiver operating characteristic.",
            figures.roc(roc_curve(labels, scores, seed), test["auroc"]),
        )
        curve = precision_recall_curve(labels, scores, seed)
        drawn["precision_recall"] = (
            "Precision over recall.",
            figures.precision_recall(curve, test["auprc"], float(np.mean(labels))),
        )
    drawn["calibration"] = (
        "Calibration: how often sequences with like scores are positive, with 95 % intervals.",
        figures.calibration(calibration_curve(labels, scores), test["ece"]),
    )
    return drawn


def _learning(run: FinishedRun) -> Section:
    best = run.metrics["best_epoch"]
    drawn = {}
    for key, what in (("loss", "loss, nats"), ("accuracy", "accuracy")):
        curves = {part: run.history[f"{part}_{key}"] for part in ("train", "validation")}
        drawn[f"learning_{key}"] = (
            f"{key.capitalize()} while training, and of the validation split after each epoch.",
            figures.learning_curve(
                {"training": curves["train"], "validation": curves["validation"]}, what, best
            ),
        )
    return Section("Learning curves", figures=drawn)


def _speed(run: FinishedRun) -> Section:
    metrics = run.metrics
    rate = [value / 1000 for value in run.history["examples_per_second"]]
    drawn = {
        "throughput": (
            "Training alone, in each epoch.",
            figures.learning_curve({"all ranks": rate}, "thousand examples a second"),
        )
    }
    rows = [
        ["training time", f"{metrics['train_seconds']:.2f} s"],
        ["examples a second, validation and checkpoints counted in",
         f"{metrics['examples_per_second']:,.0f}"],
        ["strategy", metrics["strategy"]],
        ["aggregation", metrics["aggregation"]],
        ["bytes that all ranks send in a step", f"{metrics['bytes_per_step']:,.0f}"],
    ]  # fmt: skip
    ranks = [
        [str(rank["rank"]), rank["host"], rank["device"], rank["first_layer"]]
        for rank in run.manifest["ranks"]
    ]
    head = ["rank", "host", "device", "first layer"]
    return Section("Speed and ranks", (), [Table([], rows), Table(head, ranks)], drawn)


def _settings(run: FinishedRun) -> Section:
    settings = [
        [name.replace("_", "-"), "-" if value is None else str(value)]
        for name, value in run.settings.items()
    ]
    manifest = run.manifest
    made_with = [
        ["command", " ".join(manifest["command"])],
        ["platform", manifest["platform"]],
        ["tal1-hvd", manifest["tool_version"]],
        *([name, version] for name, version in manifest["versions"].items()),
        ["dataset", manifest["dataset"]["path"]],
        ["task", str(manifest["dataset"]["task"])],
        ["fingerprint", manifest["dataset"]["fingerprint"]],
    ]
    return Section("Settings, versions, data", (), [Table([], settings), Table([], made_with)])
