"""Which aggregation a run's settings ask for."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tal1_hvd.aggregation.all_reduce import AllReduce
from tal1_hvd.aggregation.base import Aggregation
from tal1_hvd.aggregation.gossip import Gossip
from tal1_hvd.aggregation.parameter_server import AsynchronousParameterServer, ParameterServer
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.training.adam import FusedAdam
from tal1_hvd.training.schedule import ScaledWarmup
from tal1_hvd.training.settings import TrainSettings


def make_aggregation(
    settings: TrainSettings,
    global_batch: int,
    variables: Sequence[keras.Variable],
    communicator: Communicator,
) -> Aggregation:
    """Make the aggregation of a run, with its optimizer.

    Parameters
    ----------
    settings : TrainSettings
    global_batch : int
        Examples of a step over all ranks.
    variables : sequence of keras.Variable
        The model's trainable ones; all ranks get rank 0's values.
    communicator : Communicator

    Returns
    -------
    Aggregation

    Raises
    ------
    InputError
        It needs MPI, which is not there.
    """
    asynchronous = settings.staleness is not None
    # Where every rank's batch makes an update of its own, the rate is that of a rank's batch.
    batch = global_batch // communicator.size if asynchronous else global_batch
    adam = FusedAdam(ScaledWarmup(settings.learning_rate, batch, settings.warmup_examples))
    if asynchronous:
        return AsynchronousParameterServer(adam, variables, communicator, settings.staleness)
    if settings.aggregation == "parameter-server":
        return ParameterServer(adam, variables, communicator)
    if settings.aggregation == "gossip":
        return Gossip(adam, variables, communicator)
    return AllReduce(adam, variables, communicator, settings.compression)
