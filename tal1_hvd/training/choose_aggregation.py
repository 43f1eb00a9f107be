"""Which aggregation a run's settings ask for."""

from __future__ import annotations

import keras

from tal1_hvd.aggregation.all_reduce import AllReduce
from tal1_hvd.aggregation.base import Aggregation
from tal1_hvd.aggregation.gossip import Gossip
from tal1_hvd.aggregation.model_parallel import ModelParallel
from tal1_hvd.aggregation.parameter_server import AsynchronousParameterServer, ParameterServer
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.training.adam import FusedAdam
from tal1_hvd.training.lars import Lars
from tal1_hvd.training.schedule import ScaledWarmup
from tal1_hvd.training.settings import TrainSettings

_OPTIMIZERS = {"adam": FusedAdam, "lamb": keras.optimizers.Lamb, "lars": Lars}


def make_aggregation(
    settings: TrainSettings,
    global_batch: int,
    model: keras.Model,
    communicator: Communicator,
    examples_before: int = 0,
) -> tuple[Aggregation, keras.Model]:
    """Make the aggregation of a run, with its optimizer.

    Parameters
    ----------
    settings : TrainSettings
    global_batch : int
        Examples of a step over all ranks.
    model : keras.Model
        All ranks get rank 0's values.
    communicator : Communicator
    examples_before : int
        By which the learning rate is warmer than steps of this global batch have made it.

    Returns
    -------
    aggregation : Aggregation
    learner : keras.Model
        What this rank trains: `model`, or its part of it.

    Raises
    ------
    InputError
        It needs MPI, which is not there.
    """
    communicator.broadcast_variables(model.variables)
    variables = model.trainable_variables
    asynchronous = settings.staleness is not None
    # Where every rank's batch makes an update of its own, the rate is that of a rank's batch.
    batch = global_batch // communicator.size if asynchronous else global_batch
    rate = ScaledWarmup(
        settings.learning_rate,
        batch,
        settings.warmup_examples,
        settings.rate_scaling,
        examples_before,
    )
    optimizer = _OPTIMIZERS[settings.optimizer](rate)
    if asynchronous:
        server = AsynchronousParameterServer(optimizer, variables, communicator, settings.staleness)
        return server, model
    if settings.aggregation == "parameter-server":
        return ParameterServer(optimizer, variables, communicator), model
    if settings.aggregation == "gossip":
        return Gossip(optimizer, variables, communicator), model
    if settings.aggregation == "model-parallel":
        split = ModelParallel(optimizer, model, communicator, global_batch)
        return split, split.part
    return AllReduce(optimizer, variables, communicator, settings.compression), model
