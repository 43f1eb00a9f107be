"""Background sequences drawn with NumPy, plugged into simdna.

simdna's own zero-order background draws base by base in Python, which takes 96 % of its time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from simdna.synthetic.backgroundgen import AbstractBackgroundGenerator

from tal1_hvd.simulation.embedding import Codes


class NumpyBackground(AbstractBackgroundGenerator):
    """Independent bases with a GC fraction, drawn for a block of sequences at a time.

    Parameters
    ----------
    length : int
        In bp.
    gc : float
        Fraction of G and C together, in [0, 1]; each takes half.
    count : int
        Sequences in the block; `generateBackground` can be called this often.
    rng : np.random.Generator

    Attributes
    ----------
    codes : np.ndarray, shape=(count, length), dtype=uint8
        The block.
    """

    def __init__(self, length: int, gc: float, count: int, rng: np.random.Generator):
        self._length = length
        self._gc = gc
        draws = rng.random((count, length), dtype=np.float32)
        # Cumulative A, C, G, T: the number of thresholds at or below a draw is its base.
        thresholds = np.float32([(1 - gc) / 2, 0.5, (1 + gc) / 2])
        bases = np.zeros(draws.shape, dtype=np.uint8)
        for threshold in thresholds:
            bases += draws >= threshold
        self.codes = bases
        self._sequences = map(Codes, bases)

    def generateBackground(self) -> Codes:  # noqa: N802 (simdna's name)
        """Return the next sequence of the block, a view of `codes`."""
        return next(self._sequences)

    def getJsonableObject(self) -> dict[str, Any]:  # noqa: N802 (simdna's name)
        """Return what simdna notes about a background."""
        return {"class": type(self).__name__, "length": self._length, "gc": self._gc}
