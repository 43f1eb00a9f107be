"""DNA as uint8 codes: A C G T N = 0 1 2 3 4."""

from __future__ import annotations

import numpy as np

from tal1_hvd.errors import InputError

ALPHABET = "ACGTN"
UNKNOWN = 4

# IUPAC ambiguity codes stand for several bases, so they become N; U is RNA's T.
_AMBIGUOUS = "NRYSWKMBDHV"
_INVALID = 255


def _table() -> np.ndarray:
    table = np.full(256, _INVALID, dtype=np.uint8)
    for letters, code in (("A", 0), ("C", 1), ("G", 2), ("TU", 3), (_AMBIGUOUS, UNKNOWN)):
        for letter in letters:
            table[ord(letter)] = table[ord(letter.lower())] = code
    return table


_CODES = _table()
_LETTERS = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)
_COMPLEMENT = np.array([3, 2, 1, 0, UNKNOWN], dtype=np.uint8)


def encode(sequence: str) -> np.ndarray:
    """Turn letters into codes.

    Parameters
    ----------
    sequence : str
        Upper or lower case; U counts as T, IUPAC ambiguity codes as N.

    Returns
    -------
    np.ndarray, shape=(len(sequence),), dtype=uint8
        A C G T N = 0 1 2 3 4.

    Raises
    ------
    InputError
        A letter is not a nucleotide code (IUPAC-IUB 1984); the text names it and its position.

    Examples
    --------
    >>> encode("ACgtnR")
    array([0, 1, 2, 3, 4, 4], dtype=uint8)
    """
    try:
        codes = _CODES[np.frombuffer(sequence.encode("latin-1"), dtype=np.uint8)]
    except UnicodeEncodeError as error:
        raise _not_a_nucleotide(sequence, error.start) from None
    invalid = np.flatnonzero(codes == _INVALID)
    if invalid.size:
        raise _not_a_nucleotide(sequence, int(invalid[0]))
    return codes


def _not_a_nucleotide(sequence: str, index: int) -> InputError:
    return InputError(
        f"letter {sequence[index]!r} at position {index + 1} is not a nucleotide code"
    )


def decode(codes: np.ndarray) -> str:
    """Turn codes into upper-case letters.

    Parameters
    ----------
    codes : np.ndarray, shape=(length,), dtype=uint8

    Returns
    -------
    str

    Examples
    --------
    >>> decode(encode("acgtn"))
    'ACGTN'
    """
    return _LETTERS[codes].tobytes().decode()


def reverse_complement(codes: np.ndarray) -> np.ndarray:
    """Return the other strand, read 5' to 3'.

    Parameters
    ----------
    codes : np.ndarray, shape=(..., length), dtype=uint8

    Returns
    -------
    np.ndarray, shape=(..., length), dtype=uint8
        A new array.

    Examples
    --------
    >>> decode(reverse_complement(encode("AACGN")))
    'NCGTT'
    """
    return _COMPLEMENT[codes[..., ::-1]]


def fit_length(codes: np.ndarray, length: int) -> tuple[np.ndarray, int]:
    """Crop a sequence around its centre, or pad it with N on both sides, to a length.

    Parameters
    ----------
    codes : np.ndarray, shape=(any,), dtype=uint8
    length : int
        Wanted length in bp.

    Returns
    -------
    codes : np.ndarray, shape=(length,), dtype=uint8
    start : int
        Where the result begins in the given sequence, in bp; negative where it was padded.

    Examples
    --------
    >>> codes, start = fit_length(encode("AACGG"), 3)
    >>> decode(codes), start
    ('ACG', 1)
    >>> codes, start = fit_length(encode("ACG"), 6)
    >>> decode(codes), start
    ('NACGNN', -1)
    """
    surplus = len(codes) - length
    if surplus >= 0:
        start = surplus // 2
        return codes[start : start + length], start
    left = -surplus // 2
    return np.pad(codes, (left, -surplus - left), constant_values=UNKNOWN), -left
