"""The published CNN: a convolution, a max-pooling, a sigmoid unit; 1,246 parameters at 1,500 bp."""

from __future__ import annotations

import keras
import numpy as np

from tal1_hvd.errors import InputError
from tal1_hvd.published import FILTER_WIDTH, FILTERS, POOL_WIDTH, SHORTEST_INPUT


def paper(length: int, seed: int = 0, dtype: str = "float32") -> keras.Model:
    """Build the published network.

    2-D convolution (15 filters, width 10, valid padding) and ReLU, max-pooling of width 35,
    flatten, one dense sigmoid unit.

    Parameters
    ----------
    length : int
        Of the sequences, in bp; at least 44.
    seed : int
        Of the initial weights (Glorot uniform).
    dtype : str
        Keras dtype policy, such as ``float32``, ``float64`` or ``mixed_bfloat16``.

    Returns
    -------
    keras.Model
        Input uint8 codes, shape (batch, length), A C G T N = 0 1 2 3 4; output the probability of
        a positive, shape (batch, 1). It holds only Keras's own layers, so plain Keras loads it.

    Raises
    ------
    InputError
        `length` leaves nothing to pool.
    """
    if length < SHORTEST_INPUT:
        raise InputError(
            f"model 'paper' needs sequences of at least {SHORTEST_INPUT} bp, these have {length} bp"
        )
    policy = keras.dtype_policies.get(dtype)
    convolution_seed, dense_seed = map(int, np.random.SeedSequence(seed).generate_state(2))
    codes = keras.Input((length,), dtype="uint8", name="codes")
    # N (code 4) lies outside the four classes and becomes a row of zeros.
    one_hot = keras.ops.one_hot(keras.ops.cast(codes, "int32"), 4, dtype=policy.compute_dtype)
    x = keras.layers.Reshape((1, length, 4), dtype=policy)(one_hot)
    x = keras.layers.Conv2D(
        FILTERS,
        (1, FILTER_WIDTH),
        activation="relu",
        kernel_initializer=keras.initializers.GlorotUniform(seed=convolution_seed),
        dtype=policy,
        name="convolution",
    )(x)
    x = keras.layers.MaxPooling2D((1, POOL_WIDTH), dtype=policy)(x)
    x = keras.layers.Flatten(dtype=policy)(x)
    # The output keeps the variables' precision: probabilities near 0 and 1 need it.
    probability = keras.layers.Dense(
        1,
        activation="sigmoid",
        kernel_initializer=keras.initializers.GlorotUniform(seed=dense_seed),
        dtype=policy.variable_dtype,
        name="probability",
    )(x)
    return keras.Model(codes, probability, name="paper")
