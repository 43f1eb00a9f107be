"""Faults of the network between ranks, for benchmarks/faults.py: two namespaces and a wire."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fault_jobs import (
    FOREVER,
    IN_TIME,
    LAUNCH,
    Job,
    MissingError,
    Row,
    Setting,
    complaint,
    ended,
    epochs_saved,
    left,
    mpirun,
    require,
    require_root,
    resumes,
    stop,
    train,
    until_it_goes_on,
    until_saved,
)

# Of the second machine: for a key made for it, on its wire alone.
_SSHD = """\
ListenAddress {address}
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin prohibit-password
PidFile none
StrictModes no
UsePAM no
"""
_SSH = """\
#!/bin/sh
exec {ssh} -F none -i {folder}/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \\
    -o LogLevel=ERROR "$@"
"""


def network_cut_for_5_seconds(setting: Setting) -> Row:
    """Cut the wire between two ranks, and heal it."""
    with (
        _two_machines() as (addresses, environment, there),
        _on_two_machines(setting, addresses, environment, there) as (job, out),
    ):
        _switch_wire(there, "down")
        time.sleep(5)
        _switch_wire(there, "up")
        since = time.monotonic()
        until_it_goes_on(job, out)
        seconds = f"{time.monotonic() - since:.1f}"
        saved = epochs_saved(out)
        stop(job)
    return seconds, "trains on", "-", resumes(out, setting, saved)


def network_cut(setting: Setting) -> Row:
    """Cut the wire between two ranks for good."""
    with (
        _two_machines() as (addresses, environment, there),
        _on_two_machines(setting, addresses, environment, there) as (job, out),
    ):
        ranks = job.ranks()
        since = time.monotonic()
        _switch_wire(there, "down")
        saved = epochs_saved(out)
        seconds, code = ended(job, since)
        require(not left(ranks), "ranks live on")
    lines = [line for line in job.text().splitlines() if "lost communication" in line]
    what = f"mpirun: `{lines[0].strip()}`" if lines else complaint(job.text())
    return seconds, what, code, resumes(out, setting, saved)


@contextlib.contextmanager
def _on_two_machines(
    setting: Setting, addresses: list[str], environment: dict[str, str], there: str
) -> Iterator[tuple[Job, Path]]:
    out, log = setting.fresh("network")
    network = ["--mca", "btl", "self,tcp", "--mca", "plm_rsh_agent", "ssh"]
    for layer in ("btl", "oob"):
        network += ["--mca", f"{layer}_tcp_if_include", "10.213.7.0/24"]
    flags = train(out, "--data", setting.data, *FOREVER)
    command = [*mpirun(2, "--host", ",".join(addresses), *network), *flags]
    with Job(_in_first_machine(there, command), log, environment) as job:
        until_saved(job, out)
        yield job, out


def network_cut_elastic(setting: Setting) -> Row:
    """Cut the wire between two ranks of an elastic job for good."""
    with _two_machines() as (addresses, environment, there):
        out, log = setting.fresh("network")
        hosts = out.with_name("hosts")
        hosts.write_text("".join(f"{address}:1\n" for address in addresses))
        options = ["--ranks", 2, "--hosts", hosts, "--interface", "wire"]
        flags = ["--out", out, "--data", setting.data, *FOREVER]
        command = [LAUNCH / "elastic", *options, *flags]
        with Job(_in_first_machine(there, command), log, environment) as job:
            until_saved(job, out)
            since = time.monotonic()
            _switch_wire(there, "down")
            went_on = job.says("now, going on", IN_TIME)
            seconds = f"{time.monotonic() - since:.1f}"
            require(went_on, f"does not go on: {complaint(job.text())}")
            until_it_goes_on(job, out)
            saved = epochs_saved(out)
            stop(job)
    return seconds, "the rank on this side goes on alone", "-", resumes(out, setting, saved)


@contextlib.contextmanager
def _two_machines() -> Iterator[tuple[list[str], dict[str, str], str]]:
    """Make two network namespaces with a wire between them; needs root and OpenSSH.

    Yields
    ------
    addresses : list of str
    environment : dict
        With an ``ssh`` on the PATH that may enter the second.
    there : str
        The second namespace, whose ``wire`` can be cut.
    """
    require_root()
    prefix = f"tal1-{os.getpid()}-"
    names = [f"{prefix}{number}" for number in (1, 2)]
    addresses = [f"10.213.7.{number}" for number in (1, 2)]
    hosts = "".join(f"{a} {n}\n" for a, n in zip(addresses, names, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in names:
                _ip("netns", "add", name)
                # Bound over /etc/hosts there.
                (Path("/etc/netns") / name).mkdir(parents=True)
                (Path("/etc/netns") / name / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
            peer = ["type", "veth", "peer", "name", "wire", "netns", names[1]]
            _ip("link", "add", "wire", "netns", names[0], *peer)
            for name, address in zip(names, addresses, strict=True):
                _ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
                for device in ("lo", "wire"):
                    _ip("-n", name, "link", "set", device, "up")
            with _ssh(Path(folder), names[1], addresses[1]):
                yield addresses, {"PATH": f"{folder}:{os.environ['PATH']}"}, names[1]
        finally:
            for name in names:
                with contextlib.suppress(subprocess.CalledProcessError, OSError):
                    _ip("netns", "del", name)
                    (Path("/etc/netns") / name / "hosts").unlink()
                    (Path("/etc/netns") / name).rmdir()


@contextlib.contextmanager
def _ssh(folder: Path, name: str, address: str) -> Iterator[None]:
    """Let SSH's server run in a namespace, and end all that runs there after the block."""
    ssh, sshd = shutil.which("ssh"), shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not (ssh and sshd):
        raise MissingError("needs OpenSSH's server and client")
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")]
    subprocess.run(key, check=True)
    (folder / "sshd_config").write_text(_SSHD.format(address=address, folder=folder))
    (folder / "ssh").write_text(_SSH.format(ssh=ssh, folder=folder))
    (folder / "ssh").chmod(0o755)
    # Where the server insists on having been installed for a machine that starts it.
    Path("/run/sshd").mkdir(exist_ok=True)
    serve = [sshd, "-D", "-f", folder / "sshd_config"]
    with subprocess.Popen(_in_machine(name, serve)) as server:
        try:
            yield
        finally:
            for process in _ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            server.kill()


def _in_first_machine(there: str, command: Sequence[object]) -> list[object]:
    """Return a command line that runs another in the first of `_two_machines`."""
    return _in_machine(f"{there[:-1]}1", command)


def _in_machine(name: str, command: Sequence[object]) -> list[object]:
    script = f'hostname {name}; exec "$@"'
    return ["ip", "netns", "exec", name, "unshare", "--uts", "bash", "-c", script, "x", *command]


def _switch_wire(there: str, state: str) -> None:
    """Cut the wire between `_two_machines` (``down``), or heal it (``up``)."""
    _ip("-n", there, "link", "set", "wire", state)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
