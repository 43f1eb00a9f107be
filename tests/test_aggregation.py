"""Aggregation on a single rank, where all are the plain optimizer, and what they share."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tal1_hvd.aggregation.all_reduce import AllReduce
from tal1_hvd.aggregation.base import flatten, unflatten
from tal1_hvd.aggregation.gossip import Gossip
from tal1_hvd.aggregation.parameter_server import AsynchronousParameterServer, ParameterServer
from tal1_hvd.aggregation.peers import Peers
from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.training import choose_aggregation
from tal1_hvd.training.adam import FusedAdam
from tal1_hvd.training.choose_aggregation import make_aggregation
from tal1_hvd.training.lars import Lars
from tal1_hvd.training.settings import TrainSettings
from tests.helpers import refused
from tests.toys import assert_same, constants, make_variables, values

GRADIENTS = [[[1.0, -2.0, 3.0]], [[[0.5]], [[-4.0]]]]
SHAPES = [(1, 3), (2, 1, 1)]

KINDS = [
    ({}, AllReduce),
    ({"compression": "fp16"}, AllReduce),
    ({"aggregation": "parameter-server"}, ParameterServer),
    ({"aggregation": "parameter-server", "staleness": 0}, AsynchronousParameterServer),
    ({"aggregation": "gossip"}, Gossip),
]


def make(changes, variables):
    model = SimpleNamespace(variables=variables, trainable_variables=variables)
    aggregation, learner = make_aggregation(TrainSettings(**changes), 64, model, SingleProcess())
    assert learner is model
    return aggregation


def learn(aggregation, epochs=1):
    """Learn from the same gradients, three times an epoch."""

    @tf.function
    def step():
        aggregation.apply(constants(*GRADIENTS))

    for _ in range(epochs):
        aggregation.begin_epoch()
        for _ in range(3):
            step()
        yield aggregation.end_epoch()


@pytest.fixture
def by_adam():
    """Return the variables after 6 steps of Adam."""
    variables, adam = make_variables(*SHAPES), FusedAdam(1e-3)
    for _ in range(6):
        adam.apply(constants(*GRADIENTS), variables)
    return values(variables)


@pytest.mark.parametrize(("changes", "kind"), KINDS)
class TestSingleRank:
    def test_is_the_plain_optimizer(self, changes, kind, by_adam):
        variables = make_variables(*SHAPES)
        aggregation = make(changes, variables)
        assert isinstance(aggregation, kind)
        notes = list(learn(aggregation, epochs=2))
        assert_same(values(variables), by_adam, atol=1e-15)
        assert notes == [{"consensus_distance": 0.0} if kind is Gossip else {}] * 2
        assert aggregation.bytes_per_step() == 0
        assert aggregation.learning_rate == pytest.approx(1e-3)

    def test_goes_on_from_its_state(self, changes, kind, by_adam):
        variables = make_variables(*SHAPES)
        aggregation = make(changes, variables)
        list(learn(aggregation))
        model, state = values(variables), aggregation.state()
        others = [keras.Variable(np.ones(shape), dtype="float64") for shape in SHAPES]
        resumed = make(changes, others)
        assert [a.shape for a in resumed.state()] == [a.shape for a in state]
        resumed.restore(model, state)
        list(learn(resumed))
        assert_same(values(others), by_adam, atol=1e-15)


@pytest.mark.parametrize("kind", [keras.optimizers.Lamb, Lars, FusedAdam])
def test_optimizers(kind):
    """The optimizer that is named, with the scaled rate: four times the batch, twice the rate."""
    name = kind.__name__.lower().removeprefix("fused")
    variables, others = make_variables(*SHAPES), make_variables(*SHAPES)
    changes = {"optimizer": name, "rate_scaling": "sqrt", "warmup_examples": 0}
    model = SimpleNamespace(variables=variables, trainable_variables=variables)
    settings = TrainSettings(learning_rate=0.125, **changes)
    aggregation, _ = make_aggregation(settings, 256, model, SingleProcess())
    plain = kind(0.25)
    for _ in range(3):
        aggregation.apply(constants(*GRADIENTS))
        plain.apply(constants(*GRADIENTS), others)
    assert_same(values(variables), values(others), atol=1e-6)
    assert not np.allclose(values(variables)[0], values(make_variables(*SHAPES))[0])


@pytest.mark.parametrize(("staleness", "rate"), [(None, 0.002), (0, 0.001)])
def test_rate_is_that_of_the_examples_of_an_update(monkeypatch, staleness, rate):
    """All ranks' where they update together, one rank's where each does by itself."""
    for name in ("ParameterServer", "AsynchronousParameterServer"):
        monkeypatch.setattr(choose_aggregation, name, lambda inner, *_: inner)
    variables = make_variables(*SHAPES)
    model = SimpleNamespace(variables=variables, trainable_variables=variables)
    two = SimpleNamespace(size=2, broadcast_variables=lambda variables: None)
    settings = TrainSettings(aggregation="parameter-server", staleness=staleness, warmup_examples=0)
    optimizer, _ = make_aggregation(settings, 128, model, two)
    assert float(optimizer.learning_rate) == pytest.approx(rate)


def test_flatten():
    variables = make_variables((2, 2), (), (3,))
    flat = flatten([variable.value for variable in variables])
    assert flat.numpy().tolist() == [0, 1, 2, 3, 0, 0, 1, 2]
    assert_same([part.numpy() for part in unflatten(flat, variables)], values(variables))


@pytest.mark.parametrize(
    ("changes", "ranks", "expected"),
    [({}, 2, 2 * 40), ({}, 4, 6 * 40), ({"compression": "fp16"}, 4, 6 * 10)],
)
def test_bytes_of_a_ring(changes, ranks, expected):
    """Five float64 numbers go round the ring."""
    aggregation = make(changes, make_variables(*SHAPES))
    aggregation._communicator = SimpleNamespace(size=ranks)
    assert aggregation.bytes_per_step() == expected


def test_mpi4py_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with refused("--aggregation gossip: needs mpi4py", "launch/setup"):
        Peers(SimpleNamespace(rank=0, size=2), "gossip")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"aggregation": "ring"}, "--aggregation: 'ring' is none of allreduce, parameter-server, "),
        ({"staleness": 1}, "--staleness: needs --aggregation parameter-server, got allreduce"),
        ({"aggregation": "parameter-server", "staleness": -1}, "--staleness: must be at least 0"),
        (
            {"aggregation": "gossip", "compression": "fp16"},
            "--compression: fp16 needs --aggregation allreduce, got gossip",
        ),
        (
            {"aggregation": "gossip", "strategy": "mirrored"},
            "--aggregation: gossip needs --strategy horovod, got mirrored",
        ),
        ({"optimizer": "sgd"}, "--optimizer: 'sgd' is none of adam, lamb, lars"),
        ({"rate_scaling": "cubic"}, "--rate-scaling: 'cubic' is none of linear, sqrt, none"),
        ({"optimizer": "lars", "aggregation": "model-parallel"}, "--optimizer: lars scales whole"),
        (
            {"optimizer": "lamb", "aggregation": "parameter-server", "staleness": 1},
            "--optimizer: lamb scales whole arrays",
        ),
        (
            {"aggregation": "model-parallel", "shuffle": "shard"},
            "--shuffle: --aggregation model-parallel shows every rank all examples; it needs ",
        ),
    ],
)
def test_refused(changes, words):
    with refused(words):
        TrainSettings(**changes)
