"""The compiled operations (``native/``), where they are there and serve."""

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


class Native(NamedTuple):
    """The compiled operations, or why they are not there."""

    operations: ModuleType | None
    description: str


@functools.cache
def native() -> Native:
    """Load the compiled operations, once.

    Raises
    ------
    InputError
        TAL1_HVD_SIMD is none of the instruction sets.
    """
    wanted = os.environ.get("TAL1_HVD_SIMD", "")
    if wanted not in ("", "avx512", "avx2", "baseline", "tensorflow"):
        raise InputError(f"TAL1_HVD_SIMD: expected avx2, baseline or tensorflow, got {wanted!r}")
    if wanted == "tensorflow":
        return Native(None, "TAL1_HVD_SIMD says so")
    path = _FOLDER / f"dna_conv_pool{EXTENSION_SUFFIXES[0]}"
    if not path.exists():
        return Native(None, "the compiled operation is not there; launch/setup compiles it")
    try:
        # In this order: TensorFlow lists what a library registers while it is loaded.
        operations = tf.load_op_library(str(path))
        library = ctypes.CDLL(str(path))
    except (AttributeError, OSError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        return Native(None, f"{path.name} cannot be loaded ({reason}); run launch/setup")
    library.tal1_hvd_tensorflow_version.restype = ctypes.c_char_p
    library.tal1_hvd_simd.restype = ctypes.c_char_p
    built_for = library.tal1_hvd_tensorflow_version().decode()
    if built_for != tf.__version__:
        return Native(None, f"it was compiled for TensorFlow {built_for}; run launch/setup")
    return Native(operations, library.tal1_hvd_simd().decode())


def why_not_compiled() -> str | None:
    """Return why TensorFlow's own operations serve here, or None where the compiled ones do."""
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return "it runs on CPUs only"
    found = native()
    return found.description if found.operations is None else None


def instruction_set() -> str:
    """Return what computes the first layer here: AVX-512, AVX2, baseline, or TensorFlow."""
    return native().description if why_not_compiled() is None else "TensorFlow"


def clock() -> tf.Tensor:
    """Return the time in seconds since some moment, shape (), float64; where `native` is there.

    In a graph, it is the time at which the operation runs.
    """
    return native().operations.tal1_hvd_clock()
