"""Convolution over DNA codes, bias, ReLU and max-pooling as one differentiable operation.

It is compiled C++ on CPUs (``native/``), and made of TensorFlow's own operations elsewhere or where
it was not compiled; both compute the same (the latter refuse sequences too short for a window).
"""

from __future__ import annotations

import ctypes
import functools
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import tensorflow as tf

from tal1_hvd.errors import InputError

_FOLDER = Path(__file__).parent / "native"
_LETTERS = 4
_WIDEST = 256


class _Native(NamedTuple):
    """The compiled operations, or why they are not there."""

    operations: ModuleType | None
    description: str


@functools.cache
def _native() -> _Native:
    wanted = os.environ.get("TAL1_HVD_SIMD", "")
    if wanted not in ("", "avx512", "avx2", "baseline", "tensorflow"):
        raise InputError(f"TAL1_HVD_SIMD: expected avx2, baseline or tensorflow, got {wanted!r}")
    if wanted == "tensorflow":
        return _Native(None, "TAL1_HVD_SIMD says so")
    path = _FOLDER / f"dna_conv_pool{EXTENSION_SUFFIXES[0]}"
    if not path.exists():
        return _Native(None, "the compiled operation is not there; launch/setup compiles it")
    try:
        # In this order: TensorFlow lists what a library registers while it is loaded.
        operations = tf.load_op_library(str(path))
        library = ctypes.CDLL(str(path))
    except (AttributeError, OSError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        return _Native(None, f"{path.name} cannot be loaded ({reason}); run launch/setup")
    library.tal1_hvd_tensorflow_version.restype = ctypes.c_char_p
    library.tal1_hvd_simd.restype = ctypes.c_char_p
    built_for = library.tal1_hvd_tensorflow_version().decode()
    if built_for != tf.__version__:
        return _Native(None, f"it was compiled for TensorFlow {built_for}; run launch/setup")
    tf.RegisterGradient("Tal1HvdDnaConvPool")(_gradient)
    return _Native(operations, library.tal1_hvd_simd().decode())


def _gradient(
    operation: tf.Operation, gradient: tf.Tensor, _: tf.Tensor | None
) -> tuple[None, tf.Tensor, tf.Tensor]:
    codes, kernel, _ = operation.inputs
    kernel_gradient, bias_gradient = _native().operations.tal1_hvd_dna_conv_pool_grad(
        codes,
        operation.outputs[1],
        gradient,
        pool=operation.get_attr("pool"),
        width=kernel.shape[0],
        padding=operation.get_attr("padding"),
    )
    return None, kernel_gradient, bias_gradient


def why_not_compiled() -> str | None:
    """Return why `dna_conv_pool` uses TensorFlow's operations here, or None where it does not."""
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return "it runs on CPUs only"
    native = _native()
    return native.description if native.operations is None else None


def instruction_set() -> str:
    """Return what computes the first layer here: AVX-512, AVX2, baseline, or TensorFlow."""
    return _native().description if why_not_compiled() is None else "TensorFlow"


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
    return _native().operations.tal1_hvd_dna_conv_pool(
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
