"""What launchers say through the environment, Horovod's defaults, and this machine's devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from unittest import mock

import pytest

from tal1_hvd.distributed.environment import (
    launched_job,
    launched_rank,
    launched_strategy,
    launched_world_size,
    place_on_machine,
    set_horovod_defaults,
)
from tal1_hvd.errors import InputError
from tal1_hvd.machine import (
    quick_keras_import,
    start_tensorflow,
    usable_cores,
    why_gpu_expected,
)

LAUNCHED = [
    ({"HOROVOD_SIZE": "4", "HOROVOD_RANK": "0"}, 4, 0),
    ({"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "2"}, 3, 2),
    ({"PMI_SIZE": "8", "PMI_RANK": "7"}, 8, 7),
    ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, 2, 1),
    ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, 1, 0),
    # mpirun inside a batch job: the inner launcher counts.
    (
        {
            "OMPI_COMM_WORLD_SIZE": "4",
            "OMPI_COMM_WORLD_RANK": "3",
            "SLURM_STEP_NUM_TASKS": "1",
            "SLURM_PROCID": "0",
        },
        4,
        3,
    ),
    ({}, None, None),
    ({"HOROVOD_SIZE": "", "HOROVOD_RANK": "x"}, None, None),
    # A batch job's allocation is not a launcher.
    ({"SLURM_NTASKS": "16", "SLURM_JOB_ID": "1"}, None, None),
    ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, None, None),
    # Nor is an interactive shell in one.
    ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None, None),
    ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "PMI_SIZE": "1"}, None, None),
]


def workers(kind, index, **cluster):
    """Return TF_CONFIG as its users set it."""
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


TWO_HOSTS = ["a:1", "b:1", "a:2", "a:3", "b:2"]


@pytest.fixture(autouse=True)
def environment():
    with mock.patch.dict(os.environ, clear=False):
        yield os.environ


@pytest.mark.parametrize(("given", "size", "rank"), LAUNCHED)
def test_launched(given, size, rank):
    assert launched_world_size(given) == size
    assert launched_rank(given) == rank
    assert launched_strategy(given) == (None if size is None else "horovod")


class TestWorkers:
    @pytest.mark.parametrize(
        ("given", "size", "rank"),
        [
            (workers("worker", 1, worker=["a:1", "b:1"]), 2, 1),
            (workers("worker", 0, worker=["a:1"]), 1, 0),
            # A chief comes before the workers.
            (workers("chief", 0, chief=["a:1"], worker=["b:1", "c:1"]), 3, 0),
            (workers("worker", 1, chief=["a:1"], worker=["b:1", "c:1"]), 3, 2),
        ],
    )
    def test_launched(self, given, size, rank):
        assert launched_world_size(given) == size
        assert launched_rank(given) == rank
        assert launched_strategy(given) == "multiworker"

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "3", "{}", '{"cluster": 1}', '{"cluster": {"worker": ["a:1"]}}']
    )
    def test_none(self, text):
        given = {"TF_CONFIG": text}
        assert launched_world_size(given) is launched_rank(given) is launched_strategy(given)
        assert launched_world_size(given) is None
        assert place_on_machine(given) == (0, 1)

    def test_mpirun_counts(self):
        given = workers("worker", 1, worker=["a:1", "b:1"])
        given |= {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}
        assert launched_strategy(given) == "horovod"
        assert (launched_world_size(given), launched_rank(given)) == (4, 3)

    @pytest.mark.parametrize(
        ("index", "place"), [(0, (0, 3)), (1, (0, 2)), (2, (1, 3)), (3, (2, 3)), (4, (1, 2))]
    )
    def test_place_on_machine(self, index, place):
        assert place_on_machine(workers("worker", index, worker=TWO_HOSTS)) == place

    def test_job(self):
        one, two = (launched_job(workers("worker", i, worker=TWO_HOSTS)) for i in (0, 1))
        assert one == two is not None
        assert one != launched_job(workers("worker", 0, worker=TWO_HOSTS[:2]))


def test_jobs_are_told_apart():
    mpi = {"OMPI_COMM_WORLD_RANK": "0", "PMIX_NAMESPACE": "17", "PMIX_SERVER_TMPDIR": "a"}
    gloo = {"HOROVOD_RANK": "0", "HOROVOD_GLOO_RENDEZVOUS_PORT": "5000"}
    slurm = {"SLURM_PROCID": "0", "SLURM_JOB_ID": "3", "SLURM_STEP_ID": "0"}
    jobs = [
        mpi,
        {**mpi, "PMIX_NAMESPACE": "18"},
        {**mpi, "PMIX_SERVER_TMPDIR": "b"},
        gloo,
        {**gloo, "HOROVOD_GLOO_RENDEZVOUS_PORT": "5001"},
        slurm,
        {**slurm, "SLURM_STEP_ID": "1"},
    ]
    assert len({launched_job(job) for job in jobs}) == len(jobs)
    assert launched_job({**mpi, "OMPI_COMM_WORLD_RANK": "5"}) == launched_job(mpi)


@pytest.mark.parametrize(
    "environment", [{}, {"PMI_RANK": "0", "PMI_SIZE": "2"}, {"PMIX_NAMESPACE": "17"}]
)
def test_nothing_tells_the_job(environment):
    assert launched_job(environment) is None


@pytest.mark.parametrize(("given", "size", "rank"), LAUNCHED)
def test_this_process_by_default(environment, given, size, rank):
    environment.clear()
    environment.update(given)
    assert (launched_world_size(), launched_rank()) == (size, rank)


@pytest.fixture
def no_open_mpi(monkeypatch, tmp_path):
    """Stand for an environment without PyPI's Open MPI in it."""
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("busy", "cycle"), [(True, "0.02"), (False, "5")])
def test_horovod_defaults(environment, no_open_mpi, busy, cycle):
    environment.clear()
    set_horovod_defaults(busy)
    assert dict(environment) == {
        "HOROVOD_CYCLE_TIME": cycle,
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }


def test_sleeps_are_shortened():
    code = (
        "from tal1_hvd.distributed.environment import shorten_sleeps; shorten_sleeps(); "
        "print(open('/proc/self/timerslack_ns').read())"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "1"


@pytest.mark.parametrize("name", ["HOROVOD_CYCLE_TIME", "OMPI_MCA_mpi_yield_when_idle"])
@pytest.mark.parametrize("value", ["5", "0", ""])
def test_the_users_own_values_stay(environment, no_open_mpi, name, value):
    environment.clear()
    environment[name] = value
    set_horovod_defaults()
    assert environment[name] == value
    assert len(environment) == 2


@pytest.mark.parametrize("transports", [None, "self,tcp"])
def test_open_mpi_of_pypi(environment, no_open_mpi, transports):
    environment["HOME"] = str(no_open_mpi)
    (no_open_mpi / "bin").mkdir()
    (no_open_mpi / "bin" / "orted").touch()
    environment.pop("OMPI_MCA_btl", None)
    if transports is not None:
        environment["OMPI_MCA_btl"] = transports
    set_horovod_defaults()
    assert environment["OPAL_PREFIX"] == str(no_open_mpi)
    assert environment["OMPI_MCA_btl"] == (transports or "^ofi")


def test_open_mpi_parameters_in_a_file_stay(environment, no_open_mpi):
    environment["HOME"] = str(no_open_mpi)
    for file in ("bin/orted", ".openmpi/mca-params.conf"):
        (no_open_mpi / file).parent.mkdir()
        (no_open_mpi / file).write_text("btl = self,tcp")
    environment.pop("OMPI_MCA_btl", None)
    set_horovod_defaults()
    assert "OMPI_MCA_btl" not in environment


def test_usable_cores_are_those_this_process_may_use(monkeypatch):
    assert 1 <= usable_cores() <= os.cpu_count()
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7})
    assert usable_cores() == 3


class TestStartTensorflow:
    @pytest.fixture
    def calls(self, monkeypatch):
        """Record what TensorFlow is told instead of telling it: it may run already."""
        import tensorflow as tf

        calls = {}
        for module, names in (
            (
                tf.config.threading,
                ("set_intra_op_parallelism_threads", "set_inter_op_parallelism_threads"),
            ),
            (tf.config.experimental, ("enable_op_determinism", "set_memory_growth")),
            (tf.config, ("set_visible_devices", "set_logical_device_configuration")),
        ):
            for name in names:
                monkeypatch.setattr(
                    module, name, lambda *given, name=name: calls.update({name: given})
                )
        return calls

    def see(self, monkeypatch, gpus):
        import tensorflow as tf

        monkeypatch.setattr(
            tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else ["cpu"]
        )

    @pytest.mark.parametrize(("threads", "device"), [(1, "CPU (1 thread)"), (2, "CPU (2 threads)")])
    def test_cpu(self, monkeypatch, calls, threads, device):
        self.see(monkeypatch, [])
        assert start_tensorflow(threads, local_rank=5) == device
        assert calls == {
            "set_intra_op_parallelism_threads": (threads,),
            "set_inter_op_parallelism_threads": (1,),
            "enable_op_determinism": (),
        }

    def test_logical_devices(self, monkeypatch, calls):
        self.see(monkeypatch, [])
        assert start_tensorflow(1, replicas=3) == "CPU (1 thread)"
        device, logical = calls["set_logical_device_configuration"]
        assert (device, len(logical)) == ("cpu", 3)
        # So that they compute at once.
        assert calls["set_inter_op_parallelism_threads"] == (3,)

    def test_not_deterministic(self, monkeypatch, calls):
        self.see(monkeypatch, [])
        start_tensorflow(1, deterministic=False)
        assert "enable_op_determinism" not in calls

    def test_no_gpu_where_one_is_expected(self, monkeypatch, calls):
        self.see(monkeypatch, [])
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        with pytest.raises(InputError) as caught:
            start_tensorflow(1)
        assert str(caught.value) == (
            "TensorFlow sees no GPU, but CUDA_VISIBLE_DEVICES is 0,1; look at what nvidia-smi says,"
            " or train on the CPU: CUDA_VISIBLE_DEVICES=''"
        )

    @pytest.mark.parametrize("hidden", ["", "-1", " ", "NoDevFiles", "none", "-1,0"])
    def test_no_gpu_where_they_are_hidden(self, monkeypatch, calls, hidden):
        self.see(monkeypatch, [])
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert start_tensorflow(1) == "CPU (1 thread)"

    def test_cuda_of_the_environment_expects_a_gpu(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        assert why_gpu_expected({}) is None
        (tmp_path / "nvidia" / "cudnn").mkdir(parents=True)
        assert why_gpu_expected({}) == "this environment has CUDA's libraries"
        assert why_gpu_expected({"CUDA_VISIBLE_DEVICES": ""}) is None

    @pytest.mark.parametrize("visible", ["0", " 1,-1", "GPU-8932f937", "MIG-GPU-8932f937/1/2"])
    def test_visible_expects_a_gpu(self, visible):
        reason = why_gpu_expected({"CUDA_VISIBLE_DEVICES": visible})
        assert reason == f"CUDA_VISIBLE_DEVICES is {visible}"

    @pytest.mark.parametrize("local_rank", [0, 1])
    def test_a_gpu_a_local_rank(self, monkeypatch, calls, local_rank):
        self.see(monkeypatch, ["first", "second"])
        assert start_tensorflow(1, local_rank) == f"GPU {local_rank}"
        gpu = ["first", "second"][local_rank]
        assert calls["set_visible_devices"] == ([gpu], "GPU")
        assert calls["set_memory_growth"] == (gpu, True)

    def test_a_gpu_a_replica(self, monkeypatch, calls):
        self.see(monkeypatch, ["first", "second", "third"])
        assert start_tensorflow(1, replicas=2) == "GPUs 0 to 1"
        assert calls["set_visible_devices"] == (["first", "second"], "GPU")

    @pytest.mark.parametrize(
        ("place", "missing"), [({"local_rank": 2}, 2), ({"local_rank": 5}, 5), ({"replicas": 3}, 2)]
    )
    def test_more_ranks_than_gpus(self, monkeypatch, calls, place, missing):
        self.see(monkeypatch, ["first", "second"])
        text = f"rank {missing} of this machine has no GPU: there are 2"
        with pytest.raises(InputError, match=text):
            start_tensorflow(1, **place)


def test_tensorflow_starts_without_what_keras_takes_along():
    code = (
        "import gc, sys; from tal1_hvd.machine import start_tensorflow; start_tensorflow(1); "
        "print(gc.isenabled(), {'keras', 'sklearn', 'matplotlib'} & set(sys.modules)); "
        "import sklearn, matplotlib.pyplot"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "True {'keras'}"


def test_what_is_imported_already_stays():
    import sklearn

    with quick_keras_import():
        assert sys.modules["sklearn"] is sklearn
    assert sys.modules["sklearn"] is sklearn
