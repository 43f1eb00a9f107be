"""The first layers of a DNA network as one Keras layer, and models that use it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tal1_hvd.models.dna_conv_pool import dna_conv_pool


@keras.saving.register_keras_serializable(package="tal1_hvd")
class DnaConvPool(keras.layers.Layer):
    """Convolution over one-hot DNA and max-pooling, computed from uint8 codes as one operation.

    Parameters
    ----------
    convolution : keras.layers.Conv2D
        Kernel (1, width), stride 1, ReLU; its variables are this layer's.
    pooling : keras.layers.MaxPooling2D
        Windows (1, pool), as far apart as they are wide, valid padding.

    Raises
    ------
    ValueError
        The two are of another kind.

    Notes
    -----
    Input uint8 codes, shape (batch, length), A C G T N = 0 1 2 3 4; output shape
    (batch, 1, windows, filters), as of `pooling` after `convolution` after one-hot encoding.

    Examples
    --------
    >>> import keras
    >>> layer = DnaConvPool(
    ...     keras.layers.Conv2D(8, (1, 10), activation="relu"), keras.layers.MaxPooling2D((1, 35))
    ... )
    >>> layer(keras.ops.zeros((2, 1500), dtype="uint8")).shape
    TensorShape([2, 1, 42, 8])
    """

    def __init__(
        self,
        convolution: keras.layers.Conv2D,
        pooling: keras.layers.MaxPooling2D,
        **options: Any,
    ):
        if not _is_convolution(convolution):
            raise ValueError(
                "convolution must be a Conv2D of kernel (1, width), stride 1, one group, with bias "
                "and ReLU"
            )
        if not _is_pooling(pooling):
            raise ValueError("pooling must be a MaxPooling2D of (1, pool), its strides the same")
        # Computed in the variables' precision: the operation knows no half precision.
        super().__init__(dtype=convolution.dtype_policy, autocast=False, **options)
        # It has no XLA kernel.
        self.supports_jit = False
        self.convolution = convolution
        self.pooling = pooling

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the convolution's variables if nobody has."""
        if not self.convolution.built:
            self.convolution.build((None, 1, input_shape[1], 4))
        self.built = True

    def call(self, codes: tf.Tensor) -> tf.Tensor:
        """Compute the layer's output."""
        # Not by slices: the gradient of a slice copies everything into a tensor of zeros.
        pooled = dna_conv_pool(
            codes,
            tf.squeeze(self.convolution.kernel.value, 0),
            self.convolution.bias.value,
            self.pooling.pool_size[1],
            self.convolution.padding,
        )
        return tf.cast(tf.expand_dims(pooled, 1), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return (batch, 1, windows, filters)."""
        positions = input_shape[1]
        if positions is None:
            return (input_shape[0], 1, None, self.convolution.filters)
        if self.convolution.padding == "valid":
            positions -= self.convolution.kernel_size[1] - 1
        windows = positions // self.pooling.pool_size[1]
        return (input_shape[0], 1, windows, self.convolution.filters)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {
            "name": self.name,
            "convolution": keras.saving.serialize_keras_object(self.convolution),
            "pooling": keras.saving.serialize_keras_object(self.pooling),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DnaConvPool:
        """Build from `get_config`'s dictionary."""
        layers = {
            key: keras.saving.deserialize_keras_object(config[key])
            for key in ("convolution", "pooling")
        }
        return cls(**{**config, **layers})


def fuse_first_layer(model: keras.Model) -> keras.Model:
    """Return a model that computes the same, its first layers as one operation.

    Parameters
    ----------
    model : keras.Model
        Input uint8 codes, shape (batch, length).

    Returns
    -------
    keras.Model
        It shares `model`'s variables. `model` itself, if it does not begin with one-hot encoding, a
        Conv2D and a MaxPooling2D that `DnaConvPool` can stand for.
    """
    operations = [o for o in model.operations if not isinstance(o, keras.layers.InputLayer)]
    kinds = [type(operation).__name__ for operation in operations[:5]]
    if kinds != ["Cast", "OneHot", "Reshape", "Conv2D", "MaxPooling2D"]:
        return model
    convolution, pooling = operations[3:5]
    chain = [model.inputs[0], *(operation.output for operation in operations[:4])]
    in_line = all(
        operation.input is tensor for operation, tensor in zip(operations[:5], chain, strict=True)
    )
    alone = all(len(operation._outbound_nodes) == 1 for operation in operations[:4])
    four = operations[1].num_classes == 4
    if not (in_line and alone and four and _is_convolution(convolution) and _is_pooling(pooling)):
        return model
    rest = keras.Model(pooling.output, model.outputs[0])
    first = DnaConvPool(convolution, pooling, name="first_layer")
    return keras.Model(model.inputs[0], rest(first(model.inputs[0])), name=model.name)


def _is_convolution(layer: Any) -> bool:
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.kernel_size[0] == 1
        and layer.strides == (1, 1)
        and layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.use_bias
        and layer.padding in ("valid", "same")
        and layer.activation is keras.activations.relu
    )


def _is_pooling(layer: Any) -> bool:
    return (
        isinstance(layer, keras.layers.MaxPooling2D)
        and layer.pool_size[0] == 1
        and tuple(layer.strides) == tuple(layer.pool_size)
        and layer.padding == "valid"
    )
