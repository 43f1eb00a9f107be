"""Steps on 8 logical CPU devices, their gradients by XLA and not: as TPU cores would compute them.

Prints the largest difference between the weights.
"""

import os

# XLA has no kernel for the compiled one.
os.environ["TAL1_HVD_SIMD"] = "tensorflow"

import numpy as np
import tensorflow as tf

from tal1_hvd.distributed.optimizer import DistributedOptimizer
from tal1_hvd.distributed.tensorflow_strategies import OneProcess
from tal1_hvd.machine import start_tensorflow
from tal1_hvd.models.first_layer import fuse_first_layer
from tal1_hvd.models.paper import paper
from tal1_hvd.training.adam import FusedAdam
from tal1_hvd.training.step import Batches, compile_steps, make_gradient

CORES, STEPS, BATCH, LENGTH = 8, 3, 64, 150

# As for a TPU.
start_tensorflow(1, replicas=CORES, deterministic=False)
devices = [f"CPU:{number}" for number in range(CORES)]
cores = OneProcess(tf.distribute.MirroredStrategy(devices), "tpu", "stand-in")

numbers = [(tf.constant(float(number)),) for number in range(CORES)]
sums = tf.function(lambda: cores.run(cores.all_reduce_sum, numbers), autograph=False)()
assert [float(total) for total in sums] == [sum(range(CORES))] * CORES


def train(compiled):
    """Return the weights after some steps; print what a core computes them with."""
    with cores.scope():
        model = paper(LENGTH, seed=1)
        optimizer = DistributedOptimizer(FusedAdam(0.01), cores, op="sum")
        optimizer.build(model.trainable_variables)
        gradient = make_gradient(fuse_first_layer(model))

    def by_xla(batch):
        # Traced for each device: XLA looks for variables on its own.
        return tf.function(gradient, jit_compile=True, autograph=False)(batch)

    steps = compile_steps(by_xla if compiled else gradient, optimizer, cores, (1, BATCH, LENGTH))
    rng = np.random.default_rng(2)
    places = (STEPS, 1, BATCH)
    totals = steps(
        [
            Batches(
                rng.integers(0, 5, (*places, LENGTH), dtype=np.uint8),
                rng.integers(0, 2, places, dtype=np.uint8),
                np.ones(places, bool),
                np.full(STEPS, BATCH * CORES),
            )
            for _ in range(CORES)
        ]
    )
    return float(totals.loss), model.get_weights()


(loss, plain), (loss_by_xla, by_xla) = train(False), train(True)
assert abs(loss - loss_by_xla) < 1e-3 * abs(loss), (loss, loss_by_xla)
start = paper(LENGTH, seed=1).get_weights()
assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(plain, start, strict=True))
print(max(float(np.abs(a - b).max()) for a, b in zip(plain, by_xla, strict=True)))
