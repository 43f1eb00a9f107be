"""Where a training step's time goes: first layer, other compute, all-reduce, input.

``python -m tal1_hvd.benchmark.breakdown --config RUN/config.yaml --out JSON`` (internal;
`break_down` starts it, on any number of ranks) times the same steps whole, without the other ranks,
and with nothing but the first layer, in turn; the differences are the parts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.distributed.communicator import Communicator, SingleProcess, connect
from tal1_hvd.distributed.end_with_parent import end_with_parent
from tal1_hvd.distributed.launch import StoppedEarlyError, find_launcher, launch_ranks
from tal1_hvd.distributed.rank_process import end_rank, monitor_stops
from tal1_hvd.machine import quick_keras_import, start_tensorflow
from tal1_hvd.training.plan import plan_batches
from tal1_hvd.training.settings import REPLICATED, TrainSettings, read_settings

PARTS = ("first_layer", "other_compute", "all_reduce", "input")
_CALLS = 30
# Slow ways need not be measured as often.
_SECONDS, _FEWEST_CALLS = 4.0, 5


def break_down(settings: TrainSettings, ranks: int) -> dict[str, float]:
    """Measure a step on ranks of this machine.

    Parameters
    ----------
    settings : TrainSettings
        With a dataset.
    ranks : int

    Returns
    -------
    dict
        Median microseconds of a step, `step`, and of its parts: `first_layer` (with its gradient),
        `other_compute`, `all_reduce` (or whatever else joins the ranks, with the wait for the
        slowest), `input` (reading the batch's rows).

    Raises
    ------
    RuntimeError
        The ranks failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        config, out = Path(folder) / "config.yaml", Path(folder) / "parts.json"
        config.write_text(settings.to_yaml(ranks))
        command = [sys.executable, "-m", "tal1_hvd.benchmark.breakdown"]
        command += ["--config", str(config), "--out", str(out)]
        if ranks == 1 or settings.strategy in REPLICATED:
            started = subprocess.run(end_with_parent(command), check=False)
            code = started.returncode
        else:
            launcher = find_launcher(ranks, settings.strategy)
            try:
                code = launch_ranks([*launcher, *command], {}, lambda line: False, lambda: None)
            except StoppedEarlyError:
                raise KeyboardInterrupt from None
        if code:
            raise RuntimeError(f"{' '.join(command)} ended with exit code {code}")
        return json.loads(out.read_text())


def main() -> int:
    """Measure on this rank; rank 0 writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a run's, that names its data")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    settings, ranks = read_settings(args.config)
    monitor_stops(settings.stall_timeout)
    replicas = ranks if settings.strategy in REPLICATED else 1
    with quick_keras_import():
        communicator = connect(settings.strategy, replicas, 1, not settings.peer_to_peer)
    if communicator.device is None:
        start_tensorflow(1, communicator.local_rank, graphs=settings.graphs)
    import tensorflow as tf

    from tal1_hvd.training.step import Batches, gather
    from tal1_hvd.training.trainer import Trainer

    dataset = open_dataset(settings.data, verify=False)
    batching = plan_batches(settings, dataset, communicator.rank, communicator.size)
    trainer = Trainer.build(settings, dataset, batching, communicator)
    if settings.aggregation == "model-parallel":
        alone = Trainer.build(settings, dataset, batching, _Unheard(communicator))
    else:
        plain = replace(settings, aggregation="allreduce", staleness=None)
        alone = Trainer.build(plain, dataset, batching, SingleProcess())
    rows = dataset.rows("train")
    chunks = [next(iter(share.epoch(0).chunks(trainer.steps_a_call))) for share in trainer.shares]

    def read() -> list[Batches]:
        batches = (gather(dataset.sequences, dataset.labels, rows, chunk) for chunk in chunks)
        return [Batches(*(tf.constant(field) for field in rank)) for rank in batches]

    batches = read()
    layer = trainer.learner.get_layer("first_layer")
    first_layer = _first_layer(layer, batching.batch, dataset.length)
    calls = {
        # What they return is read, for on a GPU a call ends before its work does.
        "whole": lambda: float(trainer.steps(batches).loss),
        "alone": lambda: float(alone.steps(batches[:1]).loss),
        "first_layer": lambda: float(first_layer(batches[0].codes[:, 0])),
        "input": read,
    }
    seconds = {name: [] for name in calls}
    trainer.aggregation.begin_epoch()
    start = time.perf_counter()
    for number in range(_CALLS):
        late = number >= _FEWEST_CALLS and time.perf_counter() - start > _SECONDS
        if communicator.broadcast_json(late):
            break
        for name, call in calls.items():
            # A rank that is late already must not count as one that computes.
            communicator.all_gather(np.zeros(1, dtype=np.uint8))
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    trainer.aggregation.end_epoch()
    communicator.close()
    if communicator.rank == 0:
        steps = len(chunks[0].counts)
        times = {name: 1e6 * float(np.median(taken)) / steps for name, taken in seconds.items()}
        args.out.write_text(json.dumps(parts_of(times, communicator.size)))
    return 0


class _Unheard(SingleProcess):
    """One of several ranks, none of which hears of the others."""

    def __init__(self, like: Communicator):
        self.rank, self.size = like.rank, like.size


def parts_of(times: Mapping[str, float], ranks: int) -> dict[str, float]:
    """Return a step's time and its parts'.

    Parameters
    ----------
    times : dict
        Microseconds of the `whole` step, of one that is `alone` (without other ranks), of the
        `first_layer` and of the `input`.
    ranks : int

    Returns
    -------
    dict
        `step` and `PARTS`, none below 0: noise can make a part that costs next to nothing seem to
        cost less.

    Examples
    --------
    >>> parts_of({"whole": 500, "alone": 400, "first_layer": 300, "input": 25}, ranks=2)
    {'step': 525, 'first_layer': 300, 'other_compute': 100, 'all_reduce': 100, 'input': 25}
    """
    # One rank reduces nothing: both are the same steps.
    alone = times["alone"] if ranks > 1 else times["whole"]
    differences = (times["first_layer"], alone - times["first_layer"], times["whole"] - alone)
    parts = [max(difference, 0) for difference in differences]
    step = times["whole"] + times["input"]
    return {"step": step, **dict(zip(PARTS, [*parts, times["input"]], strict=True))}


def _first_layer(layer, batch: int, length: int) -> Callable[[np.ndarray], object]:
    """Trace a function that computes the first layer and its gradient for a number of batches."""
    import tensorflow as tf

    variables = [variable.value for variable in layer.trainable_variables]
    upstream = tf.ones(layer.compute_output_shape((batch, length)), layer.compute_dtype)

    @tf.function(input_signature=[tf.TensorSpec((None, batch, length), tf.uint8)])
    def steps(codes: tf.Tensor) -> tf.Tensor:
        total = tf.zeros((), variables[0].dtype)
        for i in tf.range(tf.shape(codes)[0]):
            with tf.GradientTape() as tape:
                pooled = layer(codes[i])
            for gradient in tape.gradient(pooled, variables, output_gradients=upstream):
                total += tf.reduce_sum(gradient)
        return total

    return steps.get_concrete_function()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as error:
        end_rank(error)
