"""Starts ranks as tasks of a Ray or Spark cluster, as mpirun starts them by SSH.

``python -m tal1_hvd.distributed.executors ray|spark COUNT RUN PROGRAM ...`` (internal; ``train
--launcher`` uses it). Horovod's own integrations place the ranks and tell them of each other:
https://horovod.readthedocs.io/en/stable/ray.html and spark.html.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from tal1_hvd.distributed.relay import RankProgram, Relay, fail
from tal1_hvd.errors import InputError

# What Horovod on them imports.
_MODULES = {"ray": ("ray",), "spark": ("pyspark", "pyarrow")}
# Variables that ranks get from whoever starts them, whatever machine they are on.
_PASSED = ("TAL1_HVD_", "TF_CPP_MIN_LOG_LEVEL")

# Any of these tells pyspark which cluster to use, or where that stands.
_SPARK_SETTINGS = ("MASTER", "PYSPARK_SUBMIT_ARGS", "SPARK_CONF_DIR", "SPARK_HOME")
# Seconds that a busy cluster has to start all ranks; Horovod's own for Ray.
_WAIT = "100"
# And those that a cluster has to answer.
_LONGEST_SILENCE = 10


def find_executor(name: str, count: int, folder: Path) -> list[str]:
    """Return the command line of the launcher of a cluster's executor.

    Parameters
    ----------
    name : str
        ``ray`` or ``spark``.
    count : int
        Ranks.
    folder : Path
        The run's.

    Returns
    -------
    list of str
        To be followed by the program.

    Raises
    ------
    InputError
        What it needs is not installed.
    """
    for module in ("horovod", *_MODULES[name]):
        if importlib.util.find_spec(module) is None:
            way = "launch/setup builds it"
            if module != "horovod":
                way = f"install it: pip install -c constraints.txt {' '.join(_MODULES[name])}"
            raise InputError(f"--launcher: {name} needs {module}; {way}")
    if name == "spark" and not ("JAVA_HOME" in os.environ or shutil.which("java")):
        raise InputError(
            "--launcher: spark needs Java; install it (Debian/Ubuntu: apt-get install "
            "openjdk-17-jre-headless), or name it in JAVA_HOME"
        )
    return [sys.executable, "-m", __name__, name, str(count), str(folder)]


def run_on_ray(program: RankProgram, count: int) -> None:
    """Run a program as actors of the Ray cluster there is, or of one on this machine.

    Where the cluster has GPUs, and CUDA_VISIBLE_DEVICES does not hide them, each rank gets one.

    Parameters
    ----------
    program : RankProgram
    count : int
        Ranks.

    Raises
    ------
    InputError
        The cluster is too small, or does not answer.
    """
    import ray
    from horovod.ray import RayExecutor

    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    # Horovod 0.28 calls what Ray renamed.
    workers = {"env_vars": {"PYTHONWARNINGS": "ignore::DeprecationWarning"}}
    options = {"logging_level": "ERROR", "runtime_env": workers}
    try:
        _require_answer("RAY_ADDRESS", "ray://")
        ray.init("auto", **options)
    except ConnectionError:
        # As many CPUs as asked for, as with mpirun; without a page that others could open.
        ray.init("local", num_cpus=count, include_dashboard=False, **options)
    try:
        there = ray.cluster_resources()
        use_gpu = "GPU" in there and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")
        for kind in ("CPU", "GPU") if use_gpu else ("CPU",):
            found = there.get(kind, 0)
            if found < count:
                raise InputError(
                    f"--ranks: {count} is more than the {found:g} {kind}s of the Ray cluster"
                )
        executor = RayExecutor(RayExecutor.create_settings(), num_workers=count, use_gpu=use_gpu)
        executor.start()
        waiting = executor.run_remote(program.run)
        while waiting:
            done, waiting = ray.wait(waiting)
            try:
                # One that failed may not have seen the folder.
                for code in filter(None, ray.get(done)):
                    fail(program.folder, code)
            except ray.exceptions.RayActorError:
                # The worker is lost, and its rank with it; so that the others end.
                fail(program.folder, 1)
        executor.shutdown()
    finally:
        ray.shutdown()


def _require_answer(variable: str, scheme: str) -> None:
    """Raise InputError if nothing answers at a variable's HOST:PORT.

    Ray and Spark themselves would wait for minutes, and not say for what.
    """
    address = os.environ.get(variable, "").removeprefix(scheme)
    host, _, port = address.rpartition(":")
    # Other schemes, and several masters, as Spark can have, are left to them.
    if port.isdigit() and "//" not in host and "," not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), _LONGEST_SILENCE).close()
        except (OSError, OverflowError) as error:
            raise InputError(f"{variable}: no cluster answers at {address}: {error}") from None


def run_on_spark(program: RankProgram, count: int) -> None:
    """Run a program as tasks of the Spark cluster that is configured, or of this machine.

    Parameters
    ----------
    program : RankProgram
    count : int
        Ranks.
    """
    import horovod.spark
    from pyspark import SparkConf, SparkContext

    if not any(name in os.environ for name in _SPARK_SETTINGS):
        # As many as asked for, as with mpirun, and nothing that other machines could reach.
        os.environ.update(MASTER=f"local[{count}]", SPARK_LOCAL_IP="127.0.0.1")
    settings = SparkConf().set("spark.app.name", "tal1-hvd").set("spark.log.level", "ERROR")
    # No page that others could open, and no bar of Spark's own beside ours.
    settings.set("spark.ui.enabled", "false").set("spark.ui.showConsoleProgress", "false")
    _require_answer("MASTER", "spark://")
    os.environ.setdefault("HOROVOD_SPARK_START_TIMEOUT", _WAIT)
    # Spark would start tasks by the first python3 on the PATH.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with SparkContext(conf=settings):
        horovod.spark.run(program.run, num_proc=count, use_gloo=True, verbose=0)


_RUNNERS: Mapping[str, Callable[[RankProgram, int], None]] = {
    "ray": run_on_ray,
    "spark": run_on_spark,
}


def main(name: str, count: int, folder: Path, command: Sequence[str]) -> int:
    """Run a program on an executor's ranks; return the job's exit code."""
    with Relay(folder).copying() as relay:

        def stop(number: int, frame: FrameType | None) -> None:
            relay.stop()

        def leave(number: int, frame: FrameType | None) -> None:
            sys.exit(128 + number)

        signal.signal(signal.SIGUSR1, stop)
        signal.signal(signal.SIGTERM, leave)
        try:
            _RUNNERS[name](relay.program(command, _PASSED), count)
        except InputError as error:
            sys.stderr.write(f"tal1-hvd: error: {error}\n")
            return 2
        except Exception as error:
            # A rank that failed has said why.
            if not relay.exit_code():
                first_line, _, _ = str(error).partition("\n")
                sys.stderr.write(f"tal1-hvd: error: {name}: {first_line}\n")
                return 1
        return relay.exit_code()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
