"""What one process says to itself, and which communicator a process gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tal1_hvd.distributed.communicator import HorovodCommunicator, SingleProcess, connect
from tal1_hvd.errors import InputError


@pytest.fixture(autouse=True)
def environment(not_launched):
    return os.environ


@pytest.fixture
def no_horovod(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)


class TestSingleProcess:
    alone = SingleProcess()

    def test_place(self):
        assert (self.alone.rank, self.alone.size) == (0, 1)
        assert (self.alone.local_rank, self.alone.local_size) == (0, 1)
        assert self.alone.name == "single"

    @pytest.mark.parametrize("collective", ["all_reduce_sum", "all_gather"])
    @pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4)])
    def test_arrays_come_back(self, collective, shape):
        array = np.arange(np.prod(shape)).reshape(shape)
        found = getattr(self.alone, collective)(array)
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype

    @pytest.mark.parametrize(
        ("value", "handed_on"),
        [
            (None, None),
            ("ü\n", "ü\n"),
            (0.1 + 0.2, 0.1 + 0.2),
            ((1, [2.5, None]), [1, [2.5, None]]),
            ({"a": True, 1: {}}, {"a": True, "1": {}}),
        ],
    )
    def test_json(self, value, handed_on):
        assert self.alone.broadcast_json(value) == handed_on
        assert self.alone.all_gather_json(value) == [handed_on]

    def test_json_is_a_copy(self):
        value = {"rows": [1]}
        self.alone.broadcast_json(value)["rows"].append(2)
        self.alone.all_gather_json(value)[0]["rows"].append(3)
        assert value == {"rows": [1]}

    @pytest.mark.parametrize("value", [{1, 2}, b"x", np.float32(1)])
    @pytest.mark.parametrize("collective", ["broadcast_json", "all_gather_json"])
    def test_what_ranks_could_not_send_fails_on_one_process_too(self, collective, value):
        with pytest.raises(TypeError):
            getattr(self.alone, collective)(value)

    def test_nothing_to_wait_for(self):
        variables = [object()]
        assert self.alone.broadcast_variables(variables) is None
        assert self.alone.close() is None

    def test_needs_neither_tensorflow_nor_horovod(self):
        code = (
            "import sys; from tal1_hvd.distributed.communicator import SingleProcess, connect;"
            "assert isinstance(connect(), SingleProcess);"
            "sys.exit(bool({'tensorflow', 'keras', 'horovod'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestConnect:
    @pytest.mark.parametrize("arguments", [(), ("auto",), ("single",)])
    def test_alone(self, arguments, no_horovod):
        assert isinstance(connect(*arguments), SingleProcess)

    @pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE", "PMI_SIZE"])
    def test_single_among_several_ranks(self, environment, variable):
        environment[variable] = "4"
        with pytest.raises(InputError, match="--strategy single: a launcher started 4 ranks"):
            connect("single")

    def test_single_of_one_launched_rank(self, environment):
        environment["OMPI_COMM_WORLD_SIZE"] = "1"
        assert isinstance(connect("single"), SingleProcess)

    @pytest.mark.parametrize(
        ("strategy", "launched"), [("horovod", None), ("horovod", "2"), ("auto", "2")]
    )
    def test_horovod_is_not_installed(self, environment, no_horovod, strategy, launched):
        if launched:
            environment["OMPI_COMM_WORLD_SIZE"] = launched
        with pytest.raises(InputError, match="--strategy horovod: Horovod is not installed") as e:
            connect(strategy)
        assert "launch/setup" in str(e.value)


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
