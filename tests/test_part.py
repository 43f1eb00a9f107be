"""Parts of a network on several ranks, which here are called one after the other."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tal1_hvd.models.first_layer import DnaConvPool, fuse_first_layer
from tal1_hvd.models.paper import paper
from tal1_hvd.models.part import join, make_part, split

CODES = np.random.default_rng(0).integers(0, 5, (6, 150), dtype=np.uint8)


def whole():
    model = paper(150, seed=3, dtype="float64")
    # Biases are zeros to begin with.
    for number, variable in enumerate(model.trainable_variables):
        noise = np.random.default_rng(number).normal(size=variable.shape)
        variable.assign(np.array(variable) + 0.1 * noise)
    return model


def ranks(size, others=lambda rank: 0.0):
    """Return communicators whose sum over ranks adds what the others' parts make."""
    return [
        SimpleNamespace(
            rank=rank, size=size, all_reduce_sum=lambda part, rank=rank: part + others(rank)
        )
        for rank in range(size)
    ]


def logit(probability):
    return np.log(probability) - np.log1p(-probability)


@pytest.mark.parametrize("size", [1, 2, 4, 15])
def test_parts_make_the_whole(size):
    model = whole()
    bias = np.array(model.get_layer("probability").bias)
    parts = [make_part(model, communicator) for communicator in ranks(size)]
    held = [part.get_layer("convolution").filters for part in parts]
    assert sum(held) == 15
    assert max(held) - min(held) <= 1
    # Each adds the bias, of which the whole has one.
    logits = sum(logit(part(CODES).numpy()) for part in parts) - (size - 1) * bias
    np.testing.assert_allclose(logits, logit(model(CODES).numpy()), rtol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_gradients_are_those_of_the_whole(size):
    model = whole()
    bias = np.array(model.get_layer("probability").bias)
    alone = [logit(make_part(model, rank)(CODES).numpy()) - bias for rank in ranks(size)]
    total = np.sum(alone, axis=0)
    expected = slopes(model)
    for communicator in ranks(size, lambda rank: total - alone[rank]):
        found = slopes(make_part(model, communicator))
        for ours, theirs in zip(found, share_of(expected, model, communicator), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def slopes(model):
    target = np.arange(len(CODES))[:, None] % 2
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(keras.losses.binary_crossentropy(target, model(CODES)))
    variables = [variable.value for variable in model.trainable_variables]
    return [gradient.numpy() for gradient in tape.gradient(loss, variables)]


def share_of(arrays, model, communicator):
    """Return a rank's part of arrays that are shaped as the model's weights."""
    other = keras.models.clone_model(model)
    for variable, array in zip(other.trainable_variables, arrays, strict=True):
        variable.assign(array)
    return split(other, communicator)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_joined_parts_are_the_whole(size):
    model = whole()
    parts = [split(model, communicator) for communicator in ranks(size)]
    gathered = iter(zip(*(filters_first(part) for part in parts), strict=True))
    communicator = SimpleNamespace(all_gather=lambda own: np.concatenate(next(gathered)))
    for ours, theirs in zip(join(parts[0], communicator), model.trainable_variables, strict=True):
        assert np.array_equal(ours, np.array(theirs))


def filters_first(part):
    """Return what a rank gives to the others: kernel, bias and last layer, filter by filter."""
    kernel, bias, last, _ = part
    by_filter = [last[number :: len(bias)] for number in range(len(bias))]
    return np.moveaxis(kernel, -1, 0), bias, np.array(by_filter)


def test_first_layer_is_fused():
    part = make_part(paper(150), ranks(2)[1])
    fused = fuse_first_layer(part)
    assert isinstance(fused.get_layer("first_layer"), DnaConvPool)
    np.testing.assert_allclose(fused(CODES), part(CODES), rtol=1e-5)
