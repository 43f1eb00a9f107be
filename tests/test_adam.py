"""The fused Adam against Keras's."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tal1_hvd.training.adam import FusedAdam
from tal1_hvd.training.schedule import ScaledWarmup

RATES = {"constant": 0.01, "schedule": ScaledWarmup(0.01, 256, 1000)}


def run(kind, dtype, rate):
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=s), dtype=dtype) for s in ((3, 4), (4,))]
    optimizer = kind(RATES[rate], beta_1=0.8, epsilon=1e-5)
    optimizer.build(variables)
    for _ in range(20):
        gradients = [rng.normal(size=v.shape).astype(dtype) for v in variables]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
    return [v.numpy() for v in (*variables, *optimizer.variables)]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_keras(dtype, rate):
    ours, theirs = run(FusedAdam, dtype, rate), run(keras.optimizers.Adam, dtype, rate)
    assert len(ours) == len(theirs)
    for own, other in zip(ours, theirs, strict=True):
        # Keras rounds the betas to float32 in float64 too.
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)


def test_equals_the_paper_in_float64():
    """Algorithm 1 of Kingma and Ba, their epsilon at the place that Keras gives it."""
    rng = np.random.default_rng(3)
    rate, beta_1, beta_2, epsilon = 1 / 64, 0.8, 0.99, 1e-5
    value = rng.normal(size=5)
    variable = keras.Variable(value, dtype="float64")
    optimizer = FusedAdam(rate, beta_1, beta_2, epsilon)
    optimizer.build([variable])
    m, v = np.zeros(5), np.zeros(5)
    for t in range(1, 31):
        gradient = rng.normal(size=5)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        size = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        value = value - size * m / (np.sqrt(v) + epsilon)
    np.testing.assert_allclose(variable.numpy(), value, rtol=1e-12)


def test_within_fit():
    def fit(kind):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
        model.compile(kind(0.05), loss="mse")
        x = np.random.default_rng(1).normal(size=(32, 3))
        model.fit(x, x[:, :2], epochs=3, batch_size=8, shuffle=False, verbose=0)
        return model.get_weights()

    for own, other in zip(fit(FusedAdam), fit(keras.optimizers.Adam), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)


def test_gradients_accumulated_by_keras():
    """Two calls make a step, of the gradients' mean."""

    def run(**options):
        variable = keras.Variable([1.0, 2.0])
        optimizer = FusedAdam(0.1, **options)
        optimizer.build([variable])
        calls = [[1.0, 2.0], [3.0, 0.0]] if options else [[2.0, 1.0]]
        for gradient in calls:
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        return variable.numpy()

    np.testing.assert_allclose(run(gradient_accumulation_steps=2), run(), rtol=1e-6)


def test_saved_and_loaded():
    optimizer = FusedAdam(0.02, beta_2=0.99)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert isinstance(again, FusedAdam)
    assert again.get_config() == optimizer.get_config()


def test_amsgrad_is_refused():
    variable = keras.Variable([1.0])
    optimizer = FusedAdam(amsgrad=True)
    optimizer.build([variable])
    with pytest.raises(ValueError, match="amsgrad"):
        optimizer.apply([keras.ops.ones(1)], [variable])
