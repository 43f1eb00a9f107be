"""The learning rate of each step, by hand."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tal1_hvd.training.schedule import ScaledWarmup


@pytest.mark.parametrize(
    ("global_batch", "warmup", "rates"),
    [
        # At the reference batch it is constant, warm-up or not.
        (64, 0, {0: 1, 1: 1, 1000: 1}),
        (64, 640, {0: 1, 5: 1, 10: 1, 1000: 1}),
        # Four times the batch: from once to four times the rate, linear in examples.
        (256, 0, {0: 4, 1: 4, 1000: 4}),
        (256, 1024, {0: 1, 1: 1.75, 2: 2.5, 3: 3.25, 4: 4, 5: 4, 1000: 4}),
        (256, 1000, {0: 1, 1: 1 + 3 * 0.256, 3: 1 + 3 * 0.768, 4: 4}),
        (128, 70_000, {0: 1, 273: 1 + 273 * 128 / 70_000, 547: 2, 10**6: 2}),
        # Warm-up shorter than a batch: from the second step on.
        (128, 1, {0: 1, 1: 2}),
        # A smaller batch: down instead of up.
        (32, 0, {0: 0.5}),
        (32, 64, {0: 1, 1: 0.75, 2: 0.5, 3: 0.5}),
    ],
)
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_rates(global_batch, warmup, rates, graph):
    schedule = ScaledWarmup(0.01, global_batch, warmup)
    rate = tf.function(schedule) if graph else schedule
    for step, expected in rates.items():
        found = rate(tf.constant(step, tf.int64))
        assert float(found) == pytest.approx(0.01 * expected, rel=1e-6)


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 4), ("sqrt", 2), ("none", 1)])
def test_scalings(scaling, factor):
    """From once to so many times the rate at four times the batch, halfway at half the warm-up."""
    rate = ScaledWarmup(0.01, 256, 1024, scaling)
    assert float(rate(0)) == pytest.approx(0.01)
    assert float(rate(2)) == pytest.approx(0.01 * (1 + factor) / 2)
    assert float(rate(4)) == float(rate(100)) == pytest.approx(0.01 * factor)
    assert float(ScaledWarmup(0.01, 256, 0, scaling)(0)) == pytest.approx(0.01 * factor)


def test_goes_on_as_warm_as_it_was():
    """After 4 steps of 64 examples, steps of 256: as many examples are seen, of 1,024."""
    rate = ScaledWarmup(0.01, 256, 1024, examples_before=4 * 64 - 4 * 256)
    for step, warm in ((4, 0.25), (5, 0.5), (7, 1.0), (100, 1.0)):
        assert float(rate(step)) == pytest.approx(0.01 * (1 + 3 * warm))


@pytest.mark.parametrize("warmup", [0, 1000])
def test_in_an_optimizer(warmup):
    optimizer = keras.optimizers.SGD(ScaledWarmup(0.5, 128, warmup))
    variable = keras.Variable([0.0])
    seen = []
    for _ in range(3):
        seen.append(float(optimizer.learning_rate))
        optimizer.apply([tf.constant([1.0])], [variable])
    expected = [0.5 * (1 + min(1, 128 * i / warmup)) if warmup else 1.0 for i in range(3)]
    assert seen == pytest.approx(expected, rel=1e-6)
    assert float(variable.value[0]) == pytest.approx(-sum(expected), rel=1e-6)


def test_round_trip():
    schedule = ScaledWarmup(0.01, 96, 500, "sqrt", 7)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert isinstance(copy, ScaledWarmup)
    assert copy.get_config() == schedule.get_config()
    assert copy.get_config() == {
        "base_rate": 0.01,
        "global_batch": 96,
        "warmup_examples": 500,
        "scaling": "sqrt",
        "examples_before": 7,
    }
