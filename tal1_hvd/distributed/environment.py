"""What the launcher told this process, and defaults for Horovod and MPI measured on this model."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

# Set by: horovodrun --gloo, Open MPI, MPICH and its kin, srun.
_SIZE_VARIABLES = (
    "HOROVOD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "SLURM_STEP_NUM_TASKS",
)
_RANK_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")

# What is the same for all ranks of a job, and for no other job; set by Open MPI, horovodrun --gloo
# and srun.
_JOB_VARIABLES = (
    "PMIX_NAMESPACE",
    "PMIX_SERVER_TMPDIR",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR",
    "HOROVOD_GLOO_RENDEZVOUS_PORT",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
)

# Milliseconds between Horovod's rounds, together with `shorten_sleeps`: an all-reduce of this
# model's gradient takes 1.0 ms with Horovod's own default, 1, and 0.08 ms with 0.02...
_BUSY_CYCLE = "0.02"
# ...and where ranks talk past Horovod its rounds take MPI's locks: steps of a parameter server are
# 2.4 times as long with 0.02 as with 5.
_IDLE_CYCLE = "5"
# Seconds after which a rank that waits for another counts it as lost: Horovod's threads answer at
# once, whatever a rank computes.
_ELASTIC_TIMEOUT = "10"
_HOROVOD_DEFAULTS = {
    # Waiting MPI threads give way to computing ones where ranks fill all cores: a step of 2 ranks
    # on 2 cores takes 0.9 ms instead of 2.2 ms.
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def launched_world_size(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return how many ranks a launcher started, or None if none did."""
    if _is_shell(environment) or (size := _first_number(environment, _SIZE_VARIABLES)) is None:
        return len(_workers(environment)[0]) or None
    return size


def launched_rank(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the rank a launcher gave this process, or None if none did."""
    if _is_shell(environment) or (rank := _first_number(environment, _RANK_VARIABLES)) is None:
        return _workers(environment)[1]
    return rank


def launched_strategy(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the strategy whose launcher started this process, or None if none did."""
    if not _is_shell(environment) and _first_number(environment, _SIZE_VARIABLES) is not None:
        return "horovod"
    return "multiworker" if _workers(environment)[0] else None


def launched_elastically(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether horovodrun started this process for a job whose ranks come and go."""
    return environment.get("HOROVOD_ELASTIC") == "1"


def place_on_machine(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return a worker's number among those on its machine, and how many these are."""
    workers, number = _workers(environment)
    hosts = [worker.rsplit(":", 1)[0] for worker in workers]
    if number is None:
        return 0, 1
    return hosts[:number].count(hosts[number]), hosts.count(hosts[number])


def launched_job(environment: Mapping[str, str] = os.environ) -> tuple[str | None, ...] | None:
    """Return what tells the job of a rank from others, or None where nothing does."""
    workers = ",".join(_workers(environment)[0])
    job = (*(environment.get(name) for name in _JOB_VARIABLES), workers or None)
    return job if any(job) and launched_rank(environment) is not None else None


def set_horovod_defaults(busy: bool = True) -> None:
    """Set Horovod's and Open MPI's variables that the user left unset; call before they start.

    Parameters
    ----------
    busy : bool
        Horovod is called in every step.
    """
    os.environ.setdefault("HOROVOD_CYCLE_TIME", _BUSY_CYCLE if busy else _IDLE_CYCLE)
    for name, value in _HOROVOD_DEFAULTS.items():
        os.environ.setdefault(name, value)
    if launched_elastically():
        os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", _ELASTIC_TIMEOUT)
    if (Path(sys.prefix) / "bin" / "orted").exists():
        # Open MPI from PyPI: a process that no mpirun started does not know where it lies.
        os.environ.setdefault("OPAL_PREFIX", sys.prefix)
        # Its transport for one-sided messages, which Horovod does not send, takes a second to end.
        # A variable would override the user's own file.
        if not (Path.home() / ".openmpi" / "mca-params.conf").exists():
            os.environ.setdefault("OMPI_MCA_btl", "^ofi")


def allow_timeline() -> None:
    """Let Horovod write a timeline when it is asked to; call before it starts."""
    os.environ.setdefault("HOROVOD_TIMELINE", "DYNAMIC")


def shorten_sleeps() -> None:
    """Let this thread, and those it starts, wake when they asked to; does nothing where it may not.

    Linux lets a sleep last 50 microseconds longer than asked (`man 5 proc_pid_timerslack_ns`):
    several times as long as Horovod's thread means to sleep between rounds.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{threading.get_native_id()}/timerslack_ns").write_text("1")


def _workers(environment: Mapping[str, str]) -> tuple[list[str], int | None]:
    """Return the addresses of ``TF_CONFIG``'s workers, its chief first, and this one's number."""
    # TensorFlow itself says what is wrong with it.
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        config = json.loads(environment.get("TF_CONFIG", ""))
        chiefs, workers = (config["cluster"].get(kind, []) for kind in ("chief", "worker"))
        first = len(chiefs) if config["task"]["type"] == "worker" else 0
        return [*chiefs, *workers], first + int(config["task"]["index"])
    return [], None


def _is_shell(environment: Mapping[str, str]) -> bool:
    """Say whether this runs in a Slurm step of one task, as an interactive shell is."""
    launchers = ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE")
    return environment.get("SLURM_STEP_NUM_TASKS") == "1" and not any(
        name in environment for name in launchers
    )


def _first_number(environment: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    for name in names:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return None
