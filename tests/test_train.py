"""The loop over epochs, on ranks that are threads of this process, and what they are told of it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tal1_hvd.aggregation.all_reduce import AllReduce
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.training import trainer as trainer_module
from tal1_hvd.training.checkpoint import load_checkpoint
from tal1_hvd.training.plan import plan_batches
from tal1_hvd.training.reporters import Silent
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import TrainSettings
from tal1_hvd.training.step import CallTotals
from tal1_hvd.training.train import train
from tal1_hvd.training.trainer import Call, Trainer
from tests.sessions import history, predictions, timeless


class Recorder(Silent):
    """Notes a run's course."""

    def __init__(self):
        self.started, self.advanced, self.rows, self.finished = None, [[]], [], 0

    def start(self, epochs, done, examples):
        self.started = (epochs, done, examples)

    def advance(self, examples):
        self.advanced[-1].append(examples)

    def epoch(self, row):
        self.rows.append(row)
        self.advanced.append([])

    def finish(self):
        self.finished += 1


class Rank(SingleProcess):
    """A rank that is a thread of this process."""

    name = "threads"

    def __init__(self, rank, size, slots, barrier):
        self.rank, self.size, self._slots, self._barrier = rank, size, slots, barrier

    def _exchange(self, value):
        self._slots[self.rank] = value
        self._barrier.wait()
        values = list(self._slots)
        self._barrier.wait()
        return values

    def all_reduce_sum(self, tensor):
        return tf.add_n(self._exchange(tensor))

    def all_gather(self, array):
        return np.concatenate(self._exchange(array))

    def broadcast_variables(self, variables):
        first = self._exchange([np.array(variable) for variable in variables])[0]
        for variable, value in zip(variables, first, strict=True):
            variable.assign(value)

    def all_gather_json(self, value):
        return [json.loads(text) for text in self._exchange(json.dumps(value))]

    def broadcast_json(self, value):
        return self.all_gather_json(value if self.rank == 0 else None)[0]

    def close(self):
        self._exchange(None)


class Eager:
    """Stands in for `tf.function`: a graph's threads might wait for each other in vain."""

    def __init__(self, function=None, **options):
        self._function = function

    def __call__(self, *given, **named):
        return Eager(*given) if self._function is None else self._function(*given, **named)

    def get_concrete_function(self):
        return self._function


def train_on_threads(data, path, size, settings):
    """Return the run folder and each rank's reporter, metrics and final weights."""
    dataset, folder = open_dataset(data), RunFolder.create(path, settings, size)
    folder.write_manifest({})
    slots, barrier = [None] * size, threading.Barrier(size, timeout=60)

    def work(rank):
        communicator, reporter = Rank(rank, size, slots, barrier), Recorder()
        try:
            batching = plan_batches(settings, dataset, rank, size)
            trainer = Trainer.build(settings, dataset, batching, communicator)
            metrics = train(trainer, folder, reporter)
            return reporter, metrics, [np.array(v) for v in trainer.model.variables]
        except BaseException:
            barrier.abort()
            raise

    with mock.patch.object(tf, "function", Eager), ThreadPoolExecutor(size) as pool:
        return folder, *zip(*pool.map(work, range(size)), strict=True)


THREADED = {
    "epochs": 2,
    "learning_rate": 0.01,
    "warmup_examples": 300,
    "precision": "float64",
}


@pytest.fixture(scope="module")
def whole(learnable_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "run"
    return train_on_threads(learnable_data, path, 1, TrainSettings(**THREADED, batch_size=48))


@pytest.fixture(scope="module")
def shared(learnable_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "run"
    return train_on_threads(learnable_data, path, 3, TrainSettings(**THREADED, batch_size=16))


class TestRanks:
    """The loop over epochs on several ranks; real ones are launched elsewhere."""

    def test_three_ranks_are_one(self, whole, shared):
        expected = whole[3][0]
        for weights in shared[3]:
            for ours, theirs in zip(weights, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)
        for ours, theirs in zip(history(shared[0]), history(whole[0]), strict=True):
            for name, value in timeless(theirs).items():
                assert float(ours[name]) == pytest.approx(float(value), abs=1e-9), name
        ours, theirs = (timeless(folder.read_metrics()) for folder in (shared[0], whole[0]))
        assert (ours.pop("world_size"), theirs.pop("world_size")) == (3, 1)
        assert ours["global_batch_size"] == theirs["global_batch_size"] == 48
        assert ours["test"]["loss"] == pytest.approx(theirs["test"]["loss"], abs=1e-9)

    def test_rows_of_all_ranks_come_in_order(self, whole, shared):
        ours, theirs = predictions(shared[0]), predictions(whole[0])
        assert [row[:2] for row in ours] == [row[:2] for row in theirs]
        scores = ([float(row[2]) for row in rows[1:]] for rows in (ours, theirs))
        np.testing.assert_allclose(*scores, atol=1e-9)

    def test_all_ranks_leave_with_the_best_model(self, shared):
        best = load_checkpoint(shared[0].best).model
        for weights in shared[3]:
            assert [w.tobytes() for w in weights] == [w.tobytes() for w in best]

    def test_metrics_are_rank_0s(self, shared):
        first, *others = shared[2]
        assert first == shared[0].read_metrics()
        assert others == [{}, {}]

    def test_only_one_writes(self, shared):
        assert len(list(shared[0].tensorboard.iterdir())) == 1

    def test_every_rank_is_told_the_same_course(self, whole, shared):
        for reporter in (*whole[1], *shared[1]):
            assert reporter.started == (2, 0, 210)
            assert [sum(counts) for counts in reporter.advanced] == [210, 210, 0]
            assert [row["epoch"] for row in reporter.rows] == [1, 2]
            assert reporter.finished == 1
        assert shared[1][0].rows == shared[1][2].rows

    def test_calls_count_every_example_once(self, learnable_data, monkeypatch):
        """In calls of the graph that are not all as long."""
        monkeypatch.setattr(trainer_module, "_MOST_STEPS_A_CALL", 2)
        settings = TrainSettings(batch_size=20, accumulation=4)
        dataset = open_dataset(learnable_data)
        batching, alone = plan_batches(settings, dataset, 0, 1), SingleProcess()
        totals = CallTotals(np.float64(105.0), np.int64(70), np.float64(0.5))
        aggregation = AllReduce(keras.optimizers.SGD(), [], alone)
        trainer = Trainer(
            settings, dataset, batching, alone, None, None, aggregation, lambda ranks: totals, None
        )
        # Steps of 80, 80 and 50 are two calls, each of which gave the same totals.
        both = [Call(2, 160, 105.0, 70, 0.5), Call(1, 50, 105.0, 70, 0.5)]
        assert list(trainer.calls(0)) == both
        assert list(trainer.calls(0, 160)) == both[1:]
