"""How a rank's process ends: real processes, as a launcher would start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

MODULE = "from tal1_hvd.distributed.rank_process import"


def python(code, rank="1"):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "HOROVOD_RANK": rank, "HOROVOD_SIZE": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(code, rank="1"):
    process = python(code, rank)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


STOP = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"


class TestMonitorStops:
    def test_stopped_rank_is_named_and_killed(self):
        process = python(f"{MODULE} monitor_stops; monitor_stops(0.4); {STOP}")
        _, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert errors.startswith(f"tal1-hvd: error: rank 1 (host {os.uname().nodename}, process ")
        assert f"process {process.pid}) has been stopped" in errors
        assert errors.count("\n") == 1

    def test_after_its_end_nothing_is_left(self):
        # Both streams reach their end only once the monitor has let go of them.
        assert outcome(f"{MODULE} monitor_stops; monitor_stops(60)") == (0, "")

    def test_after_it_was_killed_nothing_is_left(self):
        code = f"{MODULE} monitor_stops; monitor_stops(60); import os; os.kill(os.getpid(), 9)"
        assert outcome(code) == (-signal.SIGKILL, "")

    def test_leaves_no_warning(self):
        """Of a process that is still running, for one."""
        code = f"import warnings; warnings.simplefilter('error')\n{MODULE} monitor_stops;"
        assert outcome(f"{code} monitor_stops(60)") == (0, "")

    def test_no_launcher_is_no_watch(self):
        code = f"import os; del os.environ['HOROVOD_RANK']\n{MODULE} monitor_stops;"
        code += "before = os.listdir('/proc/self/fd'); monitor_stops(60);"
        assert outcome(f"{code} assert os.listdir('/proc/self/fd') == before") == (0, "")

    @pytest.mark.parametrize("timeout", ["0", "-1", "float('nan')"])
    def test_no_timeout_is_no_watch(self, timeout):
        """Nor is one that is refused a moment later."""
        code = f"{MODULE} monitor_stops; import os; before = os.listdir('/proc/self/fd');"
        code += f"monitor_stops({timeout}); assert os.listdir('/proc/self/fd') == before"
        assert outcome(code) == (0, "")


class TestEndRank:
    """A thread that never ends would keep an interpreter that leaves in good order."""

    WAITING = "import threading; threading.Thread(target=threading.Event().wait).start()\n"

    def end(self, error, rank):
        code = f"{MODULE} end_rank, InputError\n{self.WAITING}"
        code += f"try: raise {error}\nexcept Exception as e: end_rank(e)"
        return outcome(code, rank)

    @pytest.mark.parametrize(("rank", "name"), [("0", ""), ("1", "rank 1: ")])
    def test_bad_input(self, rank, name):
        code, errors = self.end("InputError('--data: two\\nlines')", rank)
        assert (code, errors) == (2, f"tal1-hvd: error: {name}--data: two lines\n")

    @pytest.mark.parametrize("rank", ["0", "1"])
    def test_fault(self, rank):
        code, errors = self.end("OSError('disk on\\nfire')", rank)
        assert code == 1
        assert errors.startswith("Traceback (most recent call last):")
        assert errors.endswith(f"\ntal1-hvd: error: rank {rank} failed: OSError: disk on fire\n")


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("end", ["end_process('no', 5)", "end_rank(OSError())"])
def test_ends_where_nobody_reads(stream, end):
    code = f"{MODULE} end_process, end_rank\n{TestEndRank.WAITING}{end}"
    shell = ["sh", "-c", f'exec "$0" -c "$1" {stream}', sys.executable, code]
    assert subprocess.run(shell, timeout=60, check=False).returncode == (5 if "5" in end else 1)


def test_end_process():
    code, errors = outcome(f"{MODULE} end_process\n{TestEndRank.WAITING}end_process('no\\nway', 5)")
    assert (code, errors) == (5, "tal1-hvd: error: no way\n")


def test_leaves_with_what_it_has_said():
    code = f"{MODULE} leave_process\n{TestEndRank.WAITING}"
    leave = "import sys; print('so far', end='', file=sys.stderr); leave_process(75)"
    assert outcome(f"{code}{leave}") == (75, "so far")
