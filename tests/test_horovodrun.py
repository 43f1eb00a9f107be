"""What is made of Horovod's words; that signals and codes come through: test_mpi_faults.py."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tal1_hvd.distributed.horovodrun import Unbreakable, exit_code, main


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("... The first process to do so was: Process name: 0[0] Exit code: 75", 75),
        ("... Process name: localhost[1] Exit code: 2", 2),
        # A signal that Horovod's own subprocess has met.
        ("... Process name: 0[0] Exit code: -9", 1),
        ("Exit code: 7 of something else", 1),
        ("", 1),
    ],
)
def test_exit_code(text, code):
    assert exit_code(text) == code


@pytest.fixture
def horovod(monkeypatch):
    """Stand in for Horovod's own; what it starts is noted."""
    started = []
    shell = SimpleNamespace(execute=lambda *words, **options: started.append((words, options)))
    http = ModuleType("horovod.runner.http.http_server")
    http.RendezvousHTTPServer = type("RendezvousHTTPServer", (), {"request_queue_size": 5})
    launch = ModuleType("horovod.runner.launch")
    util = ModuleType("horovod.runner.common.util")
    util.safe_shell_exec = shell
    for name in ("horovod", "horovod.runner", "horovod.runner.common", "horovod.runner.http"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "horovod.runner.http.http_server", http)
    monkeypatch.setitem(sys.modules, "horovod.runner.launch", launch)
    monkeypatch.setitem(sys.modules, "horovod.runner.common.util", util)
    monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
    monkeypatch.setenv("PATH", "/elsewhere")
    return SimpleNamespace(launch=launch, shell=shell, started=started)


def test_no_shell_stands_before_mpirun(horovod):
    def start():
        os.execve("/bin/sh", ["/bin/sh", "-c", "mpirun -np 2 x"], {"A": "b"})  # noqa: S606

    horovod.launch.run_commandline = start
    assert main() == 0
    assert horovod.started == [("/bin/sh", ["/bin/sh", "-c", "exec mpirun -np 2 x"], {"A": "b"})]
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/elsewhere"


def test_ranks_are_run_here_and_all_else_by_horovod(horovod):
    rank = f"{sys.executable} -I -S -c 'raise SystemExit(7)'"

    def start():
        horovod.shell.execute("ssh x true", stdout=None)
        return horovod.shell.execute(rank, index=1, events=[threading.Event()])

    horovod.launch.run_commandline = start
    assert main() == 7
    assert horovod.started == [(("ssh x true\nexit $?",), {"stdout": None})]


def test_all_end_once_one_has_given_up(horovod):
    """Others may never end by themselves; and Horovod would wait for these."""
    commands = ["import signal; signal.pause()", "import signal; signal.pause()", "exit(69)"]
    codes = {}

    def run(number: int) -> None:
        words = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            commands[number].replace("exit", "raise SystemExit"),
        ]
        codes[number] = horovod.shell.execute(
            shlex.join(words), index=number, events=[threading.Event()]
        )

    def start():
        for thread in threads:
            thread.start()
        threading.Event().wait()

    threads = [threading.Thread(target=run, args=[number], daemon=True) for number in range(3)]
    horovod.launch.run_commandline = start
    assert main() == 69
    for thread in threads:
        thread.join(30)
    assert codes[0] == codes[1] == 128 + 15


def test_a_stream_that_nobody_reads_goes_nowhere():
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as pipe:
        stream = Unbreakable(pipe)
        print("read", file=stream)
        assert os.read(read_end, 9) == b"read\n"
        os.close(read_end)
        print("not read", file=stream)
        print("nor this", file=stream, flush=True)


def test_errors_cost_a_line(horovod, capsys):
    def fail():
        raise RuntimeError("Horovod detected ...\nProcess name: 0[0]\nExit code: 75\n")

    horovod.launch.run_commandline = fail
    assert main() == 75
    said = "horovodrun: Horovod detected ... Process name: 0[0] Exit code: 75\n"
    assert capsys.readouterr().err == said
