"""The distributed optimizer: what it sends, what it applies, and that ranks share one batch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.distributed.optimizer import DistributedOptimizer
from tests.toys import assert_same, constants, make_variables, small_data, small_model, values

pytestmark = pytest.mark.usefixtures("not_launched")

SGD = keras.optimizers.SGD


class Alike(SingleProcess):
    """A rank among `size` that all have the same gradients; notes what it sends."""

    def __init__(self, size=1):
        self.size, self.sent = size, []

    def all_reduce_sum(self, tensor):
        self.sent.append((tensor.dtype.name, tuple(tensor.shape)))
        return tensor * self.size


class Ranks:
    """Ranks that are threads of this process; eager only, a graph's threads might wait in vain."""

    def __init__(self, size):
        self.size = size
        self._slots, self._barrier = [None] * size, threading.Barrier(size, timeout=60)

    def exchange(self, rank, value):
        self._slots[rank] = value
        self._barrier.wait()
        values = list(self._slots)
        self._barrier.wait()
        return values

    def run(self, work):
        """Return what `work(communicator)` returns on each rank."""
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(lambda rank: work(Thread(self, rank)), range(self.size)))


class Thread(SingleProcess):
    def __init__(self, ranks, rank):
        self.rank, self.size, self._ranks = rank, ranks.size, ranks

    def all_reduce_sum(self, tensor):
        return tf.add_n(self._ranks.exchange(self.rank, tensor))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"op": "mean"}, "op must be one of .*'average', 'sum'.*got 'mean'"),
        ({"compression": "bf16"}, "compression must be one of .*'none', 'fp16'.*got 'bf16'"),
        ({"backward_passes_per_step": 0}, "backward_passes_per_step must be at least 1, got 0"),
        ({"backward_passes_per_step": -2}, "at least 1, got -2"),
    ],
)
def test_refused_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        DistributedOptimizer(SGD(), SingleProcess(), **arguments)


def test_default_communicator_is_that_of_this_process():
    assert isinstance(DistributedOptimizer(SGD()).communicator, SingleProcess)


class TestReduction:
    @pytest.mark.parametrize(("op", "factor"), [("sum", 3), ("average", 1)])
    @pytest.mark.parametrize("compression", ["none", "fp16"])
    def test_op(self, op, factor, compression):
        variables = make_variables((2, 2), (3,))
        before = values(variables)
        optimizer = DistributedOptimizer(SGD(1.0), Alike(3), op=op, compression=compression)
        grads = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([5.0, 6.0, 7.0])
        optimizer.apply(constants(*grads), variables)
        expected = [b - factor * g for b, g in zip(before, grads, strict=True)]
        assert_same(values(variables), expected, atol=1e-12)

    @pytest.mark.parametrize(("compression", "dtype"), [("none", "float64"), ("fp16", "float16")])
    def test_one_flat_tensor_a_step(self, compression, dtype):
        variables = make_variables((2, 2), (3,), ())
        communicator = Alike(2)
        optimizer = DistributedOptimizer(SGD(), communicator, compression=compression)
        for _ in range(3):
            optimizer.apply(constants(np.ones((2, 2)), np.ones(3), 1.0), variables)
        assert communicator.sent == 3 * [(dtype, (8,))]

    def test_one_flat_tensor_a_dtype(self):
        single, double = make_variables((2,), dtype="float32"), make_variables((2, 3))
        variables = [single[0], double[0], *make_variables((), dtype="float32")]
        before = values(variables)
        communicator = Alike(2)
        grads = [tf.constant([1.0, 2.0]), tf.ones((2, 3), tf.float64), tf.constant(4.0)]
        DistributedOptimizer(SGD(0.5), communicator, op="sum").apply(grads, variables)
        assert communicator.sent == [("float32", (3,)), ("float64", (6,))]
        assert_same(values(variables), [before[0] - [1, 2], before[1] - 1, before[2] - 4])
        assert [variable.dtype for variable in variables] == ["float32", "float64", "float32"]

    def test_missing_gradients_are_not_sent(self):
        variables = make_variables((2,), (3,), (1,))
        before = values(variables)
        communicator = Alike(2)
        optimizer = DistributedOptimizer(SGD(1.0), communicator, op="sum")
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            optimizer.apply(constants([1, 1], None, [2]), variables)
        assert communicator.sent == [("float64", (3,))]
        assert_same(values(variables), [before[0] - 2, before[1], before[2] - 4])

    def test_sparse_gradients(self):
        """Rows of an embedding that are used twice count twice, those not used not at all."""
        table = make_variables((4, 2))
        before = values(table)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table[0].value, [1, 3, 1]))
        grads = tape.gradient(loss, [table[0].value])
        assert isinstance(grads[0], tf.IndexedSlices)
        DistributedOptimizer(SGD(1.0), Alike(2), op="sum").apply(grads, table)
        assert_same(values(table), [before[0] - [[0, 0], [4, 4], [0, 0], [2, 2]]])

    def test_reduced_before_the_inner_optimizer_clips(self):
        variables = make_variables((2,))
        before = values(variables)
        optimizer = DistributedOptimizer(SGD(1.0, clipnorm=1.0), Alike(4), op="sum")
        optimizer.apply(constants([0.3, 0.4]), variables)
        assert_same(values(variables), [before[0] - [0.6, 0.8]], atol=1e-12)

    @pytest.mark.parametrize(
        ("size", "expected"), [(1, 1 + 2**-12), (2, 1.0)], ids=["alone", "two ranks"]
    )
    def test_fp16_rounds_what_is_sent(self, size, expected):
        variables = make_variables((1,))
        communicator = Alike(size)
        optimizer = DistributedOptimizer(SGD(1.0), communicator, compression="fp16")
        optimizer.apply(constants([1 + 2**-12]), variables)
        assert values(variables)[0] == [-expected]
        assert communicator.sent[0][0] == ("float16" if size > 1 else "float64")

    @pytest.mark.parametrize("compression", ["none", "fp16"])
    def test_trains(self, compression):
        target = np.array([3.0, -1.0, 0.25])
        variables = make_variables((3,))
        optimizer = DistributedOptimizer(SGD(0.5), Alike(2), compression=compression)
        for _ in range(30):
            optimizer.apply([variables[0].value - target], variables)
        np.testing.assert_allclose(values(variables)[0], target, atol=1e-3)


class TestPasses:
    @pytest.mark.parametrize(("op", "factor"), [("sum", 2), ("average", 1 / 3)])
    @pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
    def test_every_third_pass_is_a_step(self, op, factor, graph):
        variables = make_variables((2,), (1,))
        communicator = Alike(2)
        optimizer = DistributedOptimizer(SGD(1.0), communicator, op=op, backward_passes_per_step=3)
        optimizer.build(variables)

        def apply(a, b):
            optimizer.apply([a, b], variables)

        apply = tf.function(apply) if graph else apply
        expected = values(variables)
        rng = np.random.default_rng(0)
        for step in range(3):
            passes = [[rng.normal(size=2), rng.normal(size=1)] for _ in range(3)]
            for grads in passes:
                assert_same(values(variables), expected, atol=1e-12)
                assert int(optimizer.iterations.value) == step
                apply(*constants(*grads))
            expected = [
                before - factor * sum(p[j] for p in passes) for j, before in enumerate(expected)
            ]
            assert_same(values(variables), expected, atol=1e-12)
        # A graph calls the communicator once, when it is traced.
        assert communicator.sent == (1 if graph else 3) * [("float64", (3,))]

    def test_missing_gradients(self):
        variables = make_variables((2,), (2,))
        before = values(variables)
        optimizer = DistributedOptimizer(SGD(1.0), Alike(1), op="sum", backward_passes_per_step=2)
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            for _ in range(2):
                optimizer.apply(constants([1, 2], None), variables)
        assert_same(values(variables), [before[0] - [2, 4], before[1]])

    def test_two_passes_of_half_a_batch_are_one_of_the_whole(self):
        x, y = small_data(dtype="float64")

        def train(parts):
            model = small_model("float64")
            optimizer = DistributedOptimizer(
                keras.optimizers.Adam(0.1), SingleProcess(), backward_passes_per_step=parts
            )
            for _ in range(5):
                for part in range(parts):
                    with tf.GradientTape() as tape:
                        loss = tf.reduce_mean((model(x[part::parts]) - y[part::parts]) ** 2)
                    grads = tape.gradient(loss, model.trainable_variables)
                    optimizer.apply(grads, model.trainable_variables)
            return model.get_weights()

        assert_same(train(2), train(1), atol=1e-12)


class TestRanks:
    """Ranks with a part of the batch each compute what one rank computes with all of it."""

    steps, rate = 5, 0.05

    def train(self, communicator, rows, op, inner):
        x, y = small_data(dtype="float64")
        model = small_model("float64")
        optimizer = DistributedOptimizer(inner(self.rate), communicator, op=op)
        own = rows[communicator.rank]
        divisor = len(own) if op == "average" else len(x)
        for _ in range(self.steps):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum((model(x[own]) - y[own]) ** 2) / divisor
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(grads, model.trainable_variables)
        return model.get_weights()

    @pytest.mark.parametrize(
        ("inner", "op", "cuts"),
        [
            (SGD, "average", [16]),
            (SGD, "sum", [16]),
            (SGD, "sum", [5]),
            (SGD, "sum", [9, 9]),
            (SGD, "average", [8, 16, 24]),
            (keras.optimizers.Adam, "average", [16]),
            (keras.optimizers.Adam, "sum", [20]),
        ],
    )
    def test_equal_one_rank(self, inner, op, cuts):
        rows = np.split(np.arange(32), cuts)
        whole = self.train(SingleProcess(), [np.arange(32)], op, inner)
        ranks = Ranks(len(rows)).run(lambda c: self.train(c, rows, op, inner))
        for weights in ranks:
            assert_same(weights, ranks[0])
            assert_same(weights, whole, atol=1e-12)
        assert np.abs(whole[0] - small_model("float64").get_weights()[0]).max() > 1e-3
