"""Dinucleotide shuffles: exact counts, and all shuffles equally likely."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from tal1_hvd.data.encoding import decode, encode
from tal1_hvd.data.shuffle import dinucleotide_shuffle

properties = settings(derandomize=True, deadline=None, max_examples=200)


def dinucleotides(sequence):
    return Counter(pairwise(sequence))


def shuffles_of(sequence):
    """Enumerate every sequence with the same first base and dinucleotide counts."""
    found = []

    def extend(path, left):
        if not left:
            found.append(path)
        for first, second in left:
            if first == path[-1]:
                extend(path + second, left - Counter([(first, second)]))

    extend(sequence[0], dinucleotides(sequence))
    return found


@properties
@given(
    st.one_of(
        st.text("ACGTN", max_size=80), st.text("AC", max_size=40), st.text("ATN", max_size=40)
    ),
    st.integers(0, 2**32),
)
def test_dinucleotide_counts_and_ends_are_kept(sequence, seed):
    codes = encode(sequence)
    shuffled = dinucleotide_shuffle(codes, np.random.default_rng(seed))
    assert decode(codes) == sequence, "the given array must not change"
    assert not np.shares_memory(shuffled, codes)
    assert shuffled.dtype == np.uint8
    assert shuffled.shape == codes.shape
    result = decode(shuffled)
    assert dinucleotides(result) == dinucleotides(sequence)
    assert Counter(result) == Counter(sequence)
    assert (result[:1], result[-1:]) == (sequence[:1], sequence[-1:])


@pytest.mark.parametrize("sequence", ["", "A", "AC", "ACG", "AAAAAA", "ACACAC", "NNNNN", "ACGT"])
def test_sequences_with_one_shuffle_only(sequence):
    shuffled = dinucleotide_shuffle(encode(sequence), np.random.default_rng(0))
    assert decode(shuffled) == sequence


@pytest.mark.parametrize(
    ("sequence", "count"),
    [
        # The base before the last one leaves by several equal edges, or by a choice of edges.
        ("CATACATGT", 4),
        ("ACATATGCAT", 6),
        ("ATACATAGAT", 12),
        ("AACATACAT", 12),
        ("ACNATNACAT", 6),
        # The path ends where it began.
        ("AACAGAACA", 30),
        # The bases towards the last one form a tree of several shapes.
        ("ACGACTGCAT", None),
        ("ACTGATCGACT", None),
    ],
)
def test_all_shuffles_are_equally_likely(sequence, count):
    possible = shuffles_of(sequence)
    assert len(set(possible)) == len(possible) >= 4
    assert count in (None, len(possible))
    rng = np.random.default_rng(20240501)
    codes = encode(sequence)
    draws = 150 * len(possible)
    drawn = Counter(decode(dinucleotide_shuffle(codes, rng)) for _ in range(draws))
    assert set(drawn) == set(possible)
    assert chisquare([drawn[each] for each in possible]).pvalue > 1e-4


def test_draws_depend_on_the_generator_alone():
    codes = encode("ACGTTGCAACGGTCAATGCCGATAGCTA" * 10)

    def draw(seed):
        return decode(dinucleotide_shuffle(codes, np.random.default_rng(seed)))

    assert draw(3) == draw(3)
    assert len({decode(codes), draw(3), draw(4)}) == 3
