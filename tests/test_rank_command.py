"""A rank's command: its exit code, its output, and how it ends when the job does."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import threading
from pathlib import Path

import pytest

from tal1_hvd.distributed import rank_command
from tal1_hvd.distributed.rank_command import run_rank

# What it does upon SIGTERM, and that it waits for it.
AWAITING = "import os, signal; signal.signal(15, {}); print('ready', flush=True); signal.pause()"
LEAVING, STAYING = "lambda *_: os._exit(75)", "lambda *_: signal.pause()"


class Setting(io.StringIO):
    """Sets an event when something is written."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self._event = event

    def write(self, text: str) -> int:
        self._event.set()
        return super().write(text)


def python(program: str) -> str:
    return shlex.join([sys.executable, "-I", "-S", "-c", program])


def ended(program: str, asked: bool = True) -> int:
    """Run a program, and end it when it is ready: at the user's wish, or as others have failed."""
    events = [threading.Event(), threading.Event()]
    return run_rank(python(program), events, stdout=Setting(events[0 if asked else 1]))


def test_output_and_code():
    out, err = io.StringIO(), io.StringIO()
    program = "import sys; print('a b'); sys.exit('$HOME; *')"
    code = run_rank(python(program), [threading.Event()], 3, out, err)
    assert (code, out.getvalue(), err.getvalue()) == (
        1,
        "[3]<stdout>:a b\n",
        "[3]<stderr>:$HOME; *\n",
    )


def test_no_code_is_lost():
    """Of Horovod's own, some in a hundred were 0 here."""
    assert {ended(AWAITING.format(LEAVING)) for _ in range(30)} == {75}


@pytest.mark.parametrize("asked", [True, False])
def test_it_is_ended_by_a_signal(asked):
    assert ended(AWAITING.format("signal.SIG_DFL"), asked) == 128 + 15


@pytest.mark.timeout(60)
@pytest.mark.parametrize("asked", [True, False])
def test_time_for_a_checkpoint_is_the_users_to_give(monkeypatch, asked):
    """What stays in spite of SIGTERM is killed, with what it has started."""
    ours, others = "_FOR_A_CHECKPOINT", "_AFTER_OTHERS"
    monkeypatch.setattr(rank_command, ours if asked else others, 0.1)
    monkeypatch.setattr(rank_command, others if asked else ours, 10_000)
    # Its child holds the streams, so that this would wait for it.
    assert ended(AWAITING.format(STAYING).replace("print", "os.fork(); print"), asked) == 128 + 9


@pytest.mark.timeout(60)
def test_what_it_leaves_is_killed(monkeypatch):
    monkeypatch.setattr(rank_command, "_FOR_A_CHECKPOINT", 0.1)
    left = """
import os, signal
first = os.getpid()
os.fork() and os._exit(3)
while os.getppid() == first:
    pass
print('ready', flush=True)
signal.pause()
"""
    assert ended(left) == 3


def test_it_reads_nothing_from_the_terminal():
    ours, (read_end, write_end) = os.dup(0), os.pipe()
    os.write(write_end, b"typed")
    os.dup2(read_end, 0)
    out = io.StringIO()
    try:
        run_rank(python("import sys; print(repr(sys.stdin.read()))"), [], 0, out)
    finally:
        for descriptor in (read_end, write_end):
            os.close(descriptor)
        os.dup2(ours, 0)
        os.close(ours)
    assert out.getvalue() == "[0]<stdout>:''\n"


def test_output_that_is_no_text_costs_its_letters_alone():
    out = io.StringIO()
    program = r"import os; os.write(1, b'one\n\xff\ntwo\n')"
    assert run_rank(python(program), [], 0, out) == 0
    assert out.getvalue() == "[0]<stdout>:one\n[0]<stdout>:\ufffd\n[0]<stdout>:two\n"


def test_output_that_cannot_be_expressed():
    content = io.BytesIO()
    out = io.TextIOWrapper(content, "latin-1")
    program = r"import os; os.write(1, b'\xe2\x82\xac 5\n')"
    assert run_rank(python(program), [], 0, out) == 0
    assert content.getvalue() == b"[0]<stdout>:? 5\n"


def test_lines_that_begin_with_the_time():
    out = io.StringIO()
    assert run_rank(python("print('x')"), [], 0, out, prefix_output_with_timestamp=True) == 0
    assert re.fullmatch(r"\w{3} \w{3} .\d \d\d:\d\d:\d\d \d{4}\[0\]<stdout>:x\n", out.getvalue())


def test_it_ends_where_its_output_finds_no_room(capsys):
    with Path("/dev/full").open("w") as full:
        code = run_rank(python("while True: print('more than a pipe holds')"), [], 2, full)
        assert code
        with contextlib.suppress(OSError):
            full.close()
    assert "horovodrun: stdout of rank 2: No space left on device\n" in capsys.readouterr().err
