"""The fused layer against the layers that it stands for."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tal1_hvd.models.first_layer import DnaConvPool, fuse_first_layer
from tal1_hvd.models.paper import paper

Conv2D, MaxPooling2D = keras.layers.Conv2D, keras.layers.MaxPooling2D


@pytest.fixture(scope="module")
def codes():
    return np.random.default_rng(0).integers(0, 5, (9, 120), dtype=np.uint8)


def plain(length, convolution, pooling):
    x = inputs = keras.Input((length,), dtype="uint8")
    x = keras.ops.one_hot(keras.ops.cast(x, "int32"), 4, dtype="float32")
    x = keras.layers.Reshape((1, length, 4))(x)
    return keras.Model(inputs, keras.layers.Flatten()(pooling(convolution(x))))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14), ("mixed_bfloat16", 1e-2)]
)
def test_published_network_computes_the_same(codes, dtype, tolerance):
    model = paper(120, seed=3, dtype=dtype)
    fused = fuse_first_layer(model)
    assert fused is not model
    assert fused.output.dtype == model.output.dtype
    np.testing.assert_allclose(fused(codes), model(codes), atol=tolerance)


def test_variables_are_shared(codes):
    model = paper(120)
    fused = fuse_first_layer(model)
    assert [id(v) for v in fused.trainable_variables] == [id(v) for v in model.trainable_variables]
    model.set_weights([weights + 0.25 for weights in model.get_weights()])
    np.testing.assert_allclose(fused(codes), model(codes), atol=1e-6)


def test_loaded_model_is_fused_too(codes, tmp_path):
    model = paper(120, seed=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fused = fuse_first_layer(loaded)
    assert fused is not loaded
    np.testing.assert_array_equal(fused(codes), fuse_first_layer(model)(codes))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_layer_of_its_own(codes, padding):
    convolution = Conv2D(6, (1, 9), activation="relu", padding=padding)
    pooling = MaxPooling2D((1, 8))
    layer = DnaConvPool(convolution, pooling)
    inputs = keras.Input((120,), dtype="uint8")
    model = keras.Model(inputs, keras.layers.Flatten()(layer(inputs)))
    assert layer.output.shape == (None, *layer(codes).shape[1:])
    np.testing.assert_allclose(model(codes), plain(120, convolution, pooling)(codes), atol=1e-6)


def test_layer_is_saved_with_a_model(codes, tmp_path):
    inputs = keras.Input((120,), dtype="uint8")
    layer = DnaConvPool(Conv2D(3, (1, 5), activation="relu"), MaxPooling2D((1, 4)), name="first")
    model = keras.Model(inputs, keras.layers.Flatten()(layer(inputs)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.get_layer("first"), DnaConvPool)
    np.testing.assert_array_equal(loaded(codes), model(codes))


@pytest.mark.parametrize(
    ("convolution", "pooling"),
    [
        (Conv2D(3, (1, 5)), MaxPooling2D((1, 4))),
        (Conv2D(3, (1, 5), activation="relu", strides=(1, 2)), MaxPooling2D((1, 4))),
        (Conv2D(3, (1, 5), activation="relu", use_bias=False), MaxPooling2D((1, 4))),
        (Conv2D(3, (1, 5), activation="relu", dilation_rate=(1, 2)), MaxPooling2D((1, 4))),
        (Conv2D(3, (1, 5), activation="relu"), MaxPooling2D((1, 4), strides=(1, 2))),
        (Conv2D(3, (1, 5), activation="relu"), MaxPooling2D((1, 4), padding="same")),
        (Conv2D(3, (1, 5), activation="relu"), keras.layers.AveragePooling2D((1, 4))),
    ],
)
def test_other_layers_are_left_alone(convolution, pooling):
    model = plain(40, convolution, pooling)
    assert fuse_first_layer(model) is model
    with pytest.raises(ValueError, match="must be a"):
        DnaConvPool(convolution, pooling)


def test_layer_whose_output_is_used_twice_is_left_alone():
    x = inputs = keras.Input((40,), dtype="uint8")
    x = keras.ops.one_hot(keras.ops.cast(x, "int32"), 4, dtype="float32")
    x = keras.layers.Reshape((1, 40, 4))(x)
    convolved = Conv2D(3, (1, 5), activation="relu")(x)
    pooled = MaxPooling2D((1, 4))(convolved)
    both = [keras.layers.Flatten()(pooled), keras.layers.Flatten()(convolved)]
    model = keras.Model(inputs, keras.layers.Concatenate()(both))
    assert fuse_first_layer(model) is model


def test_five_letters_are_left_alone():
    x = inputs = keras.Input((40,), dtype="uint8")
    x = keras.ops.one_hot(keras.ops.cast(x, "int32"), 5, dtype="float32")
    x = keras.layers.Reshape((1, 40, 5))(x)
    x = MaxPooling2D((1, 4))(Conv2D(3, (1, 5), activation="relu")(x))
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    assert fuse_first_layer(model) is model


def test_layer_on_any_length():
    layer = DnaConvPool(Conv2D(3, (1, 5), activation="relu"), MaxPooling2D((1, 4)))
    assert layer.compute_output_shape((None, None)) == (None, 1, None, 3)


def test_layer_that_reads_something_else_is_left_alone():
    """The convolution's input is not the one-hot encoding alone."""
    x = inputs = keras.Input((40,), dtype="uint8")
    x = keras.ops.one_hot(keras.ops.cast(x, "int32"), 4, dtype="float32")
    x = keras.layers.Reshape((1, 40, 4))(x)
    scaled = keras.ops.multiply(x, 2.0)
    y = MaxPooling2D((1, 4))(Conv2D(3, (1, 5), activation="relu")(scaled))
    model = keras.Model(inputs, keras.layers.Flatten()(y))
    assert fuse_first_layer(model) is model
