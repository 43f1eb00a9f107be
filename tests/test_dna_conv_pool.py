"""The compiled first layer against TensorFlow's own operations, and by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tal1_hvd.data.encoding import encode
from tal1_hvd.models.compiled import instruction_set, why_not_compiled
from tal1_hvd.models.dna_conv_pool import (
    dna_conv_pool,
    with_tensorflow,
)

compiled = pytest.mark.skipif(why_not_compiled() is not None, reason=str(why_not_compiled()))
properties = settings(derandomize=True, deadline=None, max_examples=80)


def layer(operation, codes, kernel, bias, pool, padding, upstream=None):
    """Return output and gradients for an upstream gradient (default: ones)."""
    kernel, bias = tf.constant(kernel), tf.constant(bias)
    with tf.GradientTape() as tape:
        tape.watch([kernel, bias])
        pooled = operation(tf.constant(codes), kernel, bias, pool, padding)
        weights = tf.ones_like(pooled) if upstream is None else upstream(pooled.shape)
        total = tf.reduce_sum(pooled * tf.cast(weights, pooled.dtype))
    return [tensor.numpy() for tensor in (pooled, *tape.gradient(total, [kernel, bias]))]


@st.composite
def problems(draw):
    """Return random inputs; every size from 1 on, N's in some sequences."""
    width, filters = draw(st.integers(1, 34)), draw(st.integers(1, 40))
    padding = draw(st.sampled_from(["valid", "same"]))
    pool = draw(st.integers(1, 40))
    # TensorFlow cannot pool less than one window.
    shortest = pool + (width - 1 if padding == "valid" else 0)
    length = draw(st.integers(shortest, shortest + 90))
    batch, letters = draw(st.integers(1, 20)), draw(st.sampled_from([4, 5]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    codes = rng.integers(0, letters, (batch, length), dtype=np.uint8)
    kernel = rng.normal(size=(width, 4, filters)).astype(dtype)
    return codes, kernel, rng.normal(size=filters).astype(dtype), pool, padding


@compiled
@properties
@given(problems())
def test_equals_tensorflow(problem):
    rng_seed = problem[0].size
    upstream = lambda shape: np.random.default_rng(rng_seed).normal(size=shape)  # noqa: E731
    ours = layer(dna_conv_pool, *problem, upstream)
    theirs = layer(with_tensorflow, *problem, upstream)
    for own, other in zip(ours, theirs, strict=True):
        assert own.shape == other.shape
        scale = max(1.0, float(np.abs(other).max(initial=0)))
        tolerance = 1e-5 if own.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(own, other, rtol=0, atol=tolerance * scale)


BOTH = pytest.mark.parametrize(
    "operation", [pytest.param(dna_conv_pool, marks=compiled), with_tensorflow]
)


@BOTH
def test_by_hand(operation):
    """Filter: A then C scores 1 + 2; windows of 2 positions."""
    kernel = np.zeros((2, 4, 1), np.float32)
    kernel[0, 0, 0], kernel[1, 1, 0] = 1, 2
    # Positions of ACGTAC: 3, 0, 0, 0, 3; with a bias of -1: 2, -1, -1, -1, 2; windows (2, -1),
    # (-1, -1), and the last position is left out.
    codes = encode("ACGTAC")[None]
    pooled, kernel_gradient, bias_gradient = layer(
        operation, codes, kernel, np.float32([-1]), 2, "valid"
    )
    assert pooled.ravel().tolist() == [2, 0]
    # One window passes: at AC.
    assert kernel_gradient[:, :, 0].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert bias_gradient.tolist() == [1]


@BOTH
def test_ties_go_to_the_first_position(operation):
    """A filter to which all letters are the same: GATC's G, the first, is what counts."""
    kernel = np.zeros((1, 4, 1), np.float64)
    kernel[0, :, 0] = [1, 1, 1, 1]
    codes = encode("GATC")[None]
    _, gradient, _ = layer(operation, codes, kernel, np.zeros(1), 4, "valid")
    assert gradient[0, :, 0].tolist() == [0, 0, 1, 0]


@compiled
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pool", [2, 3, 5, 8, 13, 35, 64])
@pytest.mark.parametrize("filters", [1, 3, 15, 16, 17, 40])
def test_many_ties(dtype, pool, filters):
    """Weights of few whole numbers: sums are exact, and most windows have several winners."""
    rng = np.random.default_rng(pool * filters)
    kernel = rng.integers(-1, 2, (3, 4, filters)).astype(dtype)
    bias = rng.integers(-1, 2, filters).astype(dtype)
    codes = rng.integers(0, 5, (4, 3 * pool + 5), dtype=np.uint8)

    def upstream(shape):
        return np.arange(np.prod(shape)).reshape(shape)

    ours, theirs = (
        layer(operation, codes, kernel, bias, pool, "valid", upstream)
        for operation in (dna_conv_pool, with_tensorflow)
    )
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(own, other)


@BOTH
def test_unknown_bases_weigh_nothing(operation):
    kernel = np.ones((3, 4, 2), np.float32)
    codes = np.uint8([[4, 4, 4, 0, 1], [7, 255, 4, 4, 4]])
    pooled, kernel_gradient, _ = layer(operation, codes, kernel, np.zeros(2, np.float32), 3, "same")
    assert pooled[:, 0].tolist() == [[1, 1], [0, 0]]
    assert kernel_gradient[:, :, 0].tolist() == [[0] * 4, [0] * 4, [1, 0, 0, 0]]


@compiled
@pytest.mark.parametrize("shape", [(0, 30), (3, 30), (3, 5)])
def test_nothing_to_pool(shape):
    """No sequences, or windows wider than the sequences."""
    kernel, bias = np.ones((4, 4, 3), np.float32), np.ones(3, np.float32)
    pooled, kernel_gradient, bias_gradient = layer(
        dna_conv_pool, np.zeros(shape, np.uint8), kernel, bias, 28, "valid"
    )
    assert pooled.shape == (shape[0], 0, 3)
    assert not kernel_gradient.any()
    assert not bias_gradient.any()


@compiled
def test_batch_does_not_matter():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 5, (70, 200), dtype=np.uint8)
    kernel = tf.constant(rng.normal(size=(10, 4, 15)), tf.float32)
    bias = tf.zeros(15)
    together = dna_conv_pool(tf.constant(codes), kernel, bias, 35).numpy()
    for row in (0, 33, 69):
        alone = dna_conv_pool(tf.constant(codes[row : row + 1]), kernel, bias, 35).numpy()
        assert alone.tobytes() == together[row].tobytes()


@compiled
@pytest.mark.parametrize(
    ("codes", "kernel", "bias", "message"),
    [
        ((3,), (4, 4, 2), (2,), "expected shape|rank 2"),
        ((3, 9), (4, 5, 2), (2,), r"expected shape \(width, 4, filters\)"),
        ((3, 9), (4, 4, 2), (3,), r"bias: expected shape \(2\)"),
        ((3, 900), (257, 4, 2), (2,), "Conv2D|conv"),
    ],
)
def test_wrong_shapes_are_named(codes, kernel, bias, message):
    if kernel[0] > 256:
        # Too wide for the compiled one: TensorFlow's serve.
        wide = dna_conv_pool(np.zeros(codes, np.uint8), tf.zeros(kernel), tf.zeros(bias), 2)
        assert wide.shape == (3, 322, 2)
        return
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=message):
        dna_conv_pool(tf.zeros(codes, tf.uint8), tf.zeros(kernel), tf.zeros(bias), 2)


SIMD_PROGRAM = """
import json, sys
import numpy as np, tensorflow as tf
threads = int(sys.argv[1])
tf.config.threading.set_intra_op_parallelism_threads(threads)
from tal1_hvd.models.compiled import instruction_set
from tal1_hvd.models.dna_conv_pool import dna_conv_pool
rng = np.random.default_rng(0)
codes = rng.integers(0, 5, (100, 300), dtype=np.uint8)
codes[:50] %= 4
kernel, bias = (tf.constant(rng.normal(size=s).astype("float32")) for s in ((10, 4, 33), (33,)))
with tf.GradientTape() as tape:
    tape.watch([kernel, bias])
    pooled = dna_conv_pool(codes, kernel, bias, 35)
    total = tf.reduce_sum(pooled ** 2)
arrays = [pooled, *tape.gradient(total, [kernel, bias])]
print(json.dumps([instruction_set(), *(a.numpy().tobytes().hex() for a in arrays)]))
"""


@compiled
def test_bits_do_not_depend_on_instruction_set_or_threads():
    if os.environ.get("TAL1_HVD_SIMD"):
        pytest.skip("TAL1_HVD_SIMD is set")

    def results(simd, threads):
        ended = subprocess.run(
            [sys.executable, "-c", SIMD_PROGRAM, str(threads)],
            env={**os.environ, "TAL1_HVD_SIMD": simd},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return json.loads(ended.stdout)

    best, *expected = results("", 1)
    assert best == instruction_set()
    assert results("", 3) == [best, *expected]
    assert results("baseline", 2) == ["baseline", *expected]
    if best != "baseline":
        assert results("avx2", 1) == ["AVX2", *expected]


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("simd", ["baseline", "avx2"])
def test_other_instruction_sets_equal_tensorflow(simd):
    """All shapes and types again, by the kernels that this processor does not choose."""
    test = f"{__file__}::test_equals_tensorflow"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        env={**os.environ, "TAL1_HVD_SIMD": simd},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout


@BOTH
def test_all_nan_is_not_hidden(operation):
    kernel = np.full((3, 4, 2), np.nan, np.float32)
    codes = np.zeros((1, 12), np.uint8)
    pooled = operation(tf.constant(codes), tf.constant(kernel), tf.zeros(2), 5, "valid").numpy()
    assert not np.isfinite(pooled).any() or (np.abs(pooled) > 1e38).all()


def test_unknown_instruction_set_is_refused():
    code = "from tal1_hvd.models.compiled import instruction_set; instruction_set()"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TAL1_HVD_SIMD": "avx99"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "TAL1_HVD_SIMD: expected avx2, baseline or tensorflow, got 'avx99'" in ended.stderr


@compiled
def test_trains_within_a_graph():
    """A filter finds the word that half of the sequences carry."""
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 4, (64, 60), dtype=np.uint8)
    labels = np.repeat([0.0, 1.0], 32).astype("float32")
    codes[32:, 20:28] = encode("CAGATGCC")
    kernel = tf.Variable(rng.normal(size=(8, 4, 4)).astype("float32") * 0.1)
    bias, weights = tf.Variable(tf.zeros(4)), tf.Variable(tf.ones((4, 1)))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            pooled = dna_conv_pool(codes, kernel, bias, 53)[:, 0]
            logits = (pooled @ weights)[:, 0] - 2
            loss = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        variables = [kernel, bias, weights]
        gradients = tape.gradient(loss, variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(0.01 * gradient)
        return tf.reduce_mean(loss)

    first = float(step())
    for _ in range(100):
        last = float(step())
    assert last < 0.2 * first
