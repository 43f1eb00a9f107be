"""Gossip for 2 steps with gradients known by hand: prints each rank's weight and the distance."""

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.aggregation.gossip import Gossip
from tal1_hvd.distributed.communicator import connect
from tal1_hvd.machine import start_tensorflow

communicator = connect()
start_tensorflow(1)
rank, size = communicator.rank, communicator.size
weights = keras.Variable(np.zeros(1), dtype="float64")
gossip = Gossip(keras.optimizers.SGD(1.0), [weights], communicator)
gossip.begin_epoch()


@tf.function
def step():
    # A share of a mean over all ranks' examples, as in training.
    gossip.apply([tf.constant([(rank + 1.0) / size], tf.float64)])


step()
step()
own = float(weights.numpy()[0])
distance = gossip.end_epoch()["consensus_distance"]
found = communicator.all_gather_json([own, distance, float(weights.numpy()[0])])
sent = gossip.bytes_per_step()
if rank == 0:
    print(found, sent)
communicator.close()
