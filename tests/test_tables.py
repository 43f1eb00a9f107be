"""The tables that people read: every figure, nothing cut off, plain text."""

from __future__ import annotations

import re

import pytest

from tal1_hvd.cli.tables import (
    show_benchmark,
    show_comparison,
    show_evaluation,
    show_metrics,
    show_step,
)
from tal1_hvd.comparison.matrix import Cell, Way
from tal1_hvd.comparison.results import Outcome, find
from tal1_hvd.published import PUBLISHED

TEST = {
    "n": 2000,
    "accuracy": 0.96154,
    "loss": 0.10231,
    "auroc": 0.99312,
    "auprc": 0.98765,
    "auroc_ci95": [0.99101, 0.99502],
    "auprc_ci95": [0.98503, 0.99004],
    "accuracy_ci95": [0.95305, 0.97006],
    "brier": 0.02871,
    "ece": 0.01129,
    "recall_at_fdr05": 0.93412,
    "recall_at_fdr10": 0.97123,
    "recall_at_fdr20": 0.99834,
}
NO_RANKING = {"auroc": None, "auprc": None, "auroc_ci95": None, "auprc_ci95": None}
METRICS = {
    "test": TEST,
    "train_seconds": 12.3456,
    "epochs": 50,
    "best_epoch": 47,
    "examples_per_second": 56789.4,
    "world_size": 4,
    "global_batch_size": 256,
    "strategy": "horovod",
    "model": "paper",
}
PUBLISHED_FIGURES = {f"{p.accuracy:.4f}" for p in PUBLISHED}


@pytest.fixture(params=[{}, {"FORCE_COLOR": "1", "TERM": "xterm-256color"}], ids=["pipe", "colour"])
def show(request, monkeypatch, capsys):
    """Return a function that shows a table in 80 columns and returns its rows as lists of words."""
    monkeypatch.setenv("COLUMNS", "80")
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)

    def shown(function, *args):
        function(*args)
        text = capsys.readouterr().out
        assert "\x1b" not in text
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80
        return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]

    return shown


def metrics_table(show, published=False, **changes):
    """Show the metrics of a run."""
    return show(show_metrics, METRICS | changes, "by hand", published)


def test_run_beside_the_published(show):
    rows = metrics_table(show, published=True)
    assert rows[0] == ["this run", *["published"] * 4]
    assert rows[1] == ["4 ranks", *(p.name for p in PUBLISHED)]
    for key, name in (
        ("accuracy", "test accuracy"),
        ("loss", "test loss"),
        ("auroc", "test auROC"),
        ("auprc", "test auPRC"),
    ):
        assert [name, f"{TEST[key]:.4f}", *(f"{getattr(p, key):.4f}" for p in PUBLISHED)] in rows
    assert ["training time", "12.35 s", *(f"{p.train_seconds:.2f} s" for p in PUBLISHED)] in rows
    assert rows[-2:] == [
        ["95 % intervals: accuracy 0.953-0.970, auROC 0.991-0.995, auPRC 0.985-0.990"],
        ["50 epochs, best 47; 56,789 examples a second; global batch 256; by hand"],
    ]


def test_one_epoch(show):
    rows = metrics_table(show, epochs=1)
    assert rows[0] == ["this run"]
    assert rows[-1] == ["1 epoch, best 47; 56,789 examples a second; global batch 256; by hand"]


def test_another_experiment_stands_alone(show):
    rows = metrics_table(show)
    assert rows[0] == ["this run"]
    assert ["test accuracy", "0.9615"] in rows
    assert not any("published" in row for row in rows)
    assert not PUBLISHED_FIGURES & {cell for row in rows for cell in row}


@pytest.mark.parametrize(("ranks", "said"), [(1, "1 rank"), (2, "2 ranks"), (128, "128 ranks")])
def test_ranks(show, ranks, said):
    assert metrics_table(show, world_size=ranks)[1][0] == said


def test_run_without_a_test_split(show):
    rows = metrics_table(show, test=None)
    assert not any("test" in row[0] or "intervals" in row[0] for row in rows)
    assert any(row[:2] == ["training time", "12.35 s"] for row in rows)


def test_single_class_test_split(show):
    rows = metrics_table(show, test=TEST | NO_RANKING)
    assert any(row[:2] == ["test auROC", "-"] for row in rows)
    assert ["95 % intervals: accuracy 0.953-0.970, auROC -, auPRC -"] in rows


@pytest.mark.parametrize("seconds", [0.001, 9.999, 86_400.0, 1e6])
def test_training_time_stays_whole(show, seconds):
    assert any(
        row[:2] == ["training time", f"{seconds:.2f} s"]
        for row in metrics_table(show, train_seconds=seconds)
    )


def test_evaluation(show):
    rows = show(show_evaluation, TEST, "test, 2,000 sequences")
    assert rows[0] == ["test, 2,000 sequences", "value", "95 % interval"]
    assert rows[2:] == [
        ["accuracy", "0.9615", "0.953-0.970"],
        ["loss", "0.1023", "-"],
        ["auROC", "0.9931", "0.991-0.995"],
        ["auPRC", "0.9877", "0.985-0.990"],
        ["Brier score", "0.0287", "-"],
        ["calibration error", "0.0113", "-"],
        ["recall at 5 % FDR", "0.9341", "-"],
        ["recall at 10 % FDR", "0.9712", "-"],
        ["recall at 20 % FDR", "0.9983", "-"],
    ]


def test_evaluation_of_a_single_class(show):
    recalls = dict.fromkeys(["recall_at_fdr05", "recall_at_fdr10", "recall_at_fdr20"])
    rows = show(show_evaluation, TEST | NO_RANKING | recalls, "all, 3 sequences")
    for name in ("auROC", "auPRC", "recall at 5 % FDR", "recall at 20 % FDR"):
        assert [name, "-", "-"] in rows


def test_largest_title_stays_whole(show):
    title = "validation, 1,000,000,000 sequences"
    assert show(show_evaluation, TEST, title)[0][0] == title


FOUND = {
    "microseconds": 180.84,
    "examples_per_second": 5529.7,
    "seconds": 158.72,
    "peak_mb": 1618.2,
    "seconds_to_target": 51.04,
    "ratio": 13.55,
    "ratio_low": 13.21,
    "ratio_high": 13.94,
    "efficiency": 0.854,
}


def test_benchmark(show):
    missing = dict.fromkeys(set(FOUND) - {"seconds", "peak_mb"})
    rows = show(show_benchmark, {"2 ranks": FOUND, "16 ranks": {**FOUND, **missing}}, 60)
    assert rows[0] == ["2 ranks", "16 ranks"]
    assert rows[2:] == [
        ["µs a sequence", "180.8", "-"],
        ["examples a second", "5,530", "-"],
        ["times as fast", "13.6", "-"],
        ["from repeat to repeat", "13.2-13.9", "-"],
        ["scaling efficiency", "85%", "-"],
        ["60 epochs, all in", "158.7 s", "158.7 s"],
        ["to 95.92% in validation", "51.0 s", "-"],
        ["largest process", "1,618 MB", "1,618 MB"],
    ]


def test_step(show):
    parts = {"first_layer": 200.0, "other_compute": 100.0, "all_reduce": 75.0, "input": 25.0}
    rows = show(show_step, {"2 ranks": {"step": 400.0, **parts}})
    assert rows[-1] == ["2 ranks", "400 µs", "50%", "25%", "19%", "6%"]


def test_comparison(show):
    ways = [Way("alone", 1), Way("together", 2)]
    scores = {"accuracy": 0.91, "auroc": None}
    outcomes = [
        Outcome(
            Cell(way, seed),
            {"test": scores, "train_seconds": seconds},
            {},
            published_data=False,
            oversubscribed=way.ranks > 1,
        )
        for way in ways
        for seed, seconds in enumerate((2.0, 4.0))
    ]
    assert show(show_comparison, find(outcomes, ways)) == [
        ["training time", "accuracy", "auROC"],
        ["─" * 66],
        ["alone, 1 rank", "3.00 s", "0.9100", "-"],
        ["together, 2 ranks (oversubscribed)", "3.00 s", "0.9100", "-"],
    ]
