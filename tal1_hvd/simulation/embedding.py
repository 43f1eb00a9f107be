"""Sequences into which simdna's embedders plant sites as codes, instead of in lists of letters.

The sites and their places are simdna's own, for the same state of ``simdna.random``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from simdna.synthetic import AbstractEmbedder, Embedding
from simdna.synthetic.core import AbstractPriorEmbeddedThings, AdditionalInfo
from simdna.synthetic.embeddables import AbstractEmbeddable

from tal1_hvd.data.encoding import ALPHABET

_CODES = bytes.maketrans(b"ACGT", bytes(range(4)))


class Codes:
    """What simdna calls a background string array: letters to read, words to write.

    Parameters
    ----------
    codes : np.ndarray, shape=(length,), dtype=uint8
        Written into.
    """

    def __init__(self, codes: np.ndarray):
        self._codes = codes

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[str]:
        return map(ALPHABET.__getitem__, self._codes.tolist())

    def __setitem__(self, places: slice, word: str) -> None:
        self._codes[places] = np.frombuffer(word.encode().translate(_CODES), dtype=np.uint8)


class Occupied(AbstractPriorEmbeddedThings):
    """Where a sequence has sites already: simdna's array of flags, as a list of a few intervals.

    Parameters
    ----------
    length : int
        In bp.
    """

    def __init__(self, length: int):
        self._length = length
        self._taken: list[tuple[int, int]] = []
        self._embeddings: list[Embedding] = []

    def canEmbed(self, startPos: int, endPos: int) -> bool:  # noqa: N802, N803 (simdna's names)
        """Say whether no site lies in ``startPos:endPos``."""
        return all(endPos <= start or end <= startPos for start, end in self._taken)

    def addEmbedding(self, startPos: int, what: AbstractEmbeddable) -> None:  # noqa: N802, N803
        """Note a site."""
        self._taken.append((startPos, startPos + len(what)))
        self._embeddings.append(Embedding(what=what, startPos=startPos))

    def getNumOccupiedPos(self) -> int:  # noqa: N802
        """Return how many positions have a site."""
        return len({place for start, end in self._taken for place in range(start, end)})

    def getTotalPos(self) -> int:  # noqa: N802
        """Return the sequence's length."""
        return self._length

    def getEmbeddings(self) -> list[Embedding]:  # noqa: N802
        """Return all sites, in the order in which they were planted."""
        return self._embeddings


def embed(codes: Codes, embedders: Iterable[AbstractEmbedder]) -> list[Embedding]:
    """Plant sites, as `simdna.synthetic.EmbedInABackground` does.

    Parameters
    ----------
    codes : Codes
        Written into.
    embedders : iterable of AbstractEmbedder

    Returns
    -------
    list of Embedding
    """
    occupied, information = Occupied(len(codes)), AdditionalInfo()
    for embedder in embedders:
        embedder.embed(codes, occupied, information)
    return occupied.getEmbeddings()
