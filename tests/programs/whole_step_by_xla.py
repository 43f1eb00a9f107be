"""A whole step as one XLA program, the update of the weights too: prints its largest error."""

import os

os.environ["TAL1_HVD_SIMD"] = "tensorflow"

import numpy as np
import tensorflow as tf

from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.distributed.optimizer import DistributedOptimizer
from tal1_hvd.models.first_layer import fuse_first_layer
from tal1_hvd.models.paper import paper
from tal1_hvd.training.adam import FusedAdam
from tal1_hvd.training.step import Batches, make_gradient

BATCH, LENGTH, ACCUMULATION = 64, 150, 2


def train(compiled):
    """Return the weights after a step."""
    model = paper(LENGTH, seed=1, dtype="float64")
    optimizer = DistributedOptimizer(FusedAdam(0.01), SingleProcess(), op="sum")
    optimizer.build(model.trainable_variables)
    gradient = make_gradient(fuse_first_layer(model), ACCUMULATION)

    @tf.function(jit_compile=compiled, autograph=False)
    def step(batch):
        gradients, totals = gradient(batch)
        optimizer.apply(gradients)
        return totals

    rng = np.random.default_rng(2)
    places = (ACCUMULATION, BATCH)
    step(
        Batches(
            tf.constant(rng.integers(0, 5, (*places, LENGTH), dtype=np.uint8)),
            tf.constant(rng.integers(0, 2, places, dtype=np.uint8)),
            tf.ones(places, tf.bool),
            tf.constant(BATCH * ACCUMULATION, tf.int64),
        )
    )
    return model.get_weights()


start = paper(LENGTH, seed=1, dtype="float64").get_weights()
plain, by_xla = train(False), train(True)
assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(plain, start, strict=True))
print(max(float(np.abs(a - b).max()) for a, b in zip(plain, by_xla, strict=True)))
