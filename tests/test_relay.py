"""Output from ranks, and signals to them, through a folder."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from tal1_hvd.distributed.relay import RankProgram, Relay, fail


@pytest.fixture
def streams():
    return {".out": io.StringIO(), ".err": io.StringIO()}


@pytest.fixture
def relay(tmp_path, streams):
    """Stand for the launcher while it waits for ranks."""
    with Relay(tmp_path, streams).copying() as relay:
        yield relay


def rank(relay, monkeypatch, code, number=0):
    """Return what runs a Python program as a rank."""
    monkeypatch.setenv("HOROVOD_RANK", str(number))
    return relay.program([sys.executable, "-c", code], ["RELAYED_"])


def test_output_and_exit_code(tmp_path, streams, monkeypatch):
    with Relay(tmp_path, streams).copying() as relay:
        code = "import sys; print('one\\ntwo'); print('why', file=sys.stderr)"
        assert rank(relay, monkeypatch, code).run() == 0
        assert relay.exit_code() == 0
    assert streams[".out"].getvalue() == "one\ntwo\n"
    assert streams[".err"].getvalue() == "why\n"
    assert not list(tmp_path.iterdir())


def test_runs_where_it_was_started_with_its_variables(tmp_path, streams, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAYED_WORD", "given")
    monkeypatch.setenv("OTHER", "here")
    with Relay(tmp_path, streams).copying() as relay:
        program = rank(
            relay, monkeypatch, "import os; print(os.getcwd(), os.environ['RELAYED_WORD'])"
        )
        assert program.environment == {"RELAYED_WORD": "given"}
        assert program.run() == 0
    assert streams[".out"].getvalue() == f"{tmp_path} given\n"


def test_lines_of_ranks_do_not_mix(tmp_path, streams):
    relay = Relay(tmp_path, streams)
    (relay.folder / "0.out").write_bytes(b"whole\nha")
    (relay.folder / "1.out").write_bytes(b"other\n")
    relay._copy(False)
    assert streams[".out"].getvalue() == "whole\nother\n"
    with (relay.folder / "0.out").open("ab") as handle:
        handle.write(b"lf")
    relay._copy(True)
    assert streams[".out"].getvalue() == "whole\nother\nhalf"


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137), ("raise ValueError", 1)]
)
def test_a_rank_that_fails_ends_the_others(end, code, relay, monkeypatch):
    codes = []
    waiting = rank(relay, monkeypatch, "import time; time.sleep(600)")
    other = threading.Thread(target=lambda: codes.append(waiting.run()))
    other.start()
    assert rank(relay, monkeypatch, f"import os, sys; {end}").run() == code
    other.join(60)
    # Ended by SIGTERM, and the job's code is of the rank that failed first.
    assert codes == [143]
    assert relay.exit_code() == code


def test_the_first_failure_counts(relay):
    fail(relay.folder, 3)
    fail(relay.folder, 4)
    assert relay.exit_code() == 3


def test_a_full_disk(relay, monkeypatch, capfd):
    """What a rank says of it is not lost, nor is its exit code."""
    for suffix in ("out", "err"):
        # In the place of a file, so that every write to it fails.
        (relay.folder / f"0.{suffix}").mkdir()
    code = "import sys; print('epoch 1'); sys.exit('No space left')"
    assert rank(relay, monkeypatch, code).run() == 1
    assert relay.exit_code() == 1
    assert capfd.readouterr() == ("", "No space left\n")


def test_what_a_killed_launcher_has_left(tmp_path, streams):
    left = Relay(tmp_path, streams)
    relay = Relay(tmp_path, streams)
    assert list(tmp_path.iterdir()) == [relay.folder]
    assert left.folder != relay.folder


def test_a_request_to_stop_after_the_end(tmp_path, streams):
    with Relay(tmp_path, streams).copying() as relay:
        pass
    relay.stop()
    assert not list(tmp_path.iterdir())


def test_a_look_that_fails(tmp_path, streams):
    relay = Relay(tmp_path, streams)
    (relay.folder / "0.out").write_bytes(b"one\n")
    # Cannot be opened, whoever looks.
    (relay.folder / "0.err").mkdir()
    relay._copy(False)
    assert streams[".out"].getvalue() == "one\n"


WAITS_FOR_A_SIGNAL = (
    "import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75));"
    "print('ready', flush=True); signal.pause()"
)


class Told(io.StringIO):
    """A stream that does something once anything is written to it."""

    def __init__(self, then):
        super().__init__()
        self._then = then

    def write(self, text):
        if text:
            self._then()
        return super().write(text)


def test_a_request_to_stop_reaches_ranks(tmp_path, monkeypatch):
    streams = {".out": Told(lambda: relay.stop()), ".err": io.StringIO()}
    relay = Relay(tmp_path, streams)
    with relay.copying():
        assert rank(relay, monkeypatch, WAITS_FOR_A_SIGNAL).run() == 75
        assert relay.exit_code() == 75


def test_ranks_end_without_a_launcher(tmp_path, monkeypatch):
    monkeypatch.setattr("tal1_hvd.distributed.relay._GRACE", 0.5)
    streams = {".out": Told(lambda: relay.folder.rename(tmp_path / "gone"))}
    relay = Relay(tmp_path, streams | {".err": io.StringIO()})
    with relay.copying():
        assert rank(relay, monkeypatch, WAITS_FOR_A_SIGNAL).run() == 143


def test_a_machine_that_sees_other_folders(relay, monkeypatch, capsys):
    program = rank(relay, monkeypatch, "")
    nowhere = relay.folder / "nowhere"
    elsewhere = RankProgram(program.command, nowhere, program.directory, {})
    assert elsewhere.run() == 2
    error = capsys.readouterr().err
    assert error.startswith("tal1-hvd: error: rank 0 on ")
    assert f"{nowhere}/0.out: No such file or directory; all machines have to see" in error


def test_a_machine_that_sees_no_environment(relay, monkeypatch, capsys):
    program = rank(relay, monkeypatch, "")
    nowhere = str(relay.folder / "bin" / "python")
    elsewhere = RankProgram((nowhere, "-V"), relay.folder, program.directory, {})
    assert elsewhere.run() == 2
    assert f": {nowhere}: No such file or directory; all machines" in capsys.readouterr().err
