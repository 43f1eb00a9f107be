"""What one of two ranks makes of Horovod's answers."""

from __future__ import annotations

import json
import os
import socket
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tal1_hvd.distributed.communicator import connect
from tal1_hvd.distributed.horovod_communicator import HorovodCommunicator, Membership


@pytest.fixture(autouse=True)
def environment(not_launched):
    return os.environ


class Peer:
    """Stands in for Horovod: the other one of two ranks, with its answers in order."""

    Sum = "sum"

    def __init__(self, rank, answers=(), mpi=True):
        self._rank, self._answers, self._mpi, self.log = rank, list(answers), mpi, []

    def init(self):
        self.log.append("init")

    def rank(self):
        return self._rank

    def local_rank(self):
        return self._rank

    def size(self):
        return 2

    def local_size(self):
        return 2

    def mpi_enabled(self):
        return self._mpi

    def allreduce(self, tensor, op):
        assert op == self.Sum
        return tensor + self._answers.pop(0)

    def allgather(self, array):
        pair = [array, self._answers.pop(0)]
        joined = np.concatenate(pair if self._rank == 0 else pair[::-1])
        return SimpleNamespace(numpy=lambda: joined)

    def broadcast(self, tensor, root_rank):
        self.log.append((tensor, root_rank))
        return f"rank 0's {tensor}"

    def shutdown(self):
        assert not self._answers
        self.log.append("shutdown")


def sent(value):
    """Return the arrays that a rank sends for a JSON value."""
    data = json.dumps(value).encode()
    return [np.array([len(data)]), np.frombuffer(data, np.uint8)]


class TestHorovodCommunicator:
    @pytest.fixture
    def join(self, monkeypatch):
        def join(*arguments):
            package, peer = ModuleType("horovod"), Peer(*arguments)
            package.tensorflow = peer
            monkeypatch.setitem(sys.modules, "horovod", package)
            monkeypatch.setitem(sys.modules, "horovod.tensorflow", peer)
            return connect("horovod"), peer

        return join

    @pytest.mark.parametrize("strategy", ["horovod", "auto"])
    def test_place(self, environment, join, strategy):
        environment["HOROVOD_SIZE"] = "2"
        join(1)
        communicator = connect(strategy)
        assert isinstance(communicator, HorovodCommunicator)
        assert communicator.name == "horovod"
        assert (communicator.rank, communicator.size) == (1, 2)
        assert (communicator.local_rank, communicator.local_size) == (1, 2)

    @pytest.mark.parametrize(("mpi", "controller"), [(True, "MPI"), (False, "Gloo")])
    def test_controller(self, join, mpi, controller):
        assert join(0, [], mpi)[0].controller == controller

    def test_defaults_are_set_before_horovod_starts(self, environment, join):
        _, peer = join(0)
        assert peer.log == ["init"]
        assert environment["HOROVOD_CYCLE_TIME"] == "0.02"

    def test_arrays(self, join):
        communicator, _ = join(1, [np.array([10.0, 20.0]), np.array([[7]])])
        np.testing.assert_array_equal(communicator.all_reduce_sum(np.array([1.0, 2.0])), [11, 22])
        np.testing.assert_array_equal(
            communicator.all_gather(np.array([[8], [9]])), [[7], [8], [9]]
        )

    @pytest.mark.parametrize("rank", [0, 1])
    @pytest.mark.parametrize("other", [None, "", "ü€", {"a": [1, None, 0.1]}])
    def test_json_of_unequal_sizes(self, join, rank, other):
        communicator, _ = join(rank, sent(other))
        values = communicator.all_gather_json(["own"])
        assert values == ([["own"], other] if rank == 0 else [other, ["own"]])

    def test_broadcast_json_is_rank_0s(self, join):
        assert join(0, sent(None))[0].broadcast_json({"a": 1}) == {"a": 1}
        assert join(1, sent({"a": 1}))[0].broadcast_json({"a": 2}) == {"a": 1}

    def test_only_rank_0_needs_a_json_value_to_broadcast(self, join):
        assert join(1, sent("x"))[0].broadcast_json(object()) == "x"

    def test_variables_take_rank_0s_values(self, join):
        communicator, peer = join(0)
        taken = []
        variables = [SimpleNamespace(value=value, assign=taken.append) for value in "ab"]
        communicator.broadcast_variables(variables)
        assert peer.log[-2:] == [("a", 0), ("b", 0)]
        assert taken == ["rank 0's a", "rank 0's b"]

    def test_all_ranks_come_before_the_connection_is_closed(self, join):
        communicator, peer = join(0, [np.zeros(1, np.uint8)])
        communicator.close()
        assert peer.log[-1] == "shutdown"


def test_leaving_ends_connections_and_keeps_what_listens(monkeypatch):
    """Or ranks that wait for this one would hear of it by a timeout alone."""
    shut_down = []
    tensorflow, elastic = ModuleType("horovod.tensorflow"), ModuleType("horovod.common.elastic")
    tensorflow.shutdown = lambda: shut_down.append(True)
    elastic.notification_manager = SimpleNamespace(
        init=lambda: None, register_listener=lambda listener: None
    )
    package = ModuleType("horovod")
    package.tensorflow = tensorflow
    for name, module in {
        "horovod": package,
        "horovod.tensorflow": tensorflow,
        "horovod.common": ModuleType("horovod.common"),
        "horovod.common.elastic": elastic,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as left_open,
        listening.accept()[0] as waiting,
    ):
        waiting.settimeout(10)
        Membership().leave()
        assert shut_down
        assert waiting.recv(1) == b""
        assert left_open.fileno() >= 0
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as another:
            assert another.getpeername()
