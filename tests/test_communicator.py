"""What one process says to itself, and which communicator a process gets."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tal1_hvd.distributed.communicator import SingleProcess, connect
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
