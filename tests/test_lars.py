"""LARS against the paper, step by step."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tal1_hvd.training.lars import Lars
from tests.toys import assert_same, constants, values


def by_hand(weights, gradients, rate, momentum):
    """You et al. 2017, Algorithm 1 without weight decay; the trust coefficient is in the rate."""
    speed = np.zeros_like(weights)
    for gradient in gradients:
        if weights.ndim > 1 and np.any(weights) and np.any(gradient):
            gradient = gradient * np.linalg.norm(weights) / np.linalg.norm(gradient)
        speed = momentum * speed + rate * gradient
        weights = weights - speed
    return weights


@pytest.mark.parametrize("shape", [(3, 4), (1, 2, 3), (5,), ()], ids=str)
def test_equals_the_paper(shape):
    rng = np.random.default_rng(0)
    start, *gradients = rng.normal(size=(6, *shape))
    variable = keras.Variable(start, dtype="float64")
    optimizer = Lars(1 / 64, momentum=0.75)
    for gradient in gradients:
        optimizer.apply(constants(gradient), [variable])
    np.testing.assert_allclose(
        variable.numpy(), by_hand(start, gradients, 1 / 64, 0.75), rtol=1e-12
    )


def test_rate_is_the_relative_change():
    """Whatever the size of the gradient."""
    for size in (1e-8, 1.0, 1e8):
        variable = keras.Variable(np.full((2, 2), 3.0), dtype="float64")
        Lars(0.25).apply(constants(size * np.ones((2, 2))), [variable])
        np.testing.assert_allclose(variable.numpy(), 3 * 0.75)


@pytest.mark.parametrize(("weights", "gradient"), [(0.0, 2.0), (2.0, 0.0), (0.0, 0.0)])
def test_nothing_to_scale(weights, gradient):
    variable = keras.Variable(np.full((1, 1), weights), dtype="float64")
    Lars(0.5).apply(constants([[gradient]]), [variable])
    assert variable.numpy().tolist() == [[weights - 0.5 * gradient]]


def test_round_trip():
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(Lars(0.5, momentum=0.25))
    )
    assert isinstance(copy, Lars)
    assert copy.momentum == 0.25
    variables = [keras.Variable(np.ones((2, 3)), dtype="float64") for _ in range(2)]
    for optimizer, variable in zip((copy, Lars(0.5, momentum=0.25)), variables, strict=True):
        for _ in range(3):
            optimizer.apply(constants(np.ones((2, 3))), [variable])
    assert_same(*([values([variable])] for variable in variables))
