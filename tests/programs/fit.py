"""``model.fit`` with the public optimizer and callbacks: each rank its own half of the data."""

import keras
import numpy as np

from tal1_hvd import AverageLogs, BroadcastInitialState, DistributedOptimizer
from tal1_hvd.distributed.communicator import connect

comm = connect()
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 3)).astype("float32")
y = x @ np.array([[1.0], [-2.0], [0.5]], dtype="float32")
mine = slice(comm.rank, None, comm.size)

keras.utils.set_random_seed(comm.rank)  # ranks start apart, so the broadcast has work to do
model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.Adam(0.1)), loss="mse")
history = model.fit(
    x[mine],
    y[mine],
    batch_size=8,
    epochs=20,
    verbose=0,
    callbacks=[BroadcastInitialState(), AverageLogs()],
).history["loss"]
weights = np.concatenate([np.ravel(w) for w in model.get_weights()])
everywhere = comm.all_gather(weights[None])
assert np.array_equal(everywhere, np.tile(weights, (comm.size, 1))), everywhere
losses = comm.all_gather(np.array([history]))
assert np.array_equal(losses, np.tile(history, (comm.size, 1))), losses
assert history[-1] < 0.05 * history[0], history
print(f"rank {comm.rank} fits", flush=True)
