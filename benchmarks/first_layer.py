"""The compiled first layer against TensorFlow's own operations, on one core.

    python benchmarks/first_layer.py

Both run in turn inside one graph call of 16 batches, so that what the call costs does not count.
The best of several calls is shown: whatever else a machine does only makes calls slower.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tal1_hvd.machine import start_tensorflow
from tal1_hvd.models.compiled import instruction_set
from tal1_hvd.models.dna_conv_pool import dna_conv_pool, with_tensorflow
from tal1_hvd.published import FILTER_WIDTH, FILTERS, POOL_WIDTH

BATCHES, BATCH, LENGTH = 16, 64, 1500
REPEATS = 20


def looped(step: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a graph that takes a step on each batch."""

    @tf.function
    def loop(batches: tf.Tensor) -> tf.Tensor:
        total = tf.constant(0.0)
        for i in tf.range(BATCHES):
            total += step(batches[i])
        return total

    return loop


def main() -> None:
    """Measure and print microseconds a sequence."""
    start_tensorflow(threads=1)
    rng = np.random.default_rng(0)
    batches = tf.constant(rng.integers(0, 4, (BATCHES, BATCH, LENGTH), dtype=np.uint8))
    kernel = tf.Variable(0.1 * rng.normal(size=(FILTER_WIDTH, 4, FILTERS)), dtype=tf.float32)
    bias = tf.Variable(tf.zeros(FILTERS))
    # Given, so that no loss and none of its gradient is timed with the layer.
    windows = (LENGTH - FILTER_WIDTH + 1) // POOL_WIDTH
    upstream = tf.constant(rng.normal(size=(BATCH, windows, FILTERS)), dtype=tf.float32)

    def forward(operation: Callable[..., tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda codes: operation(codes, kernel, bias, POOL_WIDTH)[0, 0, 0]

    def both(operation: Callable[..., tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
        def step(codes: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                pooled = operation(codes, kernel, bias, POOL_WIDTH)
            gradients = tape.gradient(pooled, [kernel, bias], output_gradients=upstream)
            return gradients[0][0, 0, 0] + gradients[1][0]

        return step

    print(f"instruction set: {instruction_set()}; microseconds a sequence of {LENGTH} bp, one core")
    for what, make in (("forward", forward), ("forward and backward", both)):
        calls = {
            "compiled": looped(make(dna_conv_pool)),
            "TensorFlow": looped(make(with_tensorflow)),
        }
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(REPEATS):
            for name, call in calls.items():
                began = time.perf_counter()
                call(batches)
                best[name] = min(best[name], time.perf_counter() - began)
        ours, theirs = (1e6 * best[name] / (BATCHES * BATCH) for name in calls)
        print(f"{what:22} {ours:6.1f} {theirs:6.1f}  ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
