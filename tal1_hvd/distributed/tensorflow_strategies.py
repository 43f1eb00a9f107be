"""Ranks under ``tf.distribute``: several in one process (mirrored, tpu), or one a process."""

from __future__ import annotations

import functools
import os
import signal
import socket
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.distributed.communicator import (
    Communicator,
    JsonByArrays,
    SingleProcess,
)
from tal1_hvd.distributed.environment import (
    launched_rank,
    launched_strategy,
    place_on_machine,
)
from tal1_hvd.errors import InputError
from tal1_hvd.machine import start_tensorflow

_SECONDS_TO_ANSWER = 10.0


class Replicas:
    """The ranks of one process under a strategy of ``tf.distribute``.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
    name, device : str
    rank : int
        The first of this process's ranks.
    local_rank, local_size : int
        This process among those on this machine.
    """

    reduced_by_keras = True

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        name: str,
        device: str,
        rank: int = 0,
        local_rank: int = 0,
        local_size: int = 1,
    ):
        self.strategy = strategy
        self.name = name
        self.device = device
        self.rank = rank
        self.size = strategy.num_replicas_in_sync
        self.replicas = len(strategy.extended.worker_devices)
        self.local_rank, self.local_size = local_rank, local_size

    def scope(self) -> AbstractContextManager[object]:
        """Return a block; variables created in it exist on each rank of this process."""
        return self.strategy.scope()

    def run(self, function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a function on each rank of this process, with inputs of its own; in a graph."""
        strategy = self.strategy
        own = strategy.experimental_distribute_values_from_function(
            lambda context: inputs[context.replica_id_in_sync_group - self.rank]
        )
        results = strategy.run(function, args=own)
        return [
            tf.nest.map_structure(
                lambda value, replica=replica: strategy.experimental_local_results(value)[replica],
                results,
            )
            for replica in range(self.replicas)
        ]

    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the element-wise sum over ranks; in a function that `run` calls."""
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)


class OneProcess(Replicas, SingleProcess):
    """Ranks that are devices of this one process."""


class Workers(Replicas, JsonByArrays):
    """Ranks that are the workers of ``TF_CONFIG``, over TensorFlow's own collectives."""

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """Return all processes' arrays joined along axis 0 in rank order."""
        # TensorFlow's collectives take no bytes.
        carried = array.dtype if array.dtype.itemsize >= 4 else np.dtype(np.int32)
        gathered = self._gatherer(carried)(array.ravel().astype(carried)).numpy()
        return gathered.astype(array.dtype).reshape(-1, *array.shape[1:])

    @functools.cache  # noqa: B019 (as long as the process)
    def _gatherer(self, dtype: np.dtype) -> Callable[[np.ndarray], tf.Tensor]:
        """Trace a function that joins flat arrays; ``strategy.gather`` alone traces every time."""
        return tf.function(
            lambda own: self.strategy.gather(own, axis=0),
            autograph=False,
            input_signature=[tf.TensorSpec((None,), dtype)],
        ).get_concrete_function()

    def broadcast_variables(self, variables: Sequence[keras.Variable]) -> None:
        """Give the variables of all ranks the values of rank 0's."""
        for variable in variables:
            variable.assign(self.all_gather(np.array(variable)[None])[0])

    def close(self, launcher: bool = True) -> None:
        """Wait until every rank has come here."""
        self.all_gather(np.zeros(1, dtype=np.uint8))


def connect_replicas(strategy: str, replicas: int, threads: int) -> Communicator:
    """Start TensorFlow for a strategy of ``tf.distribute``, and join its ranks.

    Parameters
    ----------
    strategy : {"mirrored", "multiworker", "tpu"}
    replicas : int
        Ranks of this process, for mirrored and tpu.
    threads : int
        Compute threads a rank.

    Returns
    -------
    Communicator

    Raises
    ------
    InputError
        There is no TPU or one of another size, no ``TF_CONFIG``, or too few GPUs.
    """
    if strategy == "mirrored":
        device = start_tensorflow(threads, replicas=replicas)
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        devices = [f"{kind}:{number}" for number in range(replicas)]
        return OneProcess(tf.distribute.MirroredStrategy(devices), strategy, device)
    if strategy == "multiworker":
        if launched_strategy() != strategy:
            raise InputError(
                "--strategy multiworker: TF_CONFIG names no workers; give --ranks to start them on "
                "this machine"
            )
        local_rank, local_size = place_on_machine()
        device = start_tensorflow(threads, local_rank)
        together = tf.distribute.MultiWorkerMirroredStrategy()
        # TensorFlow takes it for a notice of preemption, and trains on.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return Workers(together, strategy, device, launched_rank(), local_rank, local_size)
    start_tensorflow(threads, deterministic=False)
    return OneProcess(tf.distribute.TPUStrategy(_find_tpu(replicas)), strategy, "TPU core")


def _find_tpu(cores: int) -> tf.distribute.cluster_resolver.TPUClusterResolver:
    """Find the TPU of this machine, or the one that ``TPU_NAME`` names, and initialise it."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            os.environ.get("TPU_NAME", "local")
        )
        _require_answer(resolver.master())
        tf.config.experimental_connect_to_cluster(resolver)
        topology = tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        # The first sentences; lists of what is registered follow.
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise InputError(
            f"--strategy tpu: found no TPU ({reason}); run this on a Cloud TPU VM that has "
            "tensorflow-tpu installed, or name the TPU in TPU_NAME"
        ) from None
    found = topology.num_tasks * topology.num_tpus_per_task
    if found != cores:
        raise InputError(f"--ranks: the TPU has {found} cores, got {cores}")
    return resolver


def _require_answer(master: str) -> None:
    """Raise OSError if nobody answers at a TPU's address: TensorFlow would wait for ever."""
    if master:
        host, port = master.removeprefix("grpc://").rsplit(":", 1)
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
