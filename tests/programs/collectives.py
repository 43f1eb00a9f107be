"""Every collective of the Horovod communicator, checked on each rank."""

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.distributed.agreement import AgreedError, together
from tal1_hvd.distributed.communicator import connect
from tal1_hvd.errors import InputError

comm = connect()
rank, size = comm.rank, comm.size


@tf.function
def summed(x):
    return comm.all_reduce_sum(x)


assert comm.name == "horovod"
assert float(comm.all_reduce_sum(tf.constant(rank + 1.0))) == size * (size + 1) / 2
assert np.array_equal(summed(tf.ones(3, tf.float64)), np.full(3, size))
uneven = comm.all_gather(np.full((rank, 2), rank, dtype=np.int32))
assert uneven.tolist() == [[r, r] for r in range(size) for _ in range(r)]
assert comm.all_gather_json({"rank": rank}) == [{"rank": r} for r in range(size)]
assert comm.broadcast_json(["from", rank]) == ["from", 0]
variable = keras.Variable(np.full(2, float(rank)), dtype="float64")
comm.broadcast_variables([variable])
assert np.array_equal(variable, [0, 0])


def refuse_on_last():
    if rank == size - 1:
        raise InputError("no")
    return rank


try:
    together(comm, refuse_on_last)
except AgreedError as error:
    assert str(error) == f"rank {size - 1}: no"
else:
    raise AssertionError("all ranks should have failed together")
assert together(comm, lambda: rank) == rank
comm.close()
print(f"rank {rank} of {size} agrees", flush=True)
