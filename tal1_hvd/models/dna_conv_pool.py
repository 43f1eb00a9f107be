"""Convolution over DNA codes, bias, ReLU and max-pooling as one differentiable operation.

It is compiled C++ on CPUs (``native/``), and made of TensorFlow's own operations elsewhere or where
it was not compiled; both compute the same (the latter refuse sequences too short for a window).
"""

from __future__ import annotations

import tensorflow as tf

from tal1_hvd.models.compiled import native, why_not_compiled

_LETTERS = 4
_WIDEST = 256


@tf.RegisterGradient("Tal1HvdDnaConvPool")
def _gradient(
    operation: tf.Operation, gradient: tf.Tensor, _: tf.Tensor | None
) -> tuple[None, tf.Tensor, tf.Tensor]:
    codes, kernel, _ = operation.inputs
    kernel_gradient, bias_gradient = native().operations.tal1_hvd_dna_conv_pool_grad(
        codes,
        operation.outputs[1],
        gradient,
        pool=operation.get_attr("pool"),
        width=kernel.shape[0],
        padding=operation.get_attr("padding"),
    )
    return None, kernel_gradient, bias_gradient


def dna_conv_pool(
    codes: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, pool: int, padding: str = "valid"
) -> tf.Tensor:
    """Convolve, add the bias, cut off below zero, and take the maximum of each window.

    Parameters
    ----------
    codes : tf.Tensor, shape=(batch, length), dtype=uint8
        A C G T = 0 1 2 3; anything above (N) has no weight.
    kernel : tf.Tensor, shape=(width, 4, filters), dtype=float32 or float64
        As of ``tf.nn.conv1d``; compiled for widths up to 256.
    bias : tf.Tensor, shape=(filters,)
    pool : int
        Width and stride of the windows, in positions; what does not fill a window is left out.
    padding : {"valid", "same"}
        Of the convolution.

    Returns
    -------
    tf.Tensor, shape=(batch, windows, filters)
        Differentiable, once, in `kernel` and `bias`. Where several positions of a window are
        equally good, the first one gets the gradient, as in TensorFlow. As there, too, a number may
        hide one that is NaN.
    """
    if why_not_compiled() or kernel.dtype not in (tf.float32, tf.float64):
        return with_tensorflow(codes, kernel, bias, pool, padding)
    if kernel.shape[0] is None or kernel.shape[0] > _WIDEST:
        return with_tensorflow(codes, kernel, bias, pool, padding)
    return native().operations.tal1_hvd_dna_conv_pool(
        codes, kernel, bias, pool=pool, padding=padding.upper()
    )[0]


def with_tensorflow(
    codes: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, pool: int, padding: str = "valid"
) -> tf.Tensor:
    """Compute what `dna_conv_pool` does with TensorFlow's operations, where there is a window."""
    one_hot = tf.one_hot(codes, _LETTERS, dtype=kernel.dtype)
    convolved = tf.nn.conv1d(one_hot, kernel, stride=1, padding=padding.upper())
    passed = tf.nn.relu(tf.nn.bias_add(convolved, bias))
    return tf.nn.max_pool1d(passed, pool, strides=pool, padding="VALID")
