"""Where a training step's time goes: first layer, other compute, all-reduce, input.

``python -m tal1_hvd.benchmark.breakdown --data DIR --out JSON`` (internal; `break_down` starts it,
on any number of ranks) times the same steps whole, without the all-reduce, and with nothing but the
first layer, in turn; the differences are the parts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.distributed.communicator import SingleProcess, connect
from tal1_hvd.distributed.launch import find_launcher, launch_ranks
from tal1_hvd.distributed.rank_process import end_rank, monitor_stops
from tal1_hvd.machine import quick_keras_import, start_tensorflow
from tal1_hvd.training.plan import plan_batches
from tal1_hvd.training.settings import TrainSettings

PARTS = ("first_layer", "other_compute", "all_reduce", "input")
_CALLS = 30


def break_down(data: Path, ranks: int, seed: int) -> dict[str, float]:
    """Measure a step on ranks of this machine.

    Parameters
    ----------
    data : Path
        Dataset folder.
    ranks : int
    seed : int

    Returns
    -------
    dict
        Median microseconds of a step, `step`, and of its parts: `first_layer` (with its gradient),
        `other_compute`, `all_reduce` (with the wait for the slowest rank), `input` (reading the
        batch's rows).

    Raises
    ------
    RuntimeError
        The ranks failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "parts.json"
        command = [sys.executable, "-m", "tal1_hvd.benchmark.breakdown"]
        command += ["--data", str(data), "--seed", str(seed), "--out", str(out)]
        if ranks == 1:
            code = subprocess.run(command, check=False).returncode
        else:
            code = launch_ranks([*find_launcher(ranks), *command], {}, lambda line: False)
        if code:
            raise RuntimeError(f"{' '.join(command)} ended with exit code {code}")
        return json.loads(out.read_text())


def main() -> int:
    """Measure on this rank; rank 0 writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    settings = TrainSettings(seed=args.seed)
    monitor_stops(settings.stall_timeout)
    with quick_keras_import():
        communicator = connect()
    start_tensorflow(threads=1, local_rank=communicator.local_rank)
    import tensorflow as tf

    from tal1_hvd.models.first_layer import fuse_first_layer
    from tal1_hvd.training.step import Batches, gather
    from tal1_hvd.training.train import Trainer

    dataset = open_dataset(args.data, verify=False)
    batching = plan_batches(settings, dataset, communicator.rank, communicator.size)
    trainer = Trainer.build(settings, dataset, batching, communicator)
    alone = Trainer.build(settings, dataset, batching, SingleProcess())
    rows = dataset.rows("train")
    chunk = next(iter(batching.epoch(0).chunks(trainer.steps_a_call)))

    def read() -> Batches:
        batches = gather(dataset.sequences, dataset.labels, rows, chunk)
        return Batches(*(tf.constant(field) for field in batches))

    batches = read()
    layer = fuse_first_layer(trainer.model).get_layer("first_layer")
    first_layer = _first_layer(layer, batching.batch, dataset.length)
    calls = {
        # What they return is read, for on a GPU a call ends before its work does.
        "whole": lambda: float(trainer.steps([batches]).loss),
        "alone": lambda: float(alone.steps([batches]).loss),
        "first_layer": lambda: float(first_layer(batches.codes[:, 0])),
        "input": read,
    }
    seconds = {name: [] for name in calls}
    for _ in range(_CALLS):
        for name, call in calls.items():
            # A rank that is late already must not count as one that computes.
            communicator.all_gather(np.zeros(1, dtype=np.uint8))
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    communicator.close()
    if communicator.rank == 0:
        steps = len(chunk.counts)
        times = {name: 1e6 * float(np.median(taken)) / steps for name, taken in seconds.items()}
        args.out.write_text(json.dumps(parts_of(times, communicator.size)))
    return 0


def parts_of(times: Mapping[str, float], ranks: int) -> dict[str, float]:
    """Return a step's time and its parts'.

    Parameters
    ----------
    times : dict
        Microseconds of the `whole` step, of one that is `alone` (without the all-reduce), of the
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
