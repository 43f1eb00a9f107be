"""The program that ends a process which has been stopped, run beside real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tal1_hvd.distributed import stop_monitor
from tal1_hvd.distributed.stop_monitor import is_stopped

CAT = [sys.executable, "-IS", "-c", "import sys; print(sys.stdin.read(), end='')"]


@pytest.fixture
def process():
    """A process that waits for its input."""
    with subprocess.Popen(CAT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture
def monitor(process):
    """Start the monitor of `process`."""
    started = []

    def monitor(timeout):
        arguments = [str(process.pid), str(timeout), "rank 3 (host far, process 7)"]
        command = [sys.executable, "-IS", stop_monitor.__file__, *arguments]
        started.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield monitor
    for each in started:
        each.kill()
        each.communicate()


def stop(process):
    """Stop a process, and wait until it is."""
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def test_stopped_process_is_named_and_killed(process, monitor):
    stop(process)
    watching = monitor(0.2)
    # Its input stays open, as that of a monitor whose process is stopped does.
    (line,) = watching.stderr.readlines()
    assert line.startswith(
        "tal1-hvd: error: rank 3 (host far, process 7) has been stopped (SIGSTOP) for "
    )
    assert line.endswith("s (--stall-timeout 0.2); ending the job; go on with --resume\n")
    assert watching.wait() == 1
    assert process.wait() == -signal.SIGKILL


def test_ends_with_its_process_and_without_a_word(process, monitor):
    watching = monitor(60)
    _, errors = watching.communicate()  # closes its input
    assert (watching.returncode, errors) == (0, "")
    assert process.communicate("alive")[0] == "alive"


def test_interrupt_is_for_others(process, monitor):
    stop(process)
    watching = monitor(0.5)
    # Sent once it has begun: until then Python has its own way with it.
    while not ignores(watching.pid, signal.SIGINT) and watching.poll() is None:
        os.sched_yield()
    os.kill(watching.pid, signal.SIGINT)
    assert watching.wait() == 1
    assert process.wait() == -signal.SIGKILL


def ignores(process, number):
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    mask = next(line for line in lines if line.startswith("SigIgn")).split()[1]
    return bool(int(mask, 16) >> (number - 1) & 1)


class Course:
    """A clock and a process's states, told look by look."""

    def __init__(self, looks):
        self.looks = iter(looks)
        self.now = 0.0
        self.killed_at = None

    def select(self, *_):
        self.now, self.stopped = next(self.looks, (self.now, None))
        return [[0] if self.stopped is None else [], [], []]

    def kill(self, process, number):
        assert (process, number) == (7, signal.SIGKILL)
        self.killed_at = self.now


@pytest.mark.parametrize(
    ("looks", "killed_at"),
    [
        ([(t, True) for t in range(1, 15)], 11),
        ([(t, t > 3) for t in range(1, 20)], 14),
        ([(t, t % 10 != 0) for t in range(1, 40)], None),
        ([(t, False) for t in range(1, 40)], None),
        # The monitor itself stands still for an hour: the process gets its ten seconds again.
        ([(1, True), *[(3600 + t, True) for t in range(15)]], 3611),
    ],
    ids=["at once", "later", "in short spells", "never", "suspended with all"],
)
def test_course(monkeypatch, capsys, looks, killed_at):
    course = Course(looks)
    monkeypatch.setattr(sys, "argv", ["stop_monitor.py", "7", "10", "rank 0"])
    monkeypatch.setattr(stop_monitor.select, "select", course.select)
    monkeypatch.setattr(stop_monitor.time, "monotonic", lambda: course.now)
    monkeypatch.setattr(stop_monitor.os, "kill", course.kill)
    monkeypatch.setattr(stop_monitor.signal, "signal", lambda *_: None)
    monkeypatch.setattr(stop_monitor, "is_stopped", lambda process: course.stopped)
    assert stop_monitor.main() == (killed_at is not None)
    assert course.killed_at == killed_at
    assert ("rank 0 has been stopped" in capsys.readouterr().err) == (killed_at is not None)


def test_is_stopped(process):
    assert not is_stopped(process.pid)
    stop(process)
    assert is_stopped(process.pid)
    os.kill(process.pid, signal.SIGCONT)
    os.waitid(os.P_PID, process.pid, os.WCONTINUED)
    assert not is_stopped(process.pid)
    process.kill()
    process.wait()
    assert not is_stopped(process.pid)


def test_name_may_hold_anything(tmp_path):
    """`man 5 proc_pid_stat`: the name stands in parentheses, and may hold spaces and more."""
    program = tmp_path / "a) T (b"
    program.symlink_to("/bin/cat")
    with subprocess.Popen([program], stdin=subprocess.PIPE) as process:
        assert not is_stopped(process.pid)
        stop(process)
        assert is_stopped(process.pid)
        process.kill()
