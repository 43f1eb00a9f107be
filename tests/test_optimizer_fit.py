"""The distributed optimizer in Keras: in fit, saved, and from its config."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.distributed.optimizer import DistributedOptimizer
from tal1_hvd.training.schedule import ScaledWarmup
from tests.toys import assert_same, constants, make_variables, small_data, small_model, values

pytestmark = pytest.mark.usefixtures("not_launched")

SGD = keras.optimizers.SGD
INNER = {
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.5),
    "moving average": lambda: SGD(0.1, use_ema=True, ema_momentum=0.5),
    "warmed up": lambda: keras.optimizers.Adam(ScaledWarmup(0.01, 256, 100)),
}


class TestFit:
    def fit(self, optimizer, epochs=3, batch_size=8, callbacks=None, model=None):
        if model is None:
            model = small_model()
            model.compile(optimizer, loss="mse")
        x, y = small_data()
        options = {"epochs": epochs, "batch_size": batch_size, "callbacks": callbacks}
        model.fit(x, y, shuffle=False, verbose=0, **options)
        return model

    @pytest.mark.parametrize("inner", ["adamw", "moving average"])
    def test_alone_it_is_the_inner_optimizer(self, inner):
        plain = self.fit(INNER[inner]())
        wrapped = self.fit(DistributedOptimizer(INNER[inner](), SingleProcess()))
        assert_same(wrapped.get_weights(), plain.get_weights(), atol=1e-6)
        assert int(wrapped.optimizer.iterations.value) == 12
        assert float(wrapped.optimizer.learning_rate) == float(plain.optimizer.learning_rate)

    def test_variables_without_weight_decay(self):
        optimizer = DistributedOptimizer(INNER["adamw"](), SingleProcess())
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        model = small_model()
        before = model.get_weights()
        optimizer.build(model.trainable_variables)
        optimizer.apply([tf.zeros(v.shape) for v in model.trainable_variables])
        for variable, old in zip(model.trainable_variables, before, strict=True):
            decayed = not np.array_equal(variable.numpy(), old)
            assert decayed == ("bias" not in variable.name)

    def test_passes(self):
        """Two batches of 8 a step, averaged, are a batch of 16."""
        plain = self.fit(SGD(0.1), batch_size=16)
        wrapped = self.fit(
            DistributedOptimizer(SGD(0.1), SingleProcess(), backward_passes_per_step=2)
        )
        assert_same(wrapped.get_weights(), plain.get_weights(), atol=1e-6)
        assert int(wrapped.optimizer.iterations.value) == 6

    def test_model_that_fit_builds(self):
        """The optimizer creates its variables within a graph then."""
        model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
        optimizer = DistributedOptimizer(
            SGD(0.1, momentum=0.9), SingleProcess(), backward_passes_per_step=2
        )
        model.compile(optimizer, loss="mse")
        history = self.fit(optimizer, model=model).history.history
        assert int(optimizer.iterations.value) == 6
        assert history["loss"][-1] < history["loss"][0]

    def test_callbacks_change_the_inner_learning_rate(self):
        scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        optimizer = DistributedOptimizer(SGD(0.8), SingleProcess())
        self.fit(optimizer, callbacks=[scheduler])
        assert float(optimizer.inner_optimizer.learning_rate) == pytest.approx(0.1)
        optimizer.learning_rate = 0.25
        assert float(optimizer.inner_optimizer.learning_rate) == 0.25

    def test_saved_model_goes_on_as_if_it_had_not_stopped(self, tmp_path):
        def optimizer():
            # 8 batches in 5s: the model is saved in the middle of a step.
            return DistributedOptimizer(
                SGD(0.1, momentum=0.9), SingleProcess(), backward_passes_per_step=5
            )

        unbroken = self.fit(optimizer(), epochs=4)
        model = self.fit(optimizer(), epochs=2)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert isinstance(loaded.optimizer, DistributedOptimizer)
        assert isinstance(loaded.optimizer.inner_optimizer, SGD)
        assert_same(values(loaded.optimizer.variables), values(model.optimizer.variables))
        self.fit(loaded.optimizer, epochs=2, model=loaded)
        assert_same(loaded.get_weights(), unbroken.get_weights(), atol=1e-6)


class TestState:
    @pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
    def test_config_round_trip(self, inner):
        optimizer = DistributedOptimizer(
            inner(),
            SingleProcess(),
            op="sum",
            compression="fp16",
            backward_passes_per_step=4,
            name="mine",
        )
        for copy in (
            DistributedOptimizer.from_config(optimizer.get_config()),
            keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer)),
        ):
            assert copy.get_config() == optimizer.get_config()
            assert (copy.op, copy.compression, copy.backward_passes_per_step) == ("sum", "fp16", 4)
            assert copy.name == "mine"
            assert type(copy.inner_optimizer) is type(optimizer.inner_optimizer)
            assert isinstance(copy.communicator, SingleProcess)

    def test_config_is_left_as_it_was(self):
        config = DistributedOptimizer(SGD(), SingleProcess()).get_config()
        before = {**config}
        DistributedOptimizer.from_config(config)
        assert config == before

    @pytest.mark.parametrize("passes", [1, 3])
    def test_variables_are_all_of_the_state(self, passes):
        def make():
            variables = make_variables((2,), (1,))
            optimizer = DistributedOptimizer(
                keras.optimizers.Adam(0.1), SingleProcess(), backward_passes_per_step=passes
            )
            optimizer.build(variables)
            return variables, optimizer

        rng = np.random.default_rng(0)
        grads = [constants(rng.normal(size=2), rng.normal(size=1)) for _ in range(8)]
        variables, optimizer = make()
        # Stopped in the middle of a step where there are several passes.
        for pair in grads[:4]:
            optimizer.apply(pair, variables)
        others, other = make()
        for target, source in zip(
            [*others, *other.variables], [*variables, *optimizer.variables], strict=True
        ):
            target.assign(np.array(source))
        for pair in grads[4:]:
            optimizer.apply(pair, variables)
            other.apply(pair, others)
        assert_same(values(others), values(variables))

    def test_no_variable_twice(self):
        optimizer = DistributedOptimizer(
            keras.optimizers.Adam(), SingleProcess(), backward_passes_per_step=2
        )
        optimizer.build(make_variables((2,)))
        assert len({id(variable) for variable in optimizer.variables}) == len(optimizer.variables)

    def test_variables_left_out_are_those_it_was_built_with(self):
        variables = make_variables((2,))
        optimizer = DistributedOptimizer(SGD(1.0), SingleProcess())
        optimizer.build(variables)
        optimizer.apply(constants([1, 2]))
        assert values(variables)[0].tolist() == [-1, -1]
