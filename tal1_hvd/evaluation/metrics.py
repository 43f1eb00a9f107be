"""Metrics of a binary classifier, exact for the whole split.

Ranking metrics come from the step curve of true and false positives over distinct scores, with
equal scores in one step. An example can have a weight (how often a bootstrap drew it), so the same
code gives the value and its interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Keras clips probabilities so before it takes their logarithm.
_EPSILON = 1e-7
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class RankedCounts:
    """True and false positives among the highest scores, at each distinct score.

    Attributes
    ----------
    true_positives, false_positives : np.ndarray, shape=(..., k + 1)
        Weighted counts, from none to all, for k distinct scores in descending order.
    """

    true_positives: np.ndarray
    false_positives: np.ndarray

    @property
    def auroc(self) -> np.ndarray:
        """Area under the receiver operating characteristic; NaN where a class is missing."""
        tp, fp = self.true_positives, self.false_positives
        area = np.sum(np.diff(fp) * (tp[..., 1:] + tp[..., :-1]) / 2, axis=-1)
        return _ratio(area, tp[..., -1] * fp[..., -1])

    @property
    def auprc(self) -> np.ndarray:
        """Average precision, the step-wise area under precision over recall.

        NaN where a class is missing.

        Interpolating linearly instead is too optimistic (Davis and Goadrich 2006).
        """
        tp, fp = self.true_positives[..., 1:], self.false_positives[..., 1:]
        precision = _ratio(tp, tp + fp)
        gains = np.diff(self.true_positives)
        # Before the first drawn example precision is 0/0, and nothing is gained.
        area = np.sum(np.where(gains > 0, gains * precision, 0), axis=-1)
        return np.where(fp[..., -1] > 0, _ratio(area, tp[..., -1]), np.nan)

    def recall_at_fdr(self, rate: float) -> np.ndarray:
        """Return the highest recall at which the false discovery rate is at most `rate`."""
        tp, fp = self.true_positives, self.false_positives
        recall = _ratio(tp, tp[..., -1:])
        return np.max(np.where(fp <= rate * (tp + fp), recall, 0), axis=-1)


def rank(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> RankedCounts:
    """Count true and false positives from the highest score down.

    Parameters
    ----------
    labels : np.ndarray, shape=(n,)
        0 or 1.
    scores : np.ndarray, shape=(n,)
    weights : np.ndarray, shape=(..., n), optional
        Default: 1 each.

    Returns
    -------
    RankedCounts
        Its arrays have the leading axes of `weights`.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    w = np.ones(len(scores)) if weights is None else weights[..., order]
    positive = labels[order] == 1

    def at_ends(counted: np.ndarray) -> np.ndarray:
        totals = np.cumsum(counted, axis=-1)[..., ends]
        return np.concatenate([np.zeros_like(totals[..., :1]), totals], axis=-1)

    return RankedCounts(at_ends(w * positive), at_ends(w * ~positive))


def log_losses(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return each example's binary cross-entropy in nats; probabilities are clipped as in Keras.

    Parameters
    ----------
    labels, scores : np.ndarray, shape=(n,)

    Returns
    -------
    np.ndarray, shape=(n,), dtype=float64
    """
    p = np.clip(scores.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return -np.where(labels == 1, np.log(p), np.log1p(-p))


def score_bins(scores: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Return the bin of equal width between 0 and 1 in which each score lies, shape (n,)."""
    return np.minimum((scores * bins).astype(int), bins - 1)


def expected_calibration_error(
    labels: np.ndarray, scores: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """Return the mean gap between confidence and frequency over equal-width bins of the score.

    Guo et al. 2017, for the probability of the positive class.

    Parameters
    ----------
    labels, scores : np.ndarray, shape=(n,)
    bins : int

    Returns
    -------
    float
    """
    gaps = np.bincount(score_bins(scores, bins), weights=scores - labels, minlength=bins)
    return float(np.abs(gaps).sum() / len(scores))


def summary(labels: np.ndarray, scores: np.ndarray) -> dict[str, float | int | None]:
    """Return the metrics that every epoch reports.

    Parameters
    ----------
    labels, scores : np.ndarray, shape=(n,)

    Returns
    -------
    dict
        n, accuracy (threshold 0.5), loss, auroc, auprc; None where a class is missing.
    """
    counts = rank(labels, scores)
    return {
        "n": len(labels),
        "accuracy": float(np.mean((scores > 0.5) == (labels == 1))),
        "loss": float(np.mean(log_losses(labels, scores))),
        "auroc": _finite(counts.auroc),
        "auprc": _finite(counts.auprc),
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _finite(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
