"""One training step against finite differences of NumPy's loss, and what must not matter to it."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from tal1_hvd.data.batches import Batching, EpochBatches
from tal1_hvd.data.encoding import UNKNOWN
from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.distributed.optimizer import DistributedOptimizer
from tal1_hvd.models.paper import paper
from tal1_hvd.training.step import Batches, compile_steps, gather, make_gradient, read_ahead

LENGTH, BATCH = 80, 6


class Stepper:
    """A model in float64 whose weights move by minus the gradient: rate 1, no momentum."""

    def __init__(self, accumulation=1, dtype="float64", optimizer=None):
        self.model = paper(LENGTH, dtype=dtype)
        rng = np.random.default_rng(5)
        # Small enough that no sigmoid is so flat that its differences drown in rounding.
        self.start = [rng.normal(0, 0.1, w.shape) for w in self.model.get_weights()]
        inner = keras.optimizers.SGD(1.0) if optimizer is None else optimizer
        self.accumulation = accumulation
        self.optimizer = DistributedOptimizer(inner, SingleProcess(), op="sum")
        self.optimizer.build(self.model.trainable_variables)
        gradient = make_gradient(self.model, accumulation)
        shape = (accumulation, BATCH, LENGTH)
        self.steps = compile_steps(gradient, self.optimizer, SingleProcess(), shape)

    def __call__(self, *passes):
        """Return totals and how the weights moved, from the same start each time."""
        self.model.set_weights(self.start)
        totals = self.steps([batches_of(passes, self.accumulation)])
        moved = [a - b for a, b in zip(self.model.get_weights(), self.start, strict=True)]
        return totals, moved


def batches_of(passes, accumulation=1):
    """Return passes, so many of which make a step, as a rank's batches."""
    codes, labels, present, counts = (np.array(field) for field in zip(*passes, strict=True))
    steps = (len(passes) // accumulation, accumulation)
    in_steps = (field.reshape(*steps, *field.shape[1:]) for field in (codes, labels, present))
    return Batches(*in_steps, counts[::accumulation])


@pytest.fixture(scope="module")
def stepper():
    return Stepper()


def one_pass(seed=0, present=BATCH, count=None):
    """Return codes, labels, present and count of a pass."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 5, (BATCH, LENGTH), dtype=np.uint8)
    labels = (np.arange(BATCH) % 2).astype(np.uint8)
    places = np.arange(BATCH) < present
    return codes, labels, places, np.int64(present if count is None else count)


def losses_by_hand(weights, codes, labels):
    """Return each example's cross-entropy, in NumPy."""
    kernel, bias, dense, offset = weights
    one_hot = np.concatenate([np.eye(4), np.zeros((1, 4))])[codes]
    windows = np.lib.stride_tricks.sliding_window_view(one_hot, 10, axis=1)
    hidden = np.maximum(np.einsum("npcw,wcf->npf", windows, kernel[0]) + bias, 0)
    pools = hidden.shape[1] // 35
    pooled = hidden[:, : 35 * pools].reshape(len(codes), pools, 35, 15).max(axis=2)
    logits = (pooled.reshape(len(codes), -1) @ dense + offset)[:, 0]
    return np.log1p(np.exp(np.where(labels == 1, -logits, logits)))


def assert_same(found, expected, **tolerance):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, **(tolerance or {"atol": 0}))


class TestGradient:
    def test_finite_differences(self, stepper):
        codes, labels, places, count = one_pass()
        _, moved = stepper((codes, labels, places, count))
        epsilon = 1e-6
        rng = np.random.default_rng(1)
        for array, change in zip(range(4), moved, strict=True):
            for place in rng.integers(change.size, size=25):
                sides = []
                for sign in (1, -1):
                    weights = [w.copy() for w in stepper.start]
                    weights[array].flat[place] += sign * epsilon
                    sides.append(losses_by_hand(weights, codes, labels).mean())
                slope = (sides[0] - sides[1]) / (2 * epsilon)
                assert -change.flat[place] == pytest.approx(slope, abs=1e-8)
        assert all(np.abs(change).max() > 1e-4 for change in moved)

    def test_plain_keras(self, stepper):
        codes, labels, places, count = one_pass()
        _, moved = stepper((codes, labels, places, count))
        stepper.model.set_weights(stepper.start)
        with tf.GradientTape() as tape:
            loss = keras.losses.BinaryCrossentropy(dtype="float64")(
                labels[:, None], stepper.model(codes)
            )
        expected = tape.gradient(loss, stepper.model.trainable_variables)
        assert_same(moved, [-np.array(grad) for grad in expected], atol=1e-14)

    @pytest.mark.parametrize("count", [1, 6, 24])
    def test_divided_by_the_count_of_all_ranks(self, stepper, count):
        _, moved = stepper(one_pass(count=6))
        totals, other = stepper(one_pass(count=count))
        assert_same([count * m for m in other], [6 * m for m in moved], atol=1e-13)
        # Totals are sums, whatever the count.
        assert float(totals.loss) == float(stepper(one_pass())[0].loss)

    def test_ranks_parts_sum_to_the_whole_batch(self, stepper):
        codes, labels, places, count = one_pass()
        _, whole = stepper((codes, labels, places, count))
        first, second = (np.isin(np.arange(BATCH), part) for part in ([0, 1, 5], [2, 3, 4]))
        parts = [stepper((codes, labels, part, count))[1] for part in (first, second)]
        assert_same([a + b for a, b in zip(*parts, strict=True)], whole, atol=1e-14)


class TestTotals:
    @pytest.mark.parametrize("present", [6, 4, 1, 0])
    def test_by_hand(self, stepper, present):
        codes, labels, places, _ = one_pass(present=present, count=BATCH)
        totals, _ = stepper((codes, labels, places, np.int64(BATCH)))
        losses = losses_by_hand(stepper.start, codes, labels)
        assert totals.loss.dtype == tf.float64
        assert totals.correct.dtype == tf.int64
        assert float(totals.loss) == pytest.approx(losses[:present].sum(), abs=1e-12)
        assert int(totals.correct) == np.sum(losses[:present] < np.log(2))

    def test_sum_over_passes(self):
        still = Stepper(optimizer=keras.optimizers.SGD(0.0))
        totals, _ = still(one_pass(1), one_pass(2, present=3), one_pass(3))
        single = [still(p)[0] for p in (one_pass(1), one_pass(2, present=3), one_pass(3))]
        assert float(totals.loss) == sum(float(one.loss) for one in single)
        assert int(totals.correct) == sum(int(one.correct) for one in single)


class TestEmptyPlaces:
    @pytest.mark.parametrize("present", [0, 1, 5])
    def test_what_stands_there_has_no_influence(self, stepper, present):
        codes, labels, places, count = one_pass(present=present, count=BATCH)
        totals, moved = stepper((codes, labels, places, count))
        for filling in (UNKNOWN, 0):
            codes[~places], labels[~places] = filling, 1 - labels[~places]
            other_totals, other_moved = stepper((codes, labels, places, count))
            assert float(other_totals.loss) == float(totals.loss)
            assert int(other_totals.correct) == int(totals.correct)
            assert_same(other_moved, moved)

    def test_a_rank_without_examples_moves_nothing(self, stepper):
        totals, moved = stepper(one_pass(present=0, count=12))
        assert not any(change.any() for change in moved)
        assert (float(totals.loss), int(totals.correct)) == (0, 0)


class TestPasses:
    def test_one_call_or_several(self):
        """Many steps in one graph call are the same steps one by one."""
        many, single = (Stepper(optimizer=keras.optimizers.Adam(0.05)) for _ in range(2))
        passes = [one_pass(seed) for seed in range(5)]
        _, moved = many(*passes)
        single.model.set_weights(single.start)
        for one in passes:
            single.steps([batches_of([one])])
        assert_same(many.model.get_weights(), single.model.get_weights())
        assert all(np.abs(change).max() > 1e-3 for change in moved)
        assert int(many.optimizer.iterations.value) == 5

    def test_accumulated_passes_are_one_step(self, stepper):
        parts = [(1, BATCH), (2, BATCH), (3, 3)]
        passes = [one_pass(seed, present=present, count=15) for seed, present in parts]
        totals, moved = Stepper(accumulation=3)(*passes)
        each = [stepper(one) for one in passes]
        assert_same(moved, [sum(m) for m in zip(*(m for _, m in each), strict=True)], atol=1e-14)
        assert float(totals.loss) == pytest.approx(sum(float(t.loss) for t, _ in each), abs=1e-12)
        assert int(totals.correct) == sum(int(t.correct) for t, _ in each)

    def test_no_passes(self, stepper):
        empty = Batches(
            np.empty((0, 1, BATCH, LENGTH), np.uint8),
            np.empty((0, 1, BATCH), np.uint8),
            np.empty((0, 1, BATCH), bool),
            np.empty(0, np.int64),
        )
        totals = stepper.steps([empty])
        assert (float(totals.loss), int(totals.correct)) == (0, 0)

    @pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
    def test_other_precisions(self, stepper, dtype):
        tolerance = {"float32": 1e-6, "mixed_bfloat16": 3e-2}[dtype]
        totals, moved = Stepper(dtype=dtype)(one_pass())
        expected_totals, expected = stepper(one_pass())
        assert_same(moved, expected, atol=tolerance)
        assert float(totals.loss) == pytest.approx(float(expected_totals.loss), abs=6 * tolerance)


class TestGather:
    rows = np.array([10, 11, 14, 17])
    sequences = np.repeat(np.arange(20, dtype=np.uint8)[:, None] % 4, 3, axis=1)
    labels = (np.arange(20) % 3 == 0).astype(np.uint8)

    def test_by_hand(self):
        members = np.array([[[3, 0], [2, -1]], [[-1, -1], [1, -1]]])
        batches = gather(self.sequences, self.labels, self.rows, EpochBatches(members, [4, 3]))
        assert batches.codes[..., 0].tolist() == [[[1, 2], [2, 4]], [[4, 4], [3, 4]]]
        assert batches.codes.shape == (2, 2, 2, 3)
        assert batches.codes.dtype == batches.labels.dtype == np.uint8
        assert batches.present.tolist() == (members >= 0).tolist()
        assert batches.labels[batches.present].tolist() == [0, 0, 0, 0]
        assert batches.counts == [4, 3]

    def test_every_row_once_an_epoch(self):
        batching = Batching(len(self.rows), 0, 1, 3)
        batches = gather(self.sequences, self.labels, self.rows, batching.epoch(0))
        found = sorted(batches.codes[batches.present][:, 0])
        assert found == sorted(self.sequences[self.rows, 0])

    def test_data_on_disk_is_left_as_it_is(self, tmp_path):
        np.save(tmp_path / "x.npy", self.sequences)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        members = EpochBatches(np.array([[[0, -1]]]), np.array([1]))
        batches = gather(mapped, self.labels, self.rows, members)
        assert batches.codes[0, 0, 1].tolist() == [UNKNOWN] * 3
        np.testing.assert_array_equal(mapped, self.sequences)


class TestReadAhead:
    def test_values_come_in_order(self):
        assert list(read_ahead(lambda x: 2 * x, range(50))) == list(range(0, 100, 2))
        assert list(read_ahead(len, [])) == []

    def test_next_is_read_while_one_is_used(self):
        """The second is read before the first is done with; the third is not."""
        was_read = [threading.Event() for _ in range(3)]
        values = read_ahead(lambda x: was_read[x].set(), range(3))
        next(values)
        assert was_read[1].wait(60)
        assert not was_read[2].is_set()
        values.close()
        assert not was_read[2].is_set()

    def test_error_comes_in_its_turn(self):
        values = read_ahead(lambda x: 1 // x, [1, 0, 1])
        assert next(values) == 1
        with pytest.raises(ZeroDivisionError):
            next(values)

    def test_leaves_no_thread(self):
        before = threading.active_count()
        list(read_ahead(str, range(3)))
        assert threading.active_count() == before
