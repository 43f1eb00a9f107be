"""What listens while a job trains, as docs/security.md says."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import psutil
import pytest

from tests.jobs import BIN, TIMEOUT, mpirun, read_until, start, train_flags

pytestmark = pytest.mark.mpi

TAL1 = [BIN / "tal1-hvd", "train"]
GLOO = [BIN / "horovodrun", "--gloo", "-np", "2", BIN / "python", "-m", "tal1_hvd.train"]
MPIRUN = [*mpirun(2, "--mca", "btl", "self,vader"), "-m", "tal1_hvd.train"]
# command -> ports of its launcher on 127.0.0.1, on all interfaces; of each rank there and there
JOBS = {
    "one rank": (TAL1, (0, 0), (0, 0)),
    "mirrored": ([*TAL1, "--ranks", "2", "--strategy", "mirrored"], (0, 0), (0, 0)),
    "ranks": ([*TAL1, "--ranks", "2"], (1, 2), (0, 0)),
    "mpirun": (MPIRUN, (1, 2), (0, 0)),
    "gloo": (GLOO, (0, 1), (0, 0)),
}


def listening(processes: list[psutil.Process]) -> tuple[int, int]:
    """Return the TCP ports that processes listen on: on 127.0.0.1, and on all interfaces."""
    found = {
        connection.laddr
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    own = [ipaddress.ip_address(address.ip).is_loopback for address in found]
    return sum(own), len(own) - sum(own)


@pytest.mark.parametrize("name", JOBS)
def test_ports(name: str, small_data: Path, tmp_path: Path) -> None:
    command, launcher, rank = JOBS[name]
    flags = train_flags(small_data, tmp_path / "run", "--epochs", "1000000")[2:]
    job = start([*command, *flags])
    try:
        read_until(job, "epoch 3/")
        first = psutil.Process(job.pid)
        processes = [first, *first.children(recursive=True)]
        ranks = [one for one in processes if one.cmdline()[1:3] == ["-m", "tal1_hvd.train"]]
        assert listening([one for one in processes if one not in ranks]) == launcher
        assert [listening([one]) for one in ranks] == [rank] * len(ranks)
    finally:
        job.terminate()
        job.communicate(timeout=TIMEOUT)
