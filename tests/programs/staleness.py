"""Rank 0 runs ahead of rank 1 as far as it may: prints on rank 0 what it was answered.

Started on 2 ranks. The learning rate is 1, so a weight is minus the sum of the gradients applied.
"""

import keras
import numpy as np
from mpi4py import MPI

from tal1_hvd.aggregation.parameter_server import AsynchronousParameterServer
from tal1_hvd.distributed.communicator import connect
from tal1_hvd.machine import start_tensorflow

communicator = connect()
start_tensorflow(1, graphs=2)
weights = keras.Variable(np.zeros(1), dtype="float64")
server = AsynchronousParameterServer(
    keras.optimizers.SGD(1.0), [weights], communicator, staleness=2
)
server.begin_epoch()
told = MPI.COMM_WORLD.Dup()
one = np.ones(1)
if communicator.rank == 0:
    answers = [float(server._push(one)[0]) for _ in range(2)]
    # Only now does rank 1 begin: what rank 0 is answered next was not there before.
    told.Send(one, 1)
    answers.append(float(server._push(one)[0]))
    print(answers)
else:
    told.Recv(np.empty(1), 0)
    server._push(100 * one)
server.end_epoch()
assert weights.numpy()[0] == -103, weights.numpy()
communicator.close()
