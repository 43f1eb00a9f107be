"""Splits: sizes, shares of the classes, held-out chromosomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal1_hvd.data.splits import chromosome_split, stratified_split
from tal1_hvd.errors import InputError
from tests.helpers import refused

properties = settings(derandomize=True, deadline=None, max_examples=50)


def labels_of(positives, negatives):
    return np.repeat(np.uint8([1, 0]), [positives, negatives])


def table(labels, splits):
    """Count the examples of each label (row) in each split (column)."""
    return [[int(np.sum((labels == y) & (splits == s))) for s in range(3)] for y in (1, 0)]


@pytest.mark.parametrize(
    ("positives", "negatives", "counts"),
    [
        (10, 10, [[7, 2, 1], [7, 2, 1]]),
        (50, 50, [[35, 10, 5], [35, 10, 5]]),
        (100, 300, [[70, 20, 10], [210, 60, 30]]),
        (10_000, 10_000, [[7000, 2000, 1000], [7000, 2000, 1000]]),
    ],
)
def test_stratified_counts_by_hand(positives, negatives, counts):
    labels = labels_of(positives, negatives)
    splits = stratified_split(labels, seed=0)
    assert splits.dtype == np.uint8
    assert table(labels, splits) == counts


@properties
@given(st.integers(10, 60), st.integers(10, 60), st.integers(0, 2**32 - 1), st.randoms())
def test_stratified_shares(positives, negatives, seed, random):
    labels = labels_of(positives, negatives)
    order = list(range(len(labels)))
    random.shuffle(order)
    labels = labels[order]
    splits = stratified_split(labels, seed)
    assert np.bincount(splits, minlength=3)[1:].tolist() == [
        round(0.2 * len(labels)),
        round(0.1 * len(labels)),
    ]
    for counts, total in zip(table(labels, splits), (positives, negatives), strict=True):
        for count, fraction in zip(counts, (0.7, 0.2, 0.1), strict=True):
            assert abs(count - fraction * total) < 2
    assert np.array_equal(splits, stratified_split(labels, seed))


def test_stratified_split_depends_on_the_seed_alone():
    labels = labels_of(50, 50)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 (the global state is what is checked)
    drawn = [stratified_split(labels, seed) for seed in (0, 1, 2, 0)]
    for code in range(3):
        members = [(splits == code).tobytes() for splits in drawn]
        assert len(set(members)) == 3, "each split is drawn anew by another seed"
        assert members[0] == members[3]
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_stratified_split_mixes_the_rows():
    splits = stratified_split(labels_of(500, 500), seed=0)
    for part in np.split(splits, 10):
        assert 0.5 < np.mean(part == 0) < 0.9


@pytest.mark.parametrize("counts", [(0, 0), (0, 20), (20, 0), (1, 1), (1, 100), (2, 2), (3, 2)])
def test_too_few_to_split(counts):
    positives, negatives = counts
    with refused(f"{positives} positives", f"{negatives} negatives", "too few", "at least 10"):
        stratified_split(labels_of(*counts), seed=0)


@pytest.mark.parametrize("positives", range(1, 11))
def test_each_class_stands_in_each_split_or_the_split_is_refused(positives):
    for negatives in (*range(positives, 13), 30, 100):
        labels = labels_of(positives, negatives)
        try:
            splits = stratified_split(labels, seed=0)
        except InputError:
            assert positives < 10, "ten of each class are enough"
        else:
            assert np.min(table(labels, splits)) > 0, (positives, negatives)


@pytest.mark.parametrize(
    ("test", "validation", "splits"),
    [
        (["chr8"], ["chr2"], [0, 2, 1, 0, 2]),
        (["chr8", "chr9"], ["chr2"], [0, 2, 1, 2, 2]),
        (("chr9",), ("chr1", "chr2"), [1, 0, 1, 2, 0]),
        (["chr8", "chr8"], ["chr2"], [0, 2, 1, 0, 2]),
    ],
)
def test_chromosome_split_by_hand(test, validation, splits):
    found = chromosome_split(["chr1", "chr8", "chr2", "chr9", "chr8"], test, validation)
    assert found.dtype == np.uint8
    assert found.tolist() == splits


@pytest.mark.parametrize(
    ("test", "validation", "words"),
    [
        (["chr1", "chr2"], ["chr3", "chr2"], ["--test-chroms and --valid-chroms", "chr2"]),
        ([], ["chr2"], ["--test-chroms", "at least one chromosome"]),
        (["chr1"], [], ["--valid-chroms", "at least one chromosome"]),
        (["chr1", "chr7"], ["chr2"], ["--test-chroms", "no sequence lies on chr7", "chr1, chr2"]),
        (["chr1"], ["2"], ["--valid-chroms", "no sequence lies on 2", "chr1, chr2, chr3"]),
        (["chr1", "chr3"], ["chr2"], ["hold out every chromosome", "train"]),
    ],
    ids=["both", "no test", "no validation", "missing", "other naming", "nothing left"],
)
def test_chromosomes_that_make_no_split(test, validation, words):
    with refused(*words):
        chromosome_split(["chr1", "chr2", "chr3", "chr1"], test, validation)
