"""Programs that end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tal1_hvd.distributed.end_with_parent import end_with_parent

NUMBERS = [signal.SIGTERM, signal.SIGKILL]
PARENT = """
import subprocess, sys
from tal1_hvd.distributed.end_with_parent import end_with_parent
child = subprocess.Popen(end_with_parent([sys.executable, "-c", sys.argv[2]], int(sys.argv[1])))
child.wait()
"""
# Says that it is there, and waits for ever.
CHILD = "import os, signal; print(os.getpid(), flush=True); signal.pause()"


def test_is_the_program():
    program = [sys.executable, "-c", "import os; print(os.getpid()); raise SystemExit(7)"]
    child = subprocess.Popen(end_with_parent(program), stdout=subprocess.PIPE, text=True)
    assert child.communicate()[0] == f"{child.pid}\n"
    assert child.returncode == 7


def test_signals_are_as_they_were():
    command = ["sh", "-c", "grep SigIgn /proc/$$/status"]
    plain = subprocess.run(command, capture_output=True, check=True).stdout
    assert subprocess.run(end_with_parent(command), capture_output=True).stdout == plain


@pytest.mark.parametrize("number", NUMBERS)
def test_ends_with_a_parent_that_is_killed(number):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(int(number)), CHILD], stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    # The child holds the pipe as well: it is at its end once both have ended.
    assert parent.communicate(timeout=60)[0] == ""


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("ignored", ["", "TERM"])
def test_parent_has_ended_before(number, ignored):
    command = end_with_parent([sys.executable, "-c", "print('began')"], number)
    # The child of a process other than the one that made the command.
    other = ["sh", "-c", f'trap "" {ignored} INT; "$@"; true', "sh"]
    assert subprocess.run([*other, *command], capture_output=True, check=True).stdout == b""
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"began\n"


def test_no_such_program(tmp_path):
    command = end_with_parent([str(tmp_path / "none")])
    job = subprocess.run(command, capture_output=True, text=True)
    assert job.returncode == 127
    assert job.stderr == f"tal1-hvd: error: {tmp_path}/none: No such file or directory\n"
