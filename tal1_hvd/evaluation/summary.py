"""All metrics of a split, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tal1_hvd.evaluation.metrics import (
    expected_calibration_error,
    rank,
    summary,
)

_FALSE_DISCOVERY_RATES = (0.05, 0.10, 0.20)
RESAMPLES = 1_000
# Examples drawn at once, which bounds memory to some 200 MB.
_DRAWS_AT_ONCE = 2_000_000


def full_summary(
    labels: np.ndarray, scores: np.ndarray, seed: int = 0
) -> dict[str, float | int | list[float] | None]:
    """Return all metrics with bootstrap intervals.

    Parameters
    ----------
    labels, scores : np.ndarray, shape=(n,)
        0 or 1, and the probability of 1.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        n, accuracy, loss, auroc, auprc; their 95 % intervals (`auroc_ci95`, `auprc_ci95`,
        `accuracy_ci95`); brier (Brier 1950), ece; recall_at_fdr05, 10 and 20. None where a class
        is missing.
    """
    scores = scores.astype(np.float64)
    counts = rank(labels, scores)
    both_classes = len(np.unique(labels)) == 2
    return {
        **summary(labels, scores),
        **intervals(labels, scores, seed),
        "brier": float(np.mean((scores - labels) ** 2)),
        "ece": expected_calibration_error(labels, scores),
        **{
            f"recall_at_fdr{round(100 * rate):02d}": float(counts.recall_at_fdr(rate))
            if both_classes
            else None
            for rate in _FALSE_DISCOVERY_RATES
        },
    }


def intervals(
    labels: np.ndarray, scores: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> dict[str, list[float] | None]:
    """Return 95 % percentile bootstrap intervals (Efron 1979) over examples.

    Parameters
    ----------
    labels, scores : np.ndarray, shape=(n,)
    seed : int
    resamples : int

    Returns
    -------
    dict
        `auroc_ci95`, `auprc_ci95`, `accuracy_ci95`: [low, high], or None where a class is missing.
    """
    n = len(labels)
    correct = (scores > 0.5) == (labels == 1)
    values: dict[str, list[np.ndarray]] = {"auroc": [], "auprc": [], "accuracy": []}
    for weights in draw_resamples(n, seed, resamples):
        counts = rank(labels, scores, weights)
        values["auroc"].append(counts.auroc)
        values["auprc"].append(counts.auprc)
        values["accuracy"].append(weights @ correct / n)
    return {f"{name}_ci95": _percentiles(np.concatenate(parts)) for name, parts in values.items()}


def draw_resamples(n: int, seed: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Yield how often each of n examples is drawn, shape (k, n), for all resamples in turn.

    Parameters
    ----------
    n, seed, resamples : int
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, resamples, at_once):
        yield _draw(n, min(at_once, resamples - start), rng)


def _draw(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    draws = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(draws.ravel(), minlength=resamples * n).reshape(resamples, n).astype(float)


def _percentiles(values: np.ndarray) -> list[float] | None:
    # A resample without one of the classes has no area; they are rare unless a class is tiny.
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    return [float(value) for value in np.percentile(finite, [2.5, 97.5])]
