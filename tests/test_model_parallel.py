"""Model parallelism on a single rank, which holds all filters."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tal1_hvd.aggregation.model_parallel import ModelParallel
from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.models.paper import paper
from tal1_hvd.training.adam import FusedAdam
from tests.toys import assert_same, constants, values

GLOBAL_BATCH = 24


def make(model):
    return ModelParallel(FusedAdam(0.01), model, SingleProcess(), GLOBAL_BATCH)


def gradients(model, step):
    draw = np.random.default_rng(step).normal
    return constants(*(draw(size=v.shape) for v in model.trainable_variables))


@pytest.fixture
def model():
    return paper(150, dtype="float64")


@pytest.fixture
def by_adam():
    """Return the weights after 4 steps of Adam on the whole network."""
    model = paper(150, dtype="float64")
    adam = FusedAdam(0.01)
    for step in range(4):
        adam.apply(gradients(model, step), model.trainable_variables)
    return values(model.variables)


def test_whole_gets_the_parts_after_an_epoch(model, by_adam):
    aggregation = make(model)
    before = values(model.variables)
    for step in range(4):
        aggregation.apply(gradients(model, step))
    assert_same(values(model.variables), before)
    assert aggregation.end_epoch() == {}
    assert_same(values(model.variables), by_adam, atol=1e-15)


def test_goes_on_from_its_state(model, by_adam):
    aggregation = make(model)
    for step in range(2):
        aggregation.apply(gradients(model, step))
    aggregation.end_epoch()
    other = paper(150, seed=9, dtype="float64")
    resumed = make(other)
    resumed.restore(values(model.variables), aggregation.state())
    for step in (2, 3):
        resumed.apply(gradients(other, step))
    resumed.end_epoch()
    assert_same(values(other.variables), by_adam, atol=1e-15)


@pytest.mark.parametrize(("ranks", "expected"), [(1, 0), (2, 2 * 192), (4, 6 * 192)])
def test_bytes_of_a_ring(model, ranks, expected):
    """A float64 of each of 24 examples goes round the ring."""
    aggregation = make(model)
    aggregation._communicator = SimpleNamespace(size=ranks)
    assert aggregation.bytes_per_step() == expected
