"""Curves by hand, and what holds for all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tal1_hvd.evaluation.curves import calibration_curve, precision_recall_curve, roc_curve
from tal1_hvd.evaluation.metrics import expected_calibration_error, rank

# From the highest score down: positive, negative, positive, negative.
LABELS = np.array([0, 1, 0, 1])
SCORES = np.array([0.1, 0.9, 0.6, 0.5])


def at(curve, x):
    """Return the curve's height at one of its points."""
    (place,) = np.flatnonzero(np.isclose(curve.x, x))
    return curve.y[place]


def test_roc_by_hand():
    curve = roc_curve(LABELS, SCORES)
    # Half of the positives before the first negative; the steps of single scores are upright.
    found = [at(curve, x) for x in (0, 0.25, 0.5, 0.75, 1)]
    assert found == pytest.approx([0.5, 0.5, 1, 1, 1])


def test_roc_of_equal_scores_is_straight():
    curve = roc_curve(LABELS, np.full(4, 0.5))
    np.testing.assert_allclose(curve.y, curve.x)


def test_precision_recall_by_hand():
    curve = precision_recall_curve(LABELS, SCORES)
    # Any recall up to a half comes with the first score, more of it with the third.
    found = [at(curve, x) for x in (0, 0.25, 0.5, 0.51, 1)]
    assert found == pytest.approx([1, 1, 1, 2 / 3, 2 / 3])


def test_calibration_by_hand():
    labels = np.array([0, 0, 1, 1, 1, 0])
    scores = np.array([0.05, 0.15, 0.15, 0.95, 1.0, 0.95])
    found = calibration_curve(labels, scores)
    assert found.count.tolist() == [1, 2, 3]
    np.testing.assert_allclose(found.score, [0.05, 0.15, 2.9 / 3])
    np.testing.assert_allclose(found.frequency, [0, 0.5, 2 / 3])
    # Wilson 1927 for 1 of 2: (k + z^2 / 2) / (n + z^2), plus and minus the root's share.
    z = 1.959964
    middle = (1 + z**2 / 2) / (2 + z**2)
    reach = z / (2 + z**2) * np.sqrt(0.5 + z**2 / 4)
    assert (found.low[1], found.high[1]) == pytest.approx((middle - reach, middle + reach))
    assert found.low[0] == pytest.approx(0, abs=1e-12)


some_scores = npst.arrays(
    np.float64, st.integers(2, 40), elements=st.sampled_from(np.linspace(0, 1, 11).tolist())
)


@given(scores=some_scores, data=st.data())
@settings(deadline=None)
def test_curves_agree_with_the_metrics(scores, data):
    labels = data.draw(npst.arrays(np.uint8, len(scores), elements=st.integers(0, 1)))
    assume(0 < labels.sum() < len(labels))
    roc = roc_curve(labels, scores, resamples=20)
    trapezoids = np.sum(np.diff(roc.x) * (roc.y[1:] + roc.y[:-1]) / 2)
    # Up to the width of its grid where a step lies between two points.
    assert trapezoids == pytest.approx(float(rank(labels, scores).auroc), abs=0.01)
    assert np.all(np.diff(roc.y) >= 0)
    precision = precision_recall_curve(labels, scores, resamples=20)
    assert precision.y[-1] >= labels.mean() - 1e-12
    found = calibration_curve(labels, scores)
    assert found.count.sum() == len(scores)
    error = np.sum(found.count * np.abs(found.score - found.frequency)) / len(scores)
    assert error == pytest.approx(expected_calibration_error(labels, scores))
    assert np.all(found.low <= found.frequency + 1e-12)
    assert np.all(found.high >= found.frequency - 1e-12)
    for curve in (roc, precision):
        assert np.all((curve.low >= 0) & (curve.low <= curve.high) & (curve.high <= 1))


@pytest.mark.parametrize("make", [roc_curve, precision_recall_curve])
def test_band(make):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    scores = rng.normal(labels, 1)
    curve = make(labels, scores, seed=1)
    inside = (curve.low <= curve.y + 1e-9) & (curve.y <= curve.high + 1e-9)
    assert inside[2:-2].all()
    assert np.array_equal(make(labels, scores, seed=1).low, curve.low)
    assert not np.array_equal(make(labels, scores, seed=2).low, curve.low)


def test_one_of_each_class():
    """Of resamples only those with both classes count."""
    curve = roc_curve(np.array([0, 1]), np.array([0.2, 0.8]))
    assert np.all(curve.low == 1)
