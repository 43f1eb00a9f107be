"""The NumPy background has the law of simdna's own zero-order background."""

import json
from collections import Counter

import numpy as np
import pytest
import simdna
from scipy import stats
from simdna.synthetic import EmbedInABackground, GenerateSequenceNTimes
from simdna.synthetic.backgroundgen import ZeroOrderBackgroundGenerator

from tal1_hvd.simulation.background import NumpyBackground

COUNT, LENGTH = 300, 350


def draw(gc, seed=0, count=COUNT, length=LENGTH):
    """Return a block of sequences as letters, shape (count, length)."""
    background = NumpyBackground(length, gc, count, np.random.default_rng(seed))
    return np.array([list(background.generateBackground()) for _ in range(count)])


def base_counts(letters):
    counts = Counter(np.asarray(letters).ravel().tolist())
    assert set(counts) <= set("ACGT")
    return np.array([counts[base] for base in "ACGT"])


def law(gc):
    return np.array([(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])


@pytest.fixture(scope="module")
def block():
    return draw(0.4)


@pytest.mark.parametrize("gc", [0, 0.1, 0.4, 0.5, 0.85, 1])
def test_base_composition(gc):
    counts, expected = base_counts(draw(gc)), law(gc) * COUNT * LENGTH
    assert not counts[expected == 0].any()
    drawn = expected > 0
    assert stats.chisquare(counts[drawn], expected[drawn]).pvalue > 0.001


def test_same_composition_as_simdnas_own_background(block):
    state = simdna.random.get_state()
    simdna.random.seed(5)
    try:
        reference = ZeroOrderBackgroundGenerator(LENGTH, dict(zip("ACGT", law(0.4), strict=True)))
        theirs = [list(reference.generateBackground()) for _ in range(COUNT)]
    finally:
        simdna.random.set_state(state)
    table = [base_counts(block), base_counts(theirs)]
    assert stats.chi2_contingency(table).pvalue > 0.001
    gc_fractions = [np.isin(letters, ["C", "G"]).mean(axis=1) for letters in (block, theirs)]
    assert stats.ks_2samp(*gc_fractions).pvalue > 0.001


@pytest.mark.parametrize("axis", [0, 1], ids=["between-sequences", "within-a-sequence"])
@pytest.mark.parametrize("lag", [1, 2, 7])
def test_bases_are_independent(block, axis, lag):
    codes = np.searchsorted(list("ACGT"), block)
    first, second = (np.moveaxis(codes, axis, 0)[s] for s in (slice(-lag), slice(lag, None)))
    table = np.bincount((4 * first + second).ravel(), minlength=16).reshape(4, 4)
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_every_position_has_the_same_composition(block):
    table = np.array([base_counts(column) for column in block.T])
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_the_generator_alone_decides(block):
    np.testing.assert_array_equal(draw(0.4), block)
    assert (draw(0.4, seed=1) != block).mean() > 0.5


@pytest.mark.parametrize(("count", "length"), [(1, 1), (3, 1), (1, 7), (4, 9)])
def test_shape_of_a_block(count, length):
    assert draw(0.5, count=count, length=length).shape == (count, length)


def test_plugs_into_simdna():
    background = NumpyBackground(20, 0.4, 3, np.random.default_rng(0))
    generator = GenerateSequenceNTimes(EmbedInABackground(background, []), 3)
    assert [list(made.seq) for made in generator.generateSequences()] == draw(
        0.4, count=3, length=20
    ).tolist()
    noted = json.loads(json.dumps(generator.getJsonableObject()))
    assert noted["singleSetGenerator"]["backgroundGenerator"] == {
        "class": "NumpyBackground",
        "length": 20,
        "gc": 0.4,
    }
