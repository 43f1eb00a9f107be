"""Toy variables, gradients and models for the optimizer's tests."""

import keras
import numpy as np
import tensorflow as tf


def make_variables(*shapes, dtype="float64"):
    return [
        keras.Variable(np.arange(np.prod(s, dtype=int), dtype=dtype).reshape(s), dtype=dtype)
        for s in shapes
    ]


def constants(*values, dtype="float64"):
    return [None if value is None else tf.constant(value, dtype) for value in values]


def values(variables):
    return [np.array(variable) for variable in variables]


def assert_same(found, expected, **tolerance):
    for ours, theirs in zip(found, expected, strict=True):
        if tolerance:
            np.testing.assert_allclose(ours, theirs, rtol=0, **tolerance)
        else:
            np.testing.assert_array_equal(ours, theirs)


def small_model(dtype="float32"):
    start = keras.initializers.GlorotUniform(1)
    layer = keras.layers.Dense(1, "tanh", kernel_initializer=start, dtype=dtype)
    return keras.Sequential([keras.layers.Input((3,)), layer])


def small_data(count=32, dtype="float32"):
    x = np.random.default_rng(0).normal(size=(count, 3)).astype(dtype)
    return x, (x @ [1, -2, 0.5]).astype(dtype)[:, None]
