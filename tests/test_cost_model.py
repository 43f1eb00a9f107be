"""What a step costs on many ranks: by hand, and what any such model must hold to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal1_hvd.benchmark.cost_model import (
    ALGORITHMS,
    NETWORKS,
    Constants,
    Network,
    Step,
    best_ranks,
    efficiency,
    most_ranks,
    ring,
    step_time,
)

CONSTANTS = Constants(fixed=40, per_example=4, overhead=30, parameters=1000)
NETWORK = Network("plain", latency=5, bandwidth=200)

steps = st.builds(
    Step,
    batch=st.integers(1, 10_000),
    accumulation=st.integers(1, 8),
    width=st.sampled_from([2, 4]),
    algorithm=st.sampled_from(list(ALGORITHMS)),
)
networks = st.sampled_from(NETWORKS)
# Trees deepen at powers of two only; the others take longer with every rank.
powers = st.integers(1, 12).map(lambda power: 2**power)


def test_step_by_hand():
    # Two passes of 40 + 4 x 10; three rounds of 30 + 2 x 5; 14 messages of 250 bytes.
    step = Step(batch=10, accumulation=2, width=2)
    assert step_time(CONSTANTS, step, 8, NETWORK) == 160 + 120 + 14 * (5 + 1.25)
    assert step_time(CONSTANTS, step, 1, NETWORK) == 160
    assert efficiency(CONSTANTS, step, 8, NETWORK) == 160 / 367.5


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    # 6 messages of 1,000 bytes; 4 of 4,000; two latencies and 2 x 3 gradients on one link.
    [("ring", 6 * 10), ("tree", 4 * 25), ("parameter server", 2 * 5 + 6 * 20)],
)
def test_algorithms_by_hand(algorithm, expected):
    assert ALGORITHMS[algorithm](4, 4000, NETWORK) == expected


def test_five_ranks_need_a_tree_of_three_rounds():
    assert ALGORITHMS["tree"](5, 0, NETWORK) == 6 * 5


@given(steps, powers, networks)
def test_more_ranks_are_less_efficient(step, ranks, network):
    few, many = (efficiency(CONSTANTS, step, n, network) for n in (ranks, 2 * ranks))
    assert 0 < many < few < 1


@given(steps, powers, networks)
def test_larger_batches_and_fewer_bytes_are_more_efficient(step, ranks, network):
    larger = Step(2 * step.batch, step.accumulation, step.width, step.algorithm)
    smaller = Step(step.batch, step.accumulation, step.width // 2, step.algorithm)
    before = efficiency(CONSTANTS, step, ranks, network)
    assert efficiency(CONSTANTS, larger, ranks, network) > before
    assert efficiency(CONSTANTS, smaller, ranks, network) > before


@given(st.floats(1, 1e9), powers)
def test_ring_of_large_messages_takes_twice_their_time(size, ranks):
    """Bandwidth-optimal: however many ranks, a rank sends and receives nearly twice the size."""
    time = ring(ranks, size, Network("no latency", 0, 1))
    assert time == pytest.approx(2 * size * (ranks - 1) / ranks)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_most_ranks(network):
    step = Step(batch=256)
    most = most_ranks(CONSTANTS, step, network)
    assert efficiency(CONSTANTS, step, most, network) >= 0.5
    assert efficiency(CONSTANTS, step, most + 1, network) < 0.5


def test_most_ranks_has_a_limit():
    free = Network("free", 0, 1e12)
    assert most_ranks(Constants(100, 1, 0, 1), Step(), free, limit=77) == 77


def test_best_ranks():
    """64 examples on 1, 2, 4, 8, ... ranks, by trying all of them."""
    times = {
        n: step_time(CONSTANTS, Step(batch=64 // n), n, NETWORK) for n in (1, 2, 4, 8, 16, 32, 64)
    }
    assert best_ranks(CONSTANTS, 64, NETWORK) == min(times, key=times.get)
    # One that shares nothing computes alone.
    dear = Constants(0, 1, 1e6, 1000)
    assert best_ranks(dear, 64, NETWORK) == 1
