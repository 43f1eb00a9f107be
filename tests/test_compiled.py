"""The compiled clock; the compiled first layer has tests of its own."""

from __future__ import annotations

import time

import pytest
import tensorflow as tf

from tal1_hvd.models.compiled import clock, why_not_compiled

pytestmark = pytest.mark.skipif(why_not_compiled() is not None, reason=str(why_not_compiled()))


def test_tells_the_time_when_it_runs():
    """Of the clock that Python reads too, and neither folded nor shared in a graph."""

    @tf.function
    def twice():
        first = clock()
        with tf.control_dependencies([first]):
            return first, clock()

    before = time.monotonic()
    first, second = (float(moment) for moment in twice())
    assert before <= first < second <= time.monotonic()
    assert float(twice()[0]) > second
    assert clock().dtype == tf.float64
    assert clock().shape == ()
