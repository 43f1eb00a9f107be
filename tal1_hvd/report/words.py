"""How numbers are written for people."""

from __future__ import annotations

from collections.abc import Sequence

METRIC_NAMES = {
    "accuracy": "accuracy",
    "loss": "loss",
    "auroc": "auROC",
    "auprc": "auPRC",
    "brier": "Brier score",
    "ece": "calibration error",
    "recall_at_fdr05": "recall at 5 % FDR",
    "recall_at_fdr10": "recall at 10 % FDR",
    "recall_at_fdr20": "recall at 20 % FDR",
}


def number(value: float | None) -> str:
    """Return a score with four decimals; a dash for none."""
    return "-" if value is None else f"{value:.4f}"


def tenths(value: float | None, unit: str = "") -> str:
    """Return a number with one decimal and its unit; a dash for none."""
    return "-" if value is None else f"{value:.1f}{unit}"


def whole(value: float | None, unit: str = "") -> str:
    """Return a whole number and its unit; a dash for none."""
    return "-" if value is None else f"{value:,.0f}{unit}"


def percent(value: float | None) -> str:
    """Return a share as whole percents; a dash for none."""
    return "-" if value is None else f"{value:.0%}"


def interval(bounds: Sequence[float] | None) -> str:
    """Return two bounds with three decimals; a dash for none."""
    return "-" if bounds is None else f"{bounds[0]:.3f}-{bounds[1]:.3f}"
