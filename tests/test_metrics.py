"""Metrics equal scikit-learn's, and hand-made figures where it has none."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)

from tal1_hvd.evaluation.metrics import (
    expected_calibration_error,
    log_losses,
    rank,
    summary,
)
from tal1_hvd.evaluation.summary import full_summary

repeatable = settings(deadline=None, derandomize=True, max_examples=100)
# Few distinct values make ties; others are as close as floats can be.
tied = st.sampled_from([i / 8 for i in range(9)])
anywhere = st.floats(0, 1)


@st.composite
def cases(draw, width=64):
    """Labels with both classes, scores with ties, and weights that leave both classes some."""
    n = draw(st.integers(2, 40))
    labels = [0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))]
    score = draw(st.sampled_from([tied, st.floats(0, 1, width=width), tied | anywhere]))
    scores = draw(st.lists(score, min_size=n, max_size=n))
    weights = [1, 1, *draw(st.lists(st.integers(0, 3), min_size=n - 2, max_size=n - 2))]
    dtype = np.float32 if width == 32 else np.float64
    return np.uint8(labels), np.array(scores, dtype=dtype), np.array(weights, dtype=float)


def arrays(labels, scores):
    return np.uint8(labels), np.float64(scores)


@repeatable
@given(cases())
def test_ranking_metrics_equal_scikit_learns(case):
    labels, scores, _ = case
    counts = rank(labels, scores)
    assert float(counts.auroc) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert float(counts.auprc) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@repeatable
@given(cases())
def test_weighted_ranking_metrics_equal_scikit_learns(case):
    labels, scores, weights = case
    counts = rank(labels, scores, weights)
    for ours, theirs in (
        (counts.auroc, roc_auc_score),
        (counts.auprc, average_precision_score),
    ):
        expected = theirs(labels, scores, sample_weight=weights)
        assert float(ours) == pytest.approx(expected, abs=1e-12)


@repeatable
@given(cases())
def test_a_weight_is_how_often_an_example_counts(case):
    labels, scores, weights = case
    times = weights.astype(int)
    repeated = rank(np.repeat(labels, times), np.repeat(scores, times))
    weighted = rank(labels, scores, weights)
    for name in ("auroc", "auprc"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), abs=1e-12)
    assert weighted.recall_at_fdr(0.1) == pytest.approx(repeated.recall_at_fdr(0.1), abs=1e-12)


@repeatable
@given(cases(), cases())
def test_rows_of_weights_are_ranked_each_by_itself(case, other):
    labels, scores, weights = case
    rows = np.stack([weights, np.ones(len(labels)), np.resize(other[2], len(labels))])
    rows[2, :2] = 1
    counts = rank(labels, scores, rows)
    distinct = len(np.unique(scores))
    assert counts.true_positives.shape == counts.false_positives.shape == (3, distinct + 1)
    for i, row in enumerate(rows):
        alone = rank(labels, scores, row)
        np.testing.assert_array_equal(counts.true_positives[i], alone.true_positives)
        np.testing.assert_array_equal(counts.false_positives[i], alone.false_positives)
        np.testing.assert_allclose(counts.auroc[i], alone.auroc, atol=1e-12)
        np.testing.assert_allclose(counts.auprc[i], alone.auprc, atol=1e-12)
        assert counts.recall_at_fdr(0.2)[i] == alone.recall_at_fdr(0.2)


@repeatable
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_examples_does_not_matter(case, random):
    labels, scores, _ = case
    order = np.array(random.sample(range(len(labels)), len(labels)))
    expected, found = summary(labels, scores), summary(labels[order], scores[order])
    assert found == pytest.approx(expected, abs=1e-12)


@repeatable
@given(cases())
def test_swapping_the_classes_mirrors_auroc(case):
    labels, scores, _ = case
    assert float(rank(1 - labels, -scores).auroc) == pytest.approx(
        float(rank(labels, scores).auroc)
    )
    assert float(rank(labels, -scores).auroc) == pytest.approx(
        1 - float(rank(labels, scores).auroc), abs=1e-12
    )


@repeatable
@given(cases(), st.sampled_from([Fraction(1, 20), Fraction(1, 10), Fraction(1, 5)]))
def test_recall_at_fdr_by_brute_force(case, rate):
    labels, scores, _ = case
    best = 0
    for threshold in scores:
        called = scores >= threshold
        hits = int(labels[called].sum())
        if called.sum() - hits <= rate * int(called.sum()):
            best = max(best, hits / int(labels.sum()))
    assert float(rank(labels, scores).recall_at_fdr(float(rate))) == pytest.approx(best)


@pytest.mark.parametrize(
    ("rate", "recall"), [(0, 0.5), (0.2, 0.5), (0.25, 0.75), (0.3, 0.75), (0.43, 1), (1, 1)]
)
def test_recall_at_fdr_by_hand(rate, recall):
    # From the top 0/1, 0/2, 1/3, 1/4, 2/5, 3/6 and 3/7 of the calls are false.
    labels, scores = arrays([1, 1, 0, 1, 0, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    assert float(rank(labels, scores).recall_at_fdr(rate)) == recall


@pytest.mark.parametrize(("rate", "recall"), [(0.05, 0), (0.5, 1)])
def test_recall_at_fdr_takes_equal_scores_together(rate, recall):
    assert float(rank(*arrays([1, 0], [0.5, 0.5])).recall_at_fdr(rate)) == recall


@pytest.mark.parametrize(
    ("labels", "scores", "auroc", "auprc"),
    [
        ([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1], 1, 1),
        ([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1], 0, (1 / 3 + 2 / 4) / 2),
        ([1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], 0.5, 0.25),
        ([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.6], 0.75, (1 + 2 / 3) / 2),
        ([1, 0], [0.5, 0.5], 0.5, 0.5),
        ([1, 1, 0], [0.9, 0.5, 0.5], 0.75, 0.5 + 0.5 * 2 / 3),
    ],
    ids=["perfect", "reversed", "all-tied", "alternating", "two-tied", "tie-at-the-end"],
)
def test_ranking_by_hand(labels, scores, auroc, auprc):
    found = summary(*arrays(labels, scores))
    assert found["n"] == len(labels)
    assert found["auroc"] == pytest.approx(auroc)
    assert found["auprc"] == pytest.approx(auprc)


@pytest.mark.parametrize("scores", [[0.3], [0.9, 0.2], [0.5, 0.5, 0.5]])
@pytest.mark.parametrize("label", [0, 1])
def test_ranking_of_a_single_class_is_none(label, scores):
    found = summary(*arrays([label] * len(scores), scores))
    assert found["auroc"] is None
    assert found["auprc"] is None
    assert math.isfinite(found["loss"])
    assert 0 <= found["accuracy"] <= 1


@repeatable
@given(cases())
def test_loss_and_accuracy_equal_scikit_learns(case):
    labels, scores, _ = case
    found = summary(labels, scores)
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    assert found["loss"] == pytest.approx(log_loss(labels, clipped), rel=1e-9)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, scores > 0.5))


def test_log_losses_are_clipped_at_certainty():
    losses = log_losses(*arrays([1, 0, 1, 0, 1], [1, 0, 0, 1, 0.25]))
    assert losses.dtype == np.float64
    most, least = -math.log(1e-7), -math.log1p(-1e-7)
    np.testing.assert_allclose(losses, [least, least, most, most, math.log(4)], rtol=1e-9)


@pytest.mark.parametrize(
    ("score", "positive"), [(0.5, False), (np.nextafter(0.5, 1), True), (0, False), (1, True)]
)
def test_a_score_of_one_half_counts_as_negative(score, positive):
    assert summary(*arrays([1], [score]))["accuracy"] == float(positive)
    assert summary(*arrays([0], [score]))["accuracy"] == float(not positive)


@repeatable
@given(cases())
def test_brier_equals_scikit_learns(case):
    labels, scores, _ = case
    expected = brier_score_loss(labels, scores)
    assert float(np.mean((scores - labels) ** 2)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "scores", "ece"),
    [
        # As many positives in a bin as its scores say.
        ([1, 0, 0, 0, 1, 1, 1, 0], [0.25] * 4 + [0.75] * 4, 0),
        ([1, 0], [1, 0], 0),
        ([0, 1], [1, 0], 1),
        # One bin: the mean score is 0.62 and half are positive.
        ([1, 0], [0.61, 0.63], 0.12),
        # Two bins of three and one examples: gaps |0.1 - 1/3| and |0.95 - 1|.
        ([1, 0, 0, 1], [0.1, 0.1, 0.1, 0.95], 3 / 4 * (1 / 3 - 0.1) + 1 / 4 * 0.05),
        # 1.0 stands in the last bin, with 0.9.
        ([1, 0], [1.0, 0.9], 0.45),
        ([1], [0.3], 0.7),
    ],
)
def test_calibration_error_by_hand(labels, scores, ece):
    assert expected_calibration_error(*arrays(labels, scores)) == pytest.approx(ece, abs=1e-12)


@pytest.mark.parametrize(("bins", "ece"), [(1, 0), (2, 0.2), (10, 0.4)])
def test_calibration_error_depends_on_the_bins(bins, ece):
    labels, scores = arrays([0, 1, 0, 1], [0.6, 0.8, 0.2, 0.4])
    assert expected_calibration_error(labels, scores, bins=bins) == pytest.approx(ece)


@repeatable
@given(cases(), st.integers(1, 12))
def test_calibration_error_by_brute_force(case, bins):
    labels, scores, _ = case
    expected = 0.0
    for i in range(bins):
        inside = (scores * bins >= i) & ((scores * bins < i + 1) | (i == bins - 1))
        if inside.any():
            gap = abs(scores[inside].mean() - labels[inside].mean())
            expected += inside.mean() * gap
    assert expected_calibration_error(labels, scores, bins) == pytest.approx(expected, abs=1e-12)


@settings(repeatable, max_examples=30)
@given(cases(width=32))
def test_float32_scores_are_accepted(case):
    labels, scores, _ = case
    found = summary(labels, scores)
    expected = summary(labels, scores.astype(np.float64))
    assert found == pytest.approx(expected, rel=1e-6)
    assert {type(value) for value in found.values()} == {int, float}
    assert full_summary(labels, scores) == full_summary(labels, scores.astype(np.float64))
