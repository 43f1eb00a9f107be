"""Silent ranks are named; those that live, end in order or belong to another start are not.

Waits are waits for events: where nothing must happen, two timeouts are waited for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from tal1_hvd.distributed import watchdog
from tal1_hvd.distributed.watchdog import Watchdog

TIMEOUT = 0.4


class End:
    """Called instead of ending this process."""

    def __init__(self):
        self.messages, self._called = [], threading.Event()

    def __call__(self, message):
        self.messages.append(message)
        self._called.set()

    def comes(self, within=30.0):
        return self._called.wait(within)

    def stays_away(self):
        return not self._called.wait(2 * TIMEOUT)


@pytest.fixture
def end():
    return End()


@pytest.fixture
def watch(tmp_path, end):
    """Make a rank's watchdog, all of which tell `end`."""

    def watch(rank, size=2, timeout=TIMEOUT, folder=tmp_path):
        return Watchdog(folder, rank, size, timeout, "now", end, 0.02)

    return watch


def leave(folder, rank, session="now"):
    """Write a rank's file as if its process stood still ever since."""
    file = folder / f"rank-{rank}"
    file.write_text(f"{session} host far, process 7")
    return file


def has_looked(folder, rank=0):
    """Wait until a rank has given two signs of life, between which it has looked at the next."""
    file, pause = folder / f"rank-{rank}", threading.Event()
    signs = set()
    for _ in range(6000):
        signs.add(file.stat().st_mtime_ns)
        if len(signs) == 4:
            return
        pause.wait(0.005)
    pytest.fail(f"rank {rank} gives no signs of life")


def test_silent_rank_is_named(tmp_path, watch, end):
    leave(tmp_path, 1)
    with watch(0):
        assert end.comes()
    (message,) = end.messages
    for words in (
        "rank 1 (host far, process 7)",
        "no sign of life",
        "--stall-timeout 0.4",
        "--resume",
    ):
        assert words in message
    assert "\n" not in message


def test_last_rank_watches_the_first(tmp_path, watch, end):
    leave(tmp_path, 0)
    with watch(2, size=3):
        assert end.comes()
    assert "rank 0 " in end.messages[0]


def test_only_the_next_rank_is_watched(tmp_path, watch, end):
    leave(tmp_path, 2)
    # Rank 1, which would watch rank 2, is made to watch rank 0.
    with watch(0, size=3), watch(1, size=2):
        assert end.stays_away()


def test_living_ranks_keep_each_other_quiet(watch, end, capsys):
    with watch(0), watch(1):
        assert end.stays_away()
    assert capsys.readouterr().err == ""


def test_rank_that_dies_with_an_error_is_named(tmp_path, watch, end):
    with watch(0):
        with pytest.raises(ZeroDivisionError), watch(1):
            has_looked(tmp_path)
            raise ZeroDivisionError
        assert end.comes()
    assert f"process {os.getpid()}" in end.messages[0]


def test_rank_that_starts_late_is_watched(tmp_path, watch, end):
    with watch(0):
        has_looked(tmp_path)
        leave(tmp_path, 1)
        assert end.comes()


def test_rank_that_stops_late_is_named(tmp_path, watch, end):
    file = leave(tmp_path, 1)
    with watch(0):
        for touched in range(1, 4):
            os.utime(file, ns=(touched, touched))
            has_looked(tmp_path)
        assert end.comes()


class TestRankThatEndsInOrder:
    def test_is_neither_silent_nor_out_of_sight(self, tmp_path, watch, end, capsys):
        with watch(0):
            with watch(1):
                has_looked(tmp_path)
            assert not (tmp_path / "rank-1").exists()
            assert end.stays_away()
        assert "not watched" not in capsys.readouterr().err

    def test_leaves_no_file(self, tmp_path, watch):
        with watch(0), watch(1):
            assert sorted(path.name for path in tmp_path.iterdir()) == ["rank-0", "rank-1"]
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stale", [True, False], ids=["another start's file", "no file"])
def test_rank_out_of_sight_is_said_once(tmp_path, watch, end, capsys, stale):
    if stale:
        leave(tmp_path, 1, session="yesterday")
    with watch(0):
        assert end.stays_away()
    error = capsys.readouterr().err
    assert error.count("rank 1 is not watched") == 1
    assert error.startswith("tal1-hvd: ")
    assert error.count("\n") == 1


def test_folder_that_vanishes_is_no_silence(tmp_path, watch, end):
    folder = tmp_path / "beats"
    folder.mkdir()
    leave(folder, 1)
    with watch(0, folder=folder):
        has_looked(folder)
        folder.rename(tmp_path / "away")
        assert end.stays_away()


@pytest.mark.parametrize(("size", "timeout"), [(1, TIMEOUT), (2, 0), (1, 0)])
def test_inactive(tmp_path, watch, end, size, timeout):
    folder = tmp_path / "beats"
    before = threading.active_count()
    with watch(0, size=size, timeout=timeout, folder=folder):
        assert threading.active_count() == before
        assert not folder.exists()
    assert not end.messages


def test_makes_its_folder(tmp_path, watch):
    with watch(0, folder=tmp_path / "run" / "beats"):
        text = (tmp_path / "run" / "beats" / "rank-0").read_text()
    assert text.startswith("now host ")
    assert text.endswith(f"process {os.getpid()}")


def test_thread_ends_with_the_block(watch):
    before = threading.active_count()
    with watch(0), watch(1):
        assert threading.active_count() == before + 2
    assert threading.active_count() == before


def test_job_that_was_suspended_as_a_whole_goes_on(tmp_path, watch, end, monkeypatch):
    """A watcher that has stood still itself cannot tell whether the next rank has.

    Ctrl-Z and fg, or a cluster that suspends a job: the rank that wakes first finds the others'
    files as old as its own last look.
    """
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: clock.now))
    leave(tmp_path, 1)
    with watch(0):
        has_looked(tmp_path)
        clock.now += 3600.0
        assert end.stays_away()


def test_by_default_the_process_ends_whatever_it_waits_for(tmp_path):
    leave(tmp_path, 1)
    code = (
        "import sys, threading; from pathlib import Path;"
        "from tal1_hvd.distributed.watchdog import Watchdog\n"
        f"with Watchdog(Path(sys.argv[1]), 0, 2, {TIMEOUT}, 'now'): threading.Event().wait(60)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("tal1-hvd: error: rank 1 (host far, process 7) has given no")
    assert ended.stderr.count("\n") == 1
