"""The summary of a split and its bootstrap intervals."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from tal1_hvd.evaluation import summary as module
from tal1_hvd.evaluation.summary import full_summary, intervals

KEYS = {
    *("n", "accuracy", "loss", "auroc", "auprc", "auroc_ci95", "auprc_ci95", "accuracy_ci95"),
    *("brier", "ece", "recall_at_fdr05", "recall_at_fdr10", "recall_at_fdr20"),
}
RANKED = ("accuracy", "auroc", "auprc")


def drawn(n=400, seed=0, noise=1.0):
    """Labels of both classes and the scores of a fair but fallible classifier."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n).astype(np.uint8)
    labels[:2] = 0, 1
    scores = 1 / (1 + np.exp(-(2.0 * labels - 1 + noise * rng.normal(size=n))))
    return labels, scores


@pytest.fixture(scope="module")
def case():
    return drawn()


def test_all_metrics(case):
    labels, scores = case
    found = full_summary(labels, scores)
    assert set(found) == KEYS
    assert found["n"] == 400
    assert found["loss"] == pytest.approx(log_loss(labels, scores))
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert found["auprc"] == pytest.approx(average_precision_score(labels, scores))
    assert found["brier"] == pytest.approx(brier_score_loss(labels, scores))
    assert 0 < found["ece"] < 0.2
    recalls = [found[f"recall_at_fdr{rate}"] for rate in ("05", "10", "20")]
    assert 0 < recalls[0] <= recalls[1] <= recalls[2] <= 1
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_recalls_are_those_of_their_rates():
    # 19 positives, then a false one: 1 of 20 calls; the next two leave 2 of 21 and 3 of 23.
    labels = np.uint8([1] * 19 + [0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1])
    found = full_summary(labels, np.linspace(1, 0, len(labels)))
    assert found["recall_at_fdr05"] == pytest.approx(19 / 22)
    assert found["recall_at_fdr10"] == pytest.approx(20 / 22)
    assert found["recall_at_fdr20"] == pytest.approx(21 / 22)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [20, 400])
def test_intervals_contain_the_point_estimate(n, seed):
    found = full_summary(*drawn(n, seed), seed)
    for name in RANKED:
        low, high = found[f"{name}_ci95"]
        assert 0 <= low <= found[name] <= high <= 1
        assert low < high


def test_same_seed_same_intervals(case):
    assert full_summary(*case, seed=3) == full_summary(*case, seed=3)
    assert full_summary(*case) == full_summary(*case, seed=0)
    first, second = intervals(*case, seed=3), intervals(*case, seed=4)
    for name, bounds in first.items():
        assert bounds != second[name]
        assert bounds == pytest.approx(second[name], abs=0.02)


def test_numpys_global_random_state_is_left_alone(case):
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    full_summary(*case)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_perfect_classifier():
    labels, _ = drawn(50)
    found = full_summary(labels, labels.astype(np.float64))
    assert all(found[f"{name}_ci95"] == [1, 1] and found[name] == 1 for name in RANKED)
    assert found["brier"] == found["ece"] == 0
    assert found["loss"] == pytest.approx(1e-7, rel=1e-3)
    assert {found[f"recall_at_fdr{rate}"] for rate in ("05", "10", "20")} == {1}


def test_wrong_classifier():
    labels, _ = drawn(50)
    found = full_summary(labels, 1.0 - labels)
    assert (found["accuracy"], found["auroc"], found["brier"], found["ece"]) == (0, 0, 1, 1)
    assert found["accuracy_ci95"] == found["auroc_ci95"] == [0, 0]
    assert found["recall_at_fdr05"] == 0
    assert found["loss"] == pytest.approx(-math.log(1e-7))


@pytest.mark.parametrize("n", [1, 2, 3, 30])
@pytest.mark.parametrize("label", [0, 1])
def test_single_class_has_no_ranking(label, n):
    found = full_summary(np.full(n, label, dtype=np.uint8), np.linspace(0.1, 0.4, n))
    assert set(found) == KEYS
    for name in ("auroc", "auprc", "auroc_ci95", "auprc_ci95"):
        assert found[name] is None, name
    assert found["accuracy"] == 1 - label
    assert found["accuracy_ci95"] == [1 - label, 1 - label]
    if label == 0:
        assert found["recall_at_fdr10"] is None


def test_two_examples():
    found = full_summary(np.uint8([0, 1]), np.array([0.2, 0.9]))
    assert found["auroc"] == found["auprc"] == found["accuracy"] == 1
    assert found["auroc_ci95"] == found["auprc_ci95"] == found["accuracy_ci95"] == [1, 1]


def test_resamples_of_one_class_count_for_no_ranking():
    # Every resample with both classes has all scores tied; the rest say nothing about ranking.
    found = intervals(np.uint8([0, 1]), np.array([0.5, 0.5]), seed=0)
    assert found["auroc_ci95"] == [0.5, 0.5]
    assert found["auprc_ci95"] == [0.5, 0.5]


@pytest.mark.parametrize("accuracy", [0.6, 0.9])
def test_accuracy_interval_is_near_the_normal_approximation(accuracy):
    n = 1000
    labels = np.tile(np.uint8([0, 1]), n // 2)
    right = np.arange(n) < accuracy * n
    scores = np.where(right == (labels == 1), 0.51, 0.5)
    low, high = full_summary(labels, scores)["accuracy_ci95"]
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / n)
    assert low == pytest.approx(accuracy - half, abs=0.1 * half)
    assert high == pytest.approx(accuracy + half, abs=0.1 * half)


def test_auroc_interval_is_near_delongs(case):
    labels, scores = case
    wins = np.sign(scores[labels == 1][:, None] - scores[labels == 0]) / 2 + 0.5
    variances = [wins.mean(axis=axis).var(ddof=1) / wins.shape[1 - axis] for axis in (1, 0)]
    half = 1.96 * math.sqrt(sum(variances))
    low, high = intervals(labels, scores, seed=0)["auroc_ci95"]
    assert high - low == pytest.approx(2 * half, rel=0.1)


def test_intervals_cover_the_truth_in_95_of_100():
    rng = np.random.default_rng(7)
    n, truth, trials, covered = 200, 0.8, 200, 0
    labels = np.tile(np.uint8([0, 1]), n // 2)
    for trial in range(trials):
        scores = np.where((rng.random(n) < truth) == (labels == 1), 0.9, 0.1)
        low, high = intervals(labels, scores, trial, resamples=200)["accuracy_ci95"]
        covered += low <= truth <= high
    assert 0.90 <= covered / trials <= 0.99


@pytest.mark.parametrize("at_once", [1, 100_000, 399 * 400, 400 * 7])
def test_drawing_in_parts_gives_the_same_intervals(case, monkeypatch, at_once):
    drawn_at_once = []
    draw = module._draw

    def spy(n, resamples, rng):
        drawn_at_once.append(resamples)
        return draw(n, resamples, rng)

    whole = intervals(*case, seed=5, resamples=400)
    monkeypatch.setattr(module, "_DRAWS_AT_ONCE", at_once)
    monkeypatch.setattr(module, "_draw", spy)
    for name, bounds in intervals(*case, seed=5, resamples=400).items():
        assert bounds == pytest.approx(whole[name], abs=1e-12)
    assert sum(drawn_at_once) == 400
    assert len(drawn_at_once) > 1
    assert max(drawn_at_once) <= max(1, at_once // 400)


@pytest.mark.parametrize(("n", "resamples"), [(1, 1), (1, 5), (7, 1), (7, 30)])
def test_a_resample_draws_n_examples(n, resamples):
    weights = module._draw(n, resamples, np.random.default_rng(0))
    assert weights.shape == (resamples, n)
    assert weights.sum(axis=1).tolist() == [n] * resamples


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
def test_label_and_score_types_do_not_matter(case, dtype):
    labels, scores = case
    scores = scores.astype(np.float32)
    assert full_summary(labels.astype(dtype), scores) == full_summary(
        labels, scores.astype(np.float64)
    )
