"""Curves of a binary classifier, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tal1_hvd.evaluation.metrics import CALIBRATION_BINS, RankedCounts, rank, score_bins
from tal1_hvd.evaluation.summary import RESAMPLES, draw_resamples

_POINTS = 201


@dataclass(frozen=True)
class Curve:
    """A curve and the band in which 95 % of its resamples lie at each point.

    Attributes
    ----------
    x, y, low, high : np.ndarray, shape=(n,)
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


def roc_curve(
    labels: np.ndarray, scores: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> Curve:
    """Return the receiver operating characteristic: recall over the false positive rate.

    Parameters
    ----------
    labels, scores : np.ndarray, shape=(n,)
        Both classes are there.
    seed : int
        Of the bootstrap.
    resamples : int

    Returns
    -------
    Curve
        At 201 rates from 0 to 1; between distinct scores the curve is straight.
    """
    grid = np.linspace(0, 1, _POINTS)

    def recall(true: np.ndarray, false: np.ndarray) -> np.ndarray:
        return np.interp(grid, false / false[-1], true / true[-1])

    return _with_band(grid, recall, labels, scores, seed, resamples)


def precision_recall_curve(
    labels: np.ndarray, scores: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> Curve:
    """Return precision over recall.

    Parameters
    ----------
    labels, scores : np.ndarray, shape=(n,)
        Both classes are there.
    seed : int
        Of the bootstrap.
    resamples : int

    Returns
    -------
    Curve
        At 201 recalls from 0 to 1, each with the precision at the highest score that reaches it: a
        line between two thresholds would be too optimistic (Davis and Goadrich 2006).
    """
    grid = np.linspace(0, 1, _POINTS)

    def precision(true: np.ndarray, false: np.ndarray) -> np.ndarray:
        # The first score that adds a positive, at least; rounding must not ask for more than all.
        wanted = np.clip(grid * true[-1] - 1e-9, 1e-9, true[-1])
        reached = np.searchsorted(true, wanted)
        return true[reached] / (true[reached] + false[reached])

    return _with_band(grid, precision, labels, scores, seed, resamples)


@dataclass(frozen=True)
class Calibration:
    """How often examples with like scores are positive.

    Attributes
    ----------
    score : np.ndarray, shape=(k,)
        Mean score of each bin that is not empty.
    frequency : np.ndarray, shape=(k,)
        Share of positives.
    low, high : np.ndarray, shape=(k,)
        Its 95 % interval (Wilson 1927).
    count : np.ndarray, shape=(k,), dtype=int64
        Examples.
    """

    score: np.ndarray
    frequency: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray


def calibration_curve(labels: np.ndarray, scores: np.ndarray) -> Calibration:
    """Return the share of positives in ten bins of equal width of the score.

    Parameters
    ----------
    labels, scores : np.ndarray, shape=(n,)

    Returns
    -------
    Calibration
    """
    from scipy.stats import binomtest

    members, bins = score_bins(scores), CALIBRATION_BINS
    count = np.bincount(members, minlength=bins)
    filled = count > 0
    count = count[filled]
    positives = np.bincount(members, weights=labels, minlength=bins)[filled].astype(int)
    bounds = [
        binomtest(int(k), int(n)).proportion_ci(0.95, method="wilson")
        for k, n in zip(positives, count, strict=True)
    ]
    return Calibration(
        score=np.bincount(members, weights=scores, minlength=bins)[filled] / count,
        frequency=positives / count,
        low=np.array([bound.low for bound in bounds]),
        high=np.array([bound.high for bound in bounds]),
        count=count,
    )


def _with_band(
    grid: np.ndarray,
    height: Callable[[np.ndarray, np.ndarray], np.ndarray],
    labels: np.ndarray,
    scores: np.ndarray,
    seed: int,
    resamples: int,
) -> Curve:
    """Return the curve of all examples, and the band of those of bootstrap resamples."""
    whole = rank(labels, scores)
    heights = [
        height(true, false)
        for weights in draw_resamples(len(labels), seed, resamples)
        for true, false in _both_classes(rank(labels, scores, weights))
    ]
    low, high = np.percentile(heights, [2.5, 97.5], axis=0) if heights else (np.nan, np.nan)
    y = height(whole.true_positives, whole.false_positives)
    return Curve(grid, y, np.broadcast_to(low, y.shape), np.broadcast_to(high, y.shape))


def _both_classes(counts: RankedCounts) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the resamples that hold both classes."""
    pairs = zip(counts.true_positives, counts.false_positives, strict=True)
    return [(true, false) for true, false in pairs if true[-1] and false[-1]]
