"""Letters and codes, strands, lengths."""

from __future__ import annotations

import re

import numpy as np
import pytest
from Bio.Seq import reverse_complement as biopython_reverse_complement
from hypothesis import given, settings
from hypothesis import strategies as st

from tal1_hvd.data.encoding import ALPHABET, UNKNOWN, decode, encode, fit_length, reverse_complement
from tal1_hvd.errors import InputError

properties = settings(derandomize=True, deadline=None, max_examples=100)
dna = st.text("ACGTNacgtn", max_size=60)
codes_of_dna = dna.map(encode)

NUCLEOTIDE_CODES = "ACGTUNRYSWKMBDHV"


@pytest.mark.parametrize(
    ("letters", "codes"),
    [
        ("", []),
        ("ACGTN", [0, 1, 2, 3, 4]),
        ("acgtn", [0, 1, 2, 3, 4]),
        ("AuU", [0, 3, 3]),
        ("RYSWKMBDHV", [4] * 10),
        ("ryswkmbdhv", [4] * 10),
        ("CANNTG", [1, 0, 4, 4, 3, 2]),
    ],
)
def test_encode_by_hand(letters, codes):
    encoded = encode(letters)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == codes


def test_alphabet_order_is_that_of_the_codes():
    assert ALPHABET == "ACGTN"
    assert encode(ALPHABET).tolist() == [0, 1, 2, 3, UNKNOWN]


@properties
@given(dna)
def test_decode_gives_the_upper_case_sequence_back(sequence):
    assert decode(encode(sequence)) == sequence.upper()


@properties
@given(st.text(NUCLEOTIDE_CODES + NUCLEOTIDE_CODES.lower(), max_size=60))
def test_every_nucleotide_code_becomes_a_base_or_n(sequence):
    expected = re.sub("[^ACGT]", "N", sequence.upper().replace("U", "T"))
    assert decode(encode(sequence)) == expected


@properties
@given(st.lists(st.integers(0, 4)))
def test_encode_gives_the_codes_back(codes):
    assert encode(decode(np.array(codes, dtype=np.uint8))).tolist() == codes


@pytest.mark.parametrize(
    ("sequence", "letter", "position"),
    [
        ("XACGT", "'X'", 1),
        ("ACGT-", "'-'", 5),
        ("AC GT", "' '", 3),
        ("AC\nGT", r"'\n'", 3),
        ("A\x00", r"'\x00'", 2),
        ("NN*", "'*'", 3),
        ("AC1!", "'1'", 3),
        ("ACé", "'é'", 3),
        ("A€C", "'€'", 2),
        (">", "'>'", 1),
    ],
)
def test_encode_names_the_first_wrong_letter(sequence, letter, position):
    with pytest.raises(InputError) as caught:
        encode(sequence)
    expected = f"letter {letter} at position {position} is not a nucleotide code"
    assert str(caught.value) == expected


@properties
@given(dna, st.characters(exclude_characters=NUCLEOTIDE_CODES + NUCLEOTIDE_CODES.lower()), dna)
def test_any_other_character_is_refused_with_its_position(before, letter, after):
    with pytest.raises(InputError) as caught:
        encode(before + letter + after)
    assert f"letter {letter!r} at position {len(before) + 1} " in str(caught.value)


@pytest.mark.parametrize(
    ("strand", "other"),
    [("", ""), ("A", "T"), ("AACGN", "NCGTT"), ("CAGCTG", "CAGCTG"), ("NNA", "TNN")],
)
def test_reverse_complement_by_hand(strand, other):
    codes = encode(strand)
    assert decode(reverse_complement(codes)) == other
    assert decode(codes) == strand, "the given array must not change"


def test_reverse_complement_turns_each_row_of_a_batch():
    batch = np.stack([encode("AACG"), encode("NTTT")])
    turned = reverse_complement(batch)
    assert turned.dtype == np.uint8
    assert [decode(row) for row in turned] == ["CGTT", "AAAN"]
    assert np.array_equal(reverse_complement(batch[None])[0], turned)


@properties
@given(codes_of_dna)
def test_reverse_complement_agrees_with_biopython_and_undoes_itself(codes):
    other = reverse_complement(codes)
    assert decode(other) == biopython_reverse_complement(decode(codes))
    assert np.array_equal(reverse_complement(other), codes)


@pytest.mark.parametrize(
    ("sequence", "length", "fitted", "start"),
    [
        ("AACGG", 5, "AACGG", 0),
        ("AACGG", 3, "ACG", 1),
        ("AACGG", 4, "AACG", 0),
        ("AACGG", 2, "AC", 1),
        ("AACGG", 1, "C", 2),
        ("ACG", 4, "ACGN", 0),
        ("ACG", 5, "NACGN", -1),
        ("ACG", 6, "NACGNN", -1),
        ("", 2, "NN", -1),
    ],
)
def test_fit_length_by_hand(sequence, length, fitted, start):
    codes, found = fit_length(encode(sequence), length)
    assert (decode(codes), found) == (fitted, start)


@properties
@given(codes_of_dna, st.integers(1, 80))
def test_fit_length_keeps_the_centre_and_says_where_it_starts(codes, length):
    fitted, start = fit_length(codes, length)
    assert fitted.shape == (length,)
    assert fitted.dtype == np.uint8
    for position, code in enumerate(fitted, start=start):
        assert code == (codes[position] if 0 <= position < len(codes) else UNKNOWN)
    right = len(codes) - length - start
    assert abs(start - right) <= 1, "as much is cut, or padded, on the left as on the right"
