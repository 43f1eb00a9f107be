"""Motif files in MEME's minimal format and in JASPAR's, read exactly.

Biopython's reader of MEME rounds probabilities to counts of ``nsites``, by default 20, and takes a
matrix that is cut short for a shorter one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tal1_hvd.errors import InputError

_MATRIX = "letter-probability matrix"
_WIDTH = re.compile(r"\bw\s*=\s*(\d+)")
_ALPHABET = re.compile(r"^ALPHABET\s*=?\s*(\S+)", re.MULTILINE)


class FileMotif(NamedTuple):
    """A motif of a file.

    Attributes
    ----------
    names : list of str
        Every name it has, its id first: MA0091.2, TAL1::TCF3.
    matrix : np.ndarray, shape=(width, 4), dtype=float64
        Probabilities of A, C, G, T.
    """

    names: list[str]
    matrix: np.ndarray


def read_motif_file(path: str | Path) -> list[FileMotif]:
    """Read the motifs of a file.

    Parameters
    ----------
    path : str or Path
        MEME (minimal format, version 4 or later, DNA) or JASPAR.

    Returns
    -------
    list of FileMotif
        In the file's order.

    Raises
    ------
    InputError
        The file cannot be read, or is neither, or a matrix is incomplete.
    """
    try:
        text = Path(path).read_text(encoding="ascii")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a MEME or JASPAR motif file (not text)") from None
    parse = _meme if text.lstrip().startswith("MEME version") else _jaspar
    try:
        motifs = [FileMotif(names, _normalised(names[0], matrix)) for names, matrix in parse(text)]
    except ValueError as error:
        raise InputError(f"{path}: not a MEME or JASPAR motif file ({error})") from None
    if not motifs:
        raise InputError(f"{path}: not a MEME or JASPAR motif file (it holds no motif)")
    return motifs


def _meme(text: str) -> Iterator[tuple[list[str], list[list[float]]]]:
    alphabet = _ALPHABET.search(text)
    if alphabet and alphabet.group(1) not in ("ACGT", '"DNA"'):
        raise ValueError(f"its alphabet is {alphabet.group(1)}, ACGT is needed")
    for section in re.split(r"^MOTIF\b", text, flags=re.MULTILINE)[1:]:
        head, *lines = section.splitlines()
        names = head.split()
        if not names:
            raise ValueError("a motif has no name")
        starts = [i for i, line in enumerate(lines) if line.startswith(_MATRIX)]
        if not starts:
            raise ValueError(f"{names[0]} has no {_MATRIX}")
        rows = [
            [float(value) for value in line.split()]
            for line in takewhile(
                lambda line: line.strip() and not line.startswith(("URL", "-")),
                lines[starts[0] + 1 :],
            )
        ]
        width = _WIDTH.search(lines[starts[0]])
        if width and int(width.group(1)) != len(rows):
            raise ValueError(f"{names[0]} has {len(rows)} rows, its w= says {width.group(1)}")
        yield names, rows


def _jaspar(text: str) -> Iterator[tuple[list[str], list[list[float]]]]:
    lines = [line for line in text.splitlines() if line.strip()]
    for start in range(0, len(lines), 5):
        head, *rows = lines[start : start + 5]
        names = head[1:].split()
        if not head.startswith(">") or not names or len(rows) != 4:
            raise ValueError(f"expected '>ID NAME' and four rows of counts, got {head[:40]!r}")
        counts = [
            [float(value) for value in re.sub(rf"^\s*{base}\b|[\[\]]", " ", row).split()]
            for base, row in zip("ACGT", rows, strict=True)
        ]
        if len({len(row) for row in counts}) != 1:
            raise ValueError(f"{names[0]} has rows of unequal length")
        yield names, [list(column) for column in zip(*counts, strict=True)]


def _normalised(name: str, rows: list[list[float]]) -> np.ndarray:
    if not rows or any(len(row) != 4 for row in rows):
        raise ValueError(f"{name} needs four values at every position")
    matrix = np.array(rows)
    with np.errstate(over="ignore"):
        sums = matrix.sum(axis=1, keepdims=True)
    # A sum is infinite too where large numbers add up to one.
    if not np.all(np.isfinite(sums)) or np.any(matrix < 0) or np.any(sums <= 0):
        raise ValueError(f"{name} has a position without positive finite values")
    return matrix / sums
