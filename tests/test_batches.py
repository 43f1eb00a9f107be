"""Who takes which example in which step: the same steps whatever the number of ranks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal1_hvd.data.batches import Batching

properties = settings(derandomize=True, deadline=None, max_examples=100)

plans = st.builds(
    Batching,
    examples=st.integers(1, 150),
    rank=st.just(0),
    size=st.integers(1, 6),
    batch=st.integers(1, 9),
    accumulation=st.integers(1, 3),
    shuffle=st.sampled_from(["global", "shard"]),
    seed=st.integers(0, 2**64),
)
epochs = st.integers(0, 1000)


def ranks_of(plan):
    return [dataclasses.replace(plan, rank=rank) for rank in range(plan.size)]


def steps_of(plan, epoch):
    """Return, for each step of a rank, the examples it takes and how the step counts them."""
    batches = plan.epoch(epoch)
    members, counts = batches.members, batches.counts
    assert members.dtype == counts.dtype == np.int64
    assert members.shape == (plan.steps, plan.accumulation, plan.batch)
    assert counts.shape == (plan.steps,)
    steps = []
    for places, count in zip(members.reshape(plan.steps, -1), counts, strict=True):
        taken = places[places >= 0]
        assert places.tolist() == taken.tolist() + [-1] * (len(places) - len(taken))
        steps.append((taken.tolist(), int(count)))
    return steps


@pytest.mark.parametrize(
    ("plan", "taken", "counts"),
    [
        # Examples per rank and step, and the global count of each step, by hand.
        (Batching(4, 0, 1, 4), [[4]], [4]),
        (Batching(5, 0, 1, 2), [[2, 2, 1]], [2, 2, 1]),
        (Batching(5, 0, 2, 2), [[2, 1], [2, 0]], [4, 1]),
        (Batching(7, 0, 2, 2), [[2, 2], [2, 1]], [4, 3]),
        (Batching(3, 0, 4, 1), [[1], [1], [1], [0]], [3]),
        (Batching(5, 0, 2, 1, accumulation=2), [[2, 1], [2, 0]], [4, 1]),
        (Batching(10, 0, 2, 2, accumulation=2), [[4, 1], [4, 1]], [8, 2]),
        (Batching(5, 0, 2, 2, shuffle="shard"), [[2, 1], [2, 0]], [4, 1]),
        (Batching(7, 0, 3, 2, shuffle="shard"), [[2, 1], [2, 0], [2, 0]], [6, 1]),
        (Batching(3, 0, 4, 1, shuffle="shard"), [[1], [1], [1], [0]], [3]),
        (Batching(9, 0, 2, 1, accumulation=3, shuffle="shard"), [[3, 2], [3, 1]], [6, 3]),
    ],
)
def test_shares_by_hand(plan, taken, counts):
    for rank, expected in zip(ranks_of(plan), taken, strict=True):
        steps = steps_of(rank, 0)
        assert [len(members) for members, _ in steps] == expected
        assert [count for _, count in steps] == counts


def test_last_small_batch_fills_the_first_pass():
    # 9 examples, 4 a pass, 2 passes a step: the second step has one example, in its first pass.
    batches = Batching(9, 0, 1, 4, accumulation=2).epoch(0)
    assert np.sum(batches.members >= 0, axis=2).tolist() == [[4, 4], [1, 0]]
    assert batches.counts.tolist() == [8, 1]


@pytest.mark.parametrize(
    ("plan", "global_batch", "steps"),
    [
        (Batching(14_000, 0, 1, 64), 64, 219),
        (Batching(14_000, 0, 4, 64), 256, 55),
        (Batching(14_000, 3, 4, 16, accumulation=4), 256, 55),
        (Batching(14_000, 0, 4, 64, shuffle="shard"), 256, 55),
        (Batching(128, 0, 2, 64), 128, 1),
        (Batching(129, 0, 2, 64), 128, 2),
        (Batching(1, 0, 8, 64), 512, 1),
    ],
)
def test_global_batch_and_steps_by_hand(plan, global_batch, steps):
    assert (plan.global_batch, plan.steps) == (global_batch, steps)


@properties
@given(plans, epochs)
def test_every_example_exactly_once_an_epoch_and_counts_are_right(plan, epoch):
    ranks = [steps_of(rank, epoch) for rank in ranks_of(plan)]
    assert len({len(steps) for steps in ranks}) == 1, "every rank makes as many steps"
    seen = []
    for shares in zip(*ranks, strict=True):
        step = [example for members, _ in shares for example in members]
        assert {count for _, count in shares} == {len(step)}
        assert 0 < len(step) <= plan.global_batch
        seen += step
    assert sorted(seen) == list(range(plan.examples))


@properties
@given(plans.map(lambda plan: dataclasses.replace(plan, shuffle="global")), epochs)
def test_ranks_together_make_the_steps_of_one_rank(plan, epoch):
    alone = dataclasses.replace(plan, size=1, batch=plan.global_batch, accumulation=1)
    ranks = [steps_of(rank, epoch) for rank in ranks_of(plan)]
    expected = steps_of(alone, epoch)
    assert len(expected) == plan.steps
    for shares, (members, count) in zip(zip(*ranks, strict=True), expected, strict=True):
        assert [example for share, _ in shares for example in share] == members
        assert {total for _, total in shares} == {count}
        sizes = [len(share) for share, _ in shares]
        assert max(sizes) - min(sizes) <= 1, "the work is shared evenly"


@properties
@given(plans.map(lambda plan: dataclasses.replace(plan, shuffle="shard")), epochs, epochs)
def test_a_rank_keeps_its_shard(plan, epoch, later):
    start = 0
    sizes = []
    for rank in ranks_of(plan):
        shards = [
            sorted(example for members, _ in steps_of(rank, e) for example in members)
            for e in (epoch, later)
        ]
        assert shards[0] == shards[1] == list(range(start, start + len(shards[0])))
        sizes.append(len(shards[0]))
        start += sizes[-1]
    assert start == plan.examples
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("shuffle", ["global", "shard"])
def test_epoch_depends_on_seed_and_number_alone(shuffle):
    plan = Batching(200, 1, 2, 8, shuffle=shuffle, seed=0)
    # A resumed run asks for epoch 3 first; one that was never stopped has asked for 0 to 2.
    asked = [plan.epoch(epoch).members for epoch in range(4)]
    resumed = dataclasses.replace(plan).epoch(3).members
    assert np.array_equal(resumed, asked[3])
    orders = [members.tobytes() for members in asked]
    for seed in (1, 2**32, 2**40 + 1):
        orders.append(dataclasses.replace(plan, seed=seed).epoch(0).members.tobytes())
    assert len(set(orders)) == len(orders)


def test_shards_are_permuted_each_in_its_own_way():
    plan = Batching(200, 0, 4, 50, shuffle="shard")
    orders = [rank.epoch(0).members - 50 * rank.rank for rank in ranks_of(plan)]
    assert len({order.tobytes() for order in orders}) == 4


def test_epoch_leaves_the_global_random_state_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002 (the global state is what is checked)
    Batching(100, 0, 2, 8).epoch(0)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_whole_epochs_are_shuffled():
    first_batches = [Batching(1000, 0, 1, 10, seed=seed).epoch(0).members[0] for seed in range(40)]
    tenths = np.bincount(np.ravel(first_batches) // 100, minlength=10)
    # 400 draws, 40 a tenth expected, standard deviation 6.
    assert 15 < tenths.min() <= tenths.max() < 65


@properties
@given(plans, epochs, st.integers(1, 40))
def test_chunks_are_the_epoch_in_pieces(plan, epoch, steps):
    batches = plan.epoch(epoch)
    chunks = list(batches.chunks(steps))
    assert np.array_equal(np.concatenate([chunk.members for chunk in chunks]), batches.members)
    assert np.array_equal(np.concatenate([chunk.counts for chunk in chunks]), batches.counts)
    assert [len(chunk.members) for chunk in chunks[:-1]] == [steps] * (len(chunks) - 1)
    assert 0 < len(chunks[-1].members) <= steps
    for chunk in chunks:
        assert len(chunk.members) == len(chunk.counts)


@properties
@given(plans, epochs, st.integers(0, 60))
def test_an_epoch_goes_on_where_it_was_left(plan, epoch, steps):
    whole = plan.epoch(epoch)
    rest = plan.epoch(epoch, int(whole.counts[:steps].sum()))
    assert np.array_equal(rest.members, whole.members[steps:])
    assert np.array_equal(rest.counts, whole.counts[steps:])


worlds = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 3), st.integers(0, 4)),
    max_size=5,
)


@properties
@given(st.integers(1, 150), worlds, epochs)
def test_ranks_that_come_and_go_take_every_example_once(examples, worlds, epoch):
    seen = []
    for size, batch, accumulation, steps in [*worlds, (2, 3, 1, examples)]:
        plan = Batching(examples, 0, size, batch, accumulation)
        ranks = [rank.epoch(epoch, len(seen)) for rank in ranks_of(plan)]
        for step in range(min(steps, len(ranks[0].counts))):
            taken = np.concatenate([rank.members[step].ravel() for rank in ranks])
            seen += taken[taken >= 0].tolist()
    assert sorted(seen) == list(range(examples))


@properties
@given(st.integers(1, 150), st.integers(1, 6), st.integers(1, 40), st.integers(1, 3), epochs)
def test_a_global_batch_that_ranks_cannot_share_evenly(examples, size, total, passes, epoch):
    batch = -(-total // (size * passes))
    plan = Batching(examples, 0, size, batch, passes, step_examples=total)
    alone = Batching(examples, 0, 1, total)
    assert plan.global_batch == total
    assert plan.steps == alone.steps
    ranks = [steps_of(rank, epoch) for rank in ranks_of(plan)]
    for shares, (members, count) in zip(
        zip(*ranks, strict=True), steps_of(alone, epoch), strict=True
    ):
        assert [example for share, _ in shares for example in share] == members
        assert {counted for _, counted in shares} == {count}


def test_uneven_shares_by_hand():
    # 10 examples in steps of 5 on 2 ranks: 3 and 2 of each, in places for 3.
    ranks = [steps_of(rank, 0) for rank in ranks_of(Batching(10, 0, 2, 3, step_examples=5))]
    assert [[len(members) for members, _ in steps] for steps in ranks] == [[3, 3], [2, 2]]
