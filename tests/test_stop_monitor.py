"""The program that ends stopped processes of a job, run beside real ones."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tal1_hvd.distributed import stop_monitor
from tal1_hvd.distributed.stop_monitor import environment_of, is_ours, is_stopped, launchers

CAT = [sys.executable, "-IS", "-c", "import sys; print(sys.stdin.read(), end='')"]
# As Open MPI names a job; no two tests have the same.
JOBS = (f"test-{os.getpid()}-{number}" for number in itertools.count())


def rank_of(job, rank):
    """Return the environment of a rank, as Open MPI sets it."""
    return {**os.environ, "OMPI_COMM_WORLD_RANK": str(rank), "PMIX_NAMESPACE": job}


@pytest.fixture
def job():
    return next(JOBS)


@pytest.fixture
def begin(job):
    """Start processes that wait for their input, as ranks of the job or of another."""
    started = []

    def begin(command=CAT, rank=3, job=job, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        started.append(
            subprocess.Popen(
                command, env=rank_of(job, rank), stdin=subprocess.PIPE, text=True, **options
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def monitor(timeout):
    """Return the command of the monitor of a rank."""
    return [sys.executable, "-m", stop_monitor.__name__, str(timeout)]


def stop(process):
    """Stop a process, and wait until it is."""
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def test_stopped_rank_is_named_and_killed(begin):
    rank = begin()
    stop(rank)
    # Of another rank, whose own process runs.
    watching = begin(monitor(0.2), rank=5)
    assert rank.wait() == -signal.SIGKILL
    assert watching.stderr.readline().startswith(
        f"tal1-hvd: error: rank 3 (host {os.uname().nodename}, process {rank.pid}) has been "
        "stopped (SIGSTOP) for "
    )
    assert watching.poll() is None


def test_message(begin):
    rank = begin()
    stop(rank)
    watching = begin(monitor(0.2))
    line = watching.stderr.readline()
    assert line.endswith("s (--stall-timeout 0.2); ending the job; go on with --resume\n")


def test_other_jobs_are_left_alone(begin):
    ours, others, nobodys = begin(), begin(job=next(JOBS)), subprocess.Popen(["/bin/cat"], stdin=-1)
    for process in (others, nobodys, ours):
        stop(process)
    begin(monitor(0.2))
    assert ours.wait() == -signal.SIGKILL
    assert is_stopped(others.pid)
    assert is_stopped(nobodys.pid)
    nobodys.kill()
    nobodys.communicate()


def test_ends_with_its_rank_and_without_a_word(begin):
    rank, watching = begin(), begin(monitor(60))
    assert watching.communicate() == ("", "")  # closes its input
    assert watching.returncode == 0
    assert rank.communicate("alive")[0] == "alive"


def test_stays_with_one_that_is_stopped(begin):
    """Its own rank may have ended for want of that one, and nobody else sees it."""
    rank = begin()
    stop(rank)
    watching = begin(monitor(1), rank=5)
    _, errors = watching.communicate()  # closes its input
    assert "rank 3 (host " in errors
    assert watching.returncode == 0
    assert rank.wait() == -signal.SIGKILL


@pytest.mark.parametrize("stderr", ["closed", "full", "broken"])
def test_kills_where_nobody_reads(begin, stderr):
    rank = begin()
    stop(rank)
    if stderr == "closed":
        begin(["sh", "-c", 'exec "$@" 2>&-', "sh", *monitor(0.2)])
    elif stderr == "full":
        with Path("/dev/full").open("w") as full:
            begin(monitor(0.2), stderr=full)
    else:
        begin(monitor(0.2)).stderr.close()
    assert rank.wait() == -signal.SIGKILL


def test_interrupt_is_for_others(begin):
    rank = begin()
    stop(rank)
    watching = begin(monitor(0.5))
    # Sent once it has begun: until then Python has its own way with it.
    while not ignores(watching.pid, signal.SIGINT) and watching.poll() is None:
        os.sched_yield()
    os.kill(watching.pid, signal.SIGINT)
    assert rank.wait() == -signal.SIGKILL


def ignores(process, number):
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    mask = next(line for line in lines if line.startswith("SigIgn")).split()[1]
    return bool(int(mask, 16) >> (number - 1) & 1)


class Course:
    """A clock and which processes are stopped, told look by look."""

    def __init__(self, looks):
        self.looks = iter(looks)
        self.now = 0.0
        self.killed = {}

    def select(self, *_):
        self.now, self.stopped = next(self.looks, (self.now, None))
        return [[0] if self.stopped is None else [], [], []]

    def end(self, process, seconds, timeout):
        assert seconds > timeout == 10
        self.killed.setdefault(process, self.now)


@pytest.mark.parametrize(
    ("looks", "killed"),
    [
        ([(t, [7]) for t in range(1, 15)], {7: 12}),
        ([(t, [7, 8] if t > 3 else [8]) for t in range(1, 20)], {7: 15, 8: 12}),
        ([(t, [7] if t % 10 else []) for t in range(1, 40)], {}),
        ([(t, []) for t in range(1, 40)], {}),
        # The monitor itself stands still for an hour: the process gets its ten seconds again.
        ([(1, [7]), *[(3600 + t, [7]) for t in range(15)]], {7: 3611}),
    ],
    ids=["one", "two", "in short spells", "none", "suspended with all"],
)
def test_course(monkeypatch, looks, killed):
    course = Course(looks)
    monkeypatch.setattr(sys, "argv", ["stop_monitor", "10"])
    monkeypatch.setattr(stop_monitor.select, "select", course.select)
    monkeypatch.setattr(stop_monitor.time, "monotonic", lambda: course.now)
    monkeypatch.setattr(stop_monitor.signal, "signal", lambda *_: None)
    monkeypatch.setattr(stop_monitor, "stopped_processes", lambda rank: course.stopped or [])
    monkeypatch.setattr(stop_monitor, "end", course.end)
    assert stop_monitor.main() == 0
    assert course.killed == killed


def test_is_stopped(begin):
    rank = begin()
    assert not is_stopped(rank.pid)
    stop(rank)
    assert is_stopped(rank.pid)
    os.kill(rank.pid, signal.SIGCONT)
    os.waitid(os.P_PID, rank.pid, os.WCONTINUED)
    assert not is_stopped(rank.pid)
    rank.kill()
    rank.wait()
    assert not is_stopped(rank.pid)


@pytest.mark.parametrize("name", ["a) T (b", "ääääääää"])
def test_name_may_hold_anything(begin, tmp_path, name):
    """`man 5 proc_pid_stat`: in parentheses stand 15 bytes, some of a space or of half a letter."""
    program = tmp_path / name
    program.symlink_to("/bin/cat")
    process = begin([program])
    assert not is_stopped(process.pid)
    stop(process)
    assert is_stopped(process.pid)


def test_is_ours(begin, job, monkeypatch):
    rank, other, own = begin(), begin(job=next(JOBS)), os.getppid()
    for name in ("OMPI_COMM_WORLD_RANK", "PMIX_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    # Without a launcher's word a monitor has its own rank alone.
    assert [is_ours(process, own) for process in (rank.pid, other.pid, own)] == [
        False,
        False,
        True,
    ]
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("PMIX_NAMESPACE", job)
    assert is_ours(rank.pid, own)
    assert not is_ours(other.pid, own)
    # A rank's monitor has the rank's environment.
    assert not is_ours(begin([sys.executable, "-c", "input()  # stop_monitor"]).pid, own)


def test_launchers_are_those_above_a_rank(begin, tmp_path):
    """By the name of their program, however many shells are in between."""
    launcher = tmp_path / "mpirun"
    launcher.symlink_to("/bin/bash")
    started = begin([launcher, "-c", "sh -c 'echo $$; cat; true'; true"])
    # Before it says so it is the launcher still, by its name too.
    child = int(started.stdout.readline())
    assert launchers(child) == [started.pid]
    assert launchers(started.pid) == [started.pid]
    assert launchers(os.getpid()) == []


def test_environment(begin, job):
    rank = begin([sys.executable, "-IS", "-c", "print(flush=True); input()"], rank=4)
    # Until the program runs, /proc shows no environment of it.
    rank.stdout.readline()
    found = environment_of(rank.pid)
    assert (found["OMPI_COMM_WORLD_RANK"], found["PMIX_NAMESPACE"]) == ("4", job)


def test_environment_of_a_process_that_is_gone(begin):
    rank = begin()
    rank.kill()
    rank.wait()
    assert environment_of(rank.pid) == {}
