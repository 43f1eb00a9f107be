"""Save the gradient of one step of the published CNN on a fixed global batch: DATA OUT."""

import sys

import keras
import numpy as np

from tal1_hvd.data.batches import Batching
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.distributed.communicator import connect
from tal1_hvd.distributed.optimizer import DistributedOptimizer
from tal1_hvd.machine import start_tensorflow
from tal1_hvd.models.registry import build_model
from tal1_hvd.training.step import compile_steps, gather, make_gradient

GLOBAL_BATCH = 64


class Capture(keras.optimizers.SGD):
    """Stores the gradient in place of the variable."""

    def update_step(self, gradient, variable, learning_rate):
        """Assign."""
        self.assign(variable, gradient)


comm = connect()
start_tensorflow(1)
data = open_dataset(sys.argv[1])
batching = Batching(len(data.rows("train")), comm.rank, comm.size, GLOBAL_BATCH // comm.size)
model = build_model("paper", data.length, seed=0)
optimizer = DistributedOptimizer(Capture(), comm, op="sum")
optimizer.build(model.trainable_variables)
step = next(batching.epoch(0).chunks(1))
steps = compile_steps(make_gradient(model), optimizer, comm, (1, batching.batch, data.length))
steps([gather(data.sequences, data.labels, data.rows("train"), step)])
if comm.rank == 0:
    flat = np.concatenate([np.ravel(variable) for variable in model.trainable_variables])
    np.save(sys.argv[2], flat)
