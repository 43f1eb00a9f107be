"""Callbacks for `fit` on several ranks, of which the others are played here."""

from __future__ import annotations

import os
from unittest import mock

import keras
import numpy as np
import pytest

from tal1_hvd.distributed.callbacks import AverageLogs, BroadcastInitialState
from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.distributed.optimizer import DistributedOptimizer


class Follower(SingleProcess):
    """Rank 1 of 2; rank 0 has only ones in its variables, and logs that are higher by `more`."""

    rank, size = 1, 2

    def __init__(self, more=0.0):
        self.more, self.broadcasts, self.gathered = more, [], 0

    def broadcast_variables(self, variables):
        self.broadcasts.append(list(variables))
        for variable in variables:
            variable.assign(np.ones(variable.shape))

    def all_gather(self, array):
        self.gathered += 1
        return np.concatenate([array + self.more, array])


def make_model(*first):
    return keras.Sequential([*first, keras.layers.Dense(1), keras.layers.BatchNormalization()])


def fit(model, callbacks, epochs=2, rate=0.0):
    optimizer = DistributedOptimizer(keras.optimizers.SGD(rate, momentum=0.9), SingleProcess())
    model.compile(optimizer, loss="mse", metrics=["mae"])
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    return model.fit(x, x[:, :1], batch_size=4, epochs=epochs, callbacks=callbacks, verbose=0)


def each_batch(model, seen):
    """Note a model's weights before each batch."""
    return keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(model.get_weights())
    )


@pytest.mark.parametrize("callback", [BroadcastInitialState, AverageLogs])
def test_default_communicator_is_that_of_this_process(callback):
    with mock.patch.dict(os.environ, clear=True):
        assert isinstance(callback()._communicator, SingleProcess)


class TestBroadcastInitialState:
    def test_once_before_the_first_step(self):
        model = make_model(keras.layers.Input((3,)))
        communicator, seen = Follower(), []
        fit(model, [BroadcastInitialState(communicator), each_batch(model, seen)])
        assert len(communicator.broadcasts) == 1
        assert len(seen) == 4
        assert all(np.all(weights == 1) for weights in seen[0])

    def test_model_that_fit_builds(self):
        """Keras builds such a model in its first step, so it can be given its state only then."""
        model = make_model()
        communicator, seen = Follower(), []
        fit(model, [BroadcastInitialState(communicator), each_batch(model, seen)])
        assert len(communicator.broadcasts) == 1
        # The learning rate is 0; batch normalization's moving averages go on all the same.
        kernel, bias = seen[1][:2]
        assert np.all(kernel == 1)
        assert np.all(bias == 1)

    def test_all_of_the_state(self):
        model = make_model(keras.layers.Input((3,)))
        communicator = Follower()
        fit(model, [BroadcastInitialState(communicator)])
        sent = {id(variable) for variable in communicator.broadcasts[0]}
        state = [*model.variables, *model.optimizer.variables]
        assert len(model.non_trainable_variables) == 2
        assert len(model.optimizer.inner_optimizer.variables) == 2 + len(model.trainable_variables)
        assert sent == {id(variable) for variable in state}
        assert len(communicator.broadcasts[0]) == len(state)

    def test_plain_optimizers_too(self):
        model = make_model(keras.layers.Input((3,)))
        model.compile(keras.optimizers.Adam(), loss="mse")
        communicator = Follower()
        callback = BroadcastInitialState(communicator)
        callback.set_model(model)
        callback.on_train_begin()
        assert len(communicator.broadcasts[0]) == len(model.variables) + len(
            model.optimizer.variables
        )


class TestAverageLogs:
    def test_mean_over_ranks_in_place(self):
        logs = {"val_loss": 3.0, "loss": 1.0, "accuracy": np.float32(0.5)}
        AverageLogs(Follower(more=2.0)).on_epoch_end(0, logs)
        assert logs == {"val_loss": 4.0, "loss": 2.0, "accuracy": 1.5}
        assert all(type(value) is float for value in logs.values())
        assert list(logs) == ["val_loss", "loss", "accuracy"]

    def test_one_collective_of_one_row_a_rank(self):
        communicator = Follower()
        communicator.all_gather = mock.Mock(side_effect=communicator.all_gather)
        AverageLogs(communicator).on_epoch_end(0, {"b": 2.0, "a": 1.0})
        (array,) = communicator.all_gather.call_args.args
        assert communicator.all_gather.call_count == 1
        # Ranks agree on the order: that of the names.
        np.testing.assert_array_equal(array, [[1.0, 2.0]])

    @pytest.mark.parametrize("logs", [None, {}])
    def test_nothing_to_average(self, logs):
        communicator = Follower()
        AverageLogs(communicator).on_epoch_end(0, logs)
        assert communicator.gathered == 0

    def test_alone(self):
        logs = {"loss": 0.1 + 0.2}
        AverageLogs(SingleProcess()).on_epoch_end(0, logs)
        assert logs == {"loss": 0.1 + 0.2}

    def test_callbacks_behind_it_and_the_history_see_means(self):
        seen = []
        watch = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(logs["loss"])
        )
        model = make_model(keras.layers.Input((3,)))
        averaged = AverageLogs(Follower(more=2.0))
        history = fit(model, [watch, averaged, watch]).history
        own, means = seen[::2], seen[1::2]
        np.testing.assert_allclose(means, np.add(own, 1.0), atol=1e-6)
        assert history["loss"] == means

    def test_early_stopping_of_all_ranks_alike(self):
        """Rank 0's loss rises by more than this rank's falls, so this one stops too."""

        class Worse(Follower):
            def all_gather(self, array):
                self.more += 10.0
                return super().all_gather(array)

        stopping = keras.callbacks.EarlyStopping("loss", patience=1)
        model = make_model(keras.layers.Input((3,)))
        history = fit(model, [AverageLogs(Worse()), stopping], epochs=9, rate=1e-3)
        assert len(history.history["loss"]) == 2
