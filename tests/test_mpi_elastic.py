"""Ranks are lost and join while a run goes on: no example of an epoch is skipped or repeated."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.jobs import BIN, PROGRAMS, TIMEOUT, living, read_until, run, send, start, train_flags

pytestmark = pytest.mark.mpi

LAUNCH = Path(__file__).parent.parent / "launch"
# Names of this machine.
HOSTS = ["127.0.0.1", "127.0.0.01", "127.0.0.001"]
EXACT = ("--precision", "float64", "--fixed-global-batch", "--warmup-examples", "600")


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    monkeypatch.setenv("TAL1_HVD_VENV", str(BIN.parent))


def weights(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "checkpoints" / "last.npz") as checkpoint:
        return [checkpoint[name] for name in checkpoint.files if name.startswith("model/")]


def assert_same_weights(one: Path, other: Path) -> None:
    for ours, theirs in zip(weights(one), weights(other), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)


def horovodrun(hosts: Path, ranks: int) -> list[str]:
    """Return the command line of an elastic job up to the program."""
    limits = ["-np", str(ranks), "--min-np", "1", "--max-np", "3", "--elastic-timeout", "60"]
    script = ["--host-discovery-script", str(LAUNCH / "discover-hosts")]
    os.environ["TAL1_HVD_HOSTS"] = str(hosts)
    launcher = [str(BIN / "horovodrun"), "--network-interface", "lo"]
    return [*launcher, *limits, *script, str(BIN / "python")]


@pytest.fixture(scope="module")
def unbroken(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one rank that was never stopped, with three ranks' global batch."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    flags = ["--epochs", "8", "--batch-size", "24", "--precision", "float64"]
    flags += ["--warmup-examples", "600"]
    job = run([BIN / "python", *train_flags(small_data, out, *flags)])
    assert job.returncode == 0, job.stderr
    return out


@pytest.mark.parametrize("lost", ["0", "1"])
def test_nothing_is_skipped_or_repeated(
    lost: str, small_data: Path, unbroken: Path, tmp_path: Path, monkeypatch
) -> None:
    """Three ranks that share a batch of 24, then two; in the middle of an epoch."""
    monkeypatch.setenv("TAL1_HVD_HOSTS", "")
    (tmp_path / "hosts").write_text("".join(f"{host}:1\n" for host in HOSTS))
    out = tmp_path / "run"
    flags = train_flags(small_data, out, "--epochs", "8", "--batch-size", "8", "--elastic")[2:]
    command = horovodrun(tmp_path / "hosts", 3)
    job = run([*command, PROGRAMS / "lost.py", lost, *flags, *EXACT])
    assert job.returncode == 0, job.stderr
    # Two steps of the fourth epoch were done by all.
    assert "2 ranks now, going on after epoch 3 and 48 examples of the next" in job.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["world_size"], metrics["global_batch_size"]) == (2, 24)
    assert_same_weights(out, unbroken)


def test_a_rank_joins(small_data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TAL1_HVD_HOSTS", "")
    hosts, out = tmp_path / "hosts", tmp_path / "run"
    hosts.write_text(f"{HOSTS[0]}\n{HOSTS[1]}  # a comment\n")
    flags = train_flags(small_data, out, "--epochs", "200", "--batch-size", "12")
    job = start([*horovodrun(hosts, 2), *flags, "--elastic", *EXACT])
    read_until(job, "epoch 5/")
    with hosts.open("a") as handle:
        handle.write(f"\n{HOSTS[2]}:1\n")
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, errors
    assert "3 ranks now, going on after epoch" in errors
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["world_size"], metrics["global_batch_size"]) == (3, 24)
    whole = tmp_path / "whole"
    flags = train_flags(small_data, whole, "--epochs", "200", "--batch-size", "24", *EXACT[:2])
    alone = run([BIN / "python", *flags, "--warmup-examples", "600"])
    assert alone.returncode == 0, alone.stderr
    assert_same_weights(out, whole)


def after_signal(job: subprocess.Popen[str], out: Path, number: signal.Signals) -> str:
    """Send rank 1 a signal in the third epoch or after; return what the job says until its end."""
    read_until(job, "epoch 3/")
    ranks = json.loads((out / "manifest.json").read_text())["ranks"]
    send(ranks[1]["process"], number)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, errors
    return errors


def test_one_command_and_a_killed_rank(small_data: Path, tmp_path: Path, monkeypatch) -> None:
    """The batch of a rank stays, and the global batch follows the ranks."""
    out = tmp_path / "run"
    # Longer than the test: the others have to hear of it from those that heard of it first.
    monkeypatch.setenv("HOROVOD_GLOO_TIMEOUT_SECONDS", "600")
    flags = train_flags(small_data, out, "--epochs", "300")[2:]
    job = start([LAUNCH / "elastic", "--ranks", "3", *flags])
    errors = after_signal(job, out, signal.SIGKILL)
    assert "2 ranks now, going on after epoch" in errors
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["world_size"], metrics["global_batch_size"]) == (2, 128)
    assert metrics["epochs"] == 300
    again = run([LAUNCH / "elastic", "--ranks", "2", "--out", out, "--resume"])
    assert again.returncode == 0, again.stderr
    assert "already finished after epoch 300" in again.stderr


def test_a_stopped_rank_is_lost(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = train_flags(small_data, out, "--epochs", "300", "--stall-timeout", "5")[2:]
    job = start([LAUNCH / "elastic", *flags])
    read_until(job, "epoch 3/")
    ranks = json.loads((out / "manifest.json").read_text())["ranks"]
    send(ranks[0]["process"], signal.SIGSTOP)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, errors
    assert f"process {ranks[0]['process']}) has been stopped (SIGSTOP) for" in errors
    assert "1 rank now, going on after epoch" in errors
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 300


def test_a_host_that_cannot_be_reached(small_data: Path, tmp_path: Path) -> None:
    """It is left out; the others go on."""
    hosts, out = tmp_path / "hosts", tmp_path / "run"
    hosts.write_text(f"{HOSTS[0]}\n{HOSTS[1]}\n")
    flags = train_flags(small_data, out, "--epochs", "300")[2:]
    job = start([LAUNCH / "elastic", "--hosts", hosts, *flags])
    read_until(job, "epoch 5/")
    with hosts.open("a") as handle:
        handle.write("no-such-host.invalid\n")
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, errors
    assert "2 ranks now, going on after epoch" in errors
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 300


def test_one_host_of_three_cannot_be_reached(small_data: Path, tmp_path: Path) -> None:
    """Two are wanted: the third takes its place, or is not needed."""
    hosts, out = tmp_path / "hosts", tmp_path / "run"
    hosts.write_text(f"{HOSTS[0]}\nno-such-host.invalid\n{HOSTS[1]}\n")
    flags = train_flags(small_data, out, "--epochs", "5")[2:]
    job = run([LAUNCH / "elastic", "--max", "2", "--hosts", hosts, *flags])
    assert job.returncode == 0, job.stderr
    assert json.loads((out / "metrics.json").read_text())["world_size"] == 2


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_is_killed_as_it_starts(rank: int, small_data: Path, tmp_path: Path) -> None:
    """The global batch is that of all who were to begin the run."""
    out = tmp_path / "run"
    flags = train_flags(small_data, out, "--epochs", "5", "--fixed-global-batch")[2:]
    job = start([LAUNCH / "elastic", "--ranks", "3", *flags])
    send(_rank(job.pid, rank), signal.SIGKILL)
    _, errors = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, errors
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["world_size"], metrics["global_batch_size"]) == (2, 3 * 64)
    assert "ranks: 3\n" in (out / "config.yaml").read_text()


def _rank(launcher: int, rank: int) -> int:
    """Wait for a rank's process to start."""
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        for child in psutil.Process(launcher).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if child.cmdline()[1:3] == ["-m", "tal1_hvd.train"] and (
                    child.environ().get("HOROVOD_RANK") == str(rank)
                ):
                    return child.pid
    raise TimeoutError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rnks", "3"], "tal1-hvd: error: unrecognized arguments: --rnks 3"),
        (["--epochs", "-1"], "tal1-hvd: error: --epochs: "),
        (["--data", "{here}/none"], "tal1-hvd: error: {here}/none: "),
        (["--data", "{data}", "--out", "{here}"], "tal1-hvd: error: {here}: exists already"),
        (["--data", "{here}/hosts"], "tal1-hvd: error: {here}/hosts: "),
        (
            ["--interface", "eth99"],
            "launch/elastic: error: --interface: this machine has no 'eth99'",
        ),
        (
            ["--data", "{data}", "--hosts", "{here}/hosts"],
            "launch/elastic: error: --hosts: {here}/hosts:1: expected NAME:RANKS, got 'a b'\n",
        ),
    ],
)
def test_mistakes_cost_a_line(
    words: list[str], said: str, small_data: Path, tmp_path: Path, monkeypatch
) -> None:
    """Before any rank is started."""
    (tmp_path / "hosts").write_text("a b\n")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    names = {"here": tmp_path, "data": small_data}
    options = ["--out", tmp_path / "out", *(word.format(**names) for word in words)]
    wrong = run([LAUNCH / "elastic", *options])
    assert wrong.returncode == 2, wrong.stderr
    assert wrong.stderr.startswith(said.format(**names))
    assert wrong.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["hosts"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_it(number: signal.Signals, small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = start([LAUNCH / "elastic", *train_flags(small_data, out, "--epochs", "2000")[2:]])
    read_until(job, "epoch 3/")
    ranks = json.loads((out / "manifest.json").read_text())["ranks"]
    send(job.pid, number)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 75, errors
    assert (out / "checkpoints" / "last.npz").exists()
    assert f"go on with: launch/elastic --out {out} --resume --ranks 2\n" in errors
    assert not living([rank["process"] for rank in ranks])
    # The first command and --resume.
    flags = train_flags(small_data, out, "--epochs", "5", "--resume")[2:]
    resumed = run([LAUNCH / "elastic", *flags])
    assert resumed.returncode == 0, resumed.stderr


def test_a_rank_that_gets_a_signal_leaves_alone(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = start([LAUNCH / "elastic", *train_flags(small_data, out, "--epochs", "300")[2:]])
    errors = after_signal(job, out, signal.SIGTERM)
    assert "1 rank now, going on after epoch" in errors
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 300


def test_nobody_reads_what_it_says_any_more(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [LAUNCH / "elastic", *train_flags(small_data, out, "--epochs", "100")[2:]]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = b""
    while b"epoch 1/" not in said:
        line = job.stdout.readline()
        assert line, said
        said += line
    job.stdout.close()
    assert job.wait(TIMEOUT) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["world_size"]) == (100, 2)


def come_together(tmp_path: Path, ranks: int, away: int) -> subprocess.CompletedProcess[str]:
    """Run only that part of as many ranks on one host."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"localhost:{ranks}\n")
    command = horovodrun(hosts, ranks)
    command[command.index("--max-np") + 1] = str(ranks)
    return run([*command, PROGRAMS / "comes_together.py", str(away)])


def test_many_come_together(tmp_path: Path) -> None:
    """Horovod's own server, by itself, would turn some away."""
    job = come_together(tmp_path, 32, -1)
    assert job.returncode == 0, job.stderr
    told = {line.rpartition(":")[2] for line in job.stdout.splitlines() if " of 32" in line}
    assert told == {f"rank {rank} of 32" for rank in range(32)}


def test_one_that_never_comes_ends_the_job(tmp_path: Path) -> None:
    """It has not ended, so that Horovod would wait for it for ever."""
    job = come_together(tmp_path, 3, 1)
    assert job.returncode == 69, job.stderr
    assert "some ranks did not come within 1 s; go on with --resume" in job.stderr
    assert "Traceback" not in job.stderr
    program = str(PROGRAMS / "comes_together.py")
    assert not [p for p in psutil.process_iter(["cmdline"]) if program in (p.info["cmdline"] or [])]


@pytest.mark.parametrize("flags", [(), ("--ranks", "2")])
def test_elastic_needs_its_launcher(
    flags: tuple[str, ...], small_data: Path, tmp_path: Path
) -> None:
    own = train_flags(small_data, tmp_path / "x", "--elastic", *flags)[2:]
    job = run([BIN / "tal1-hvd", "train", *own])
    assert job.returncode == 2
    assert job.stderr.startswith("tal1-hvd: error: --")
    assert "launch/elastic" in job.stderr
    assert job.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()
