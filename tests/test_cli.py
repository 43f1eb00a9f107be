"""The command line itself: help, version, exit codes, pipes, faults, bars of progress."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import tal1_hvd
from tal1_hvd import __version__
from tal1_hvd.cli import export as export_command
from tal1_hvd.cli import progress as cli_progress
from tal1_hvd.cli.errors import report
from tal1_hvd.cli.main import COMMANDS, main
from tal1_hvd.errors import InputError
from tests.commands import MODULE, call, start

CONSOLE_SCRIPT = Path(sys.executable).with_name("tal1-hvd")


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]], ids=["nothing", "--help", "-h"])
def test_overview(capsys, argv):
    assert call(*argv) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: tal1-hvd COMMAND")
    for name, (_, summary) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", out, re.MULTILINE)
    assert err == ""


def test_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr() == (f"tal1-hvd {__version__}\n", "")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fly"], ["no command 'fly'", *COMMANDS]),
        (["Train"], ["no command 'Train'"]),
        (["tra"], ["no command 'tra'"]),
        ([""], ["no command ''"]),
        (["--fly"], ["--fly", "tal1-hvd --help"]),
        (["--seed", "1", "train"], ["--seed"]),
        (["-"], ["-"]),
        (["--"], ["--"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_no_such_command(capsys, argv, words):
    assert call(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tal1-hvd: error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    "argv",
    [[], ["--version"], ["train", "--help"], ["fly"], ["export", "--data", "nowhere"]],
    ids=lambda argv: " ".join(argv) or "nothing",
)
def test_console_script_is_the_module(argv):
    assert CONSOLE_SCRIPT.exists(), "the package is not installed"
    script, module = start([CONSOLE_SCRIPT, *argv]), start([*MODULE, *argv])
    assert (script.returncode, script.stdout, script.stderr) == (
        module.returncode,
        module.stdout,
        module.stderr,
    )


@pytest.mark.parametrize("argv", [["--help"], ["--epochs", "x"]], ids=" ".join)
def test_train_module_is_the_command(argv):
    module = start([sys.executable, "-m", "tal1_hvd.train", *argv])
    command = start([*MODULE, "train", *argv])
    assert (module.returncode, module.stdout, module.stderr) == (
        command.returncode,
        command.stdout,
        command.stderr,
    )


@pytest.fixture
def closed_pipe():
    """Return the writing end of a pipe that nobody reads, as after ``| head`` has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], ["train", "--help"], "export"],
    ids=["--help", "--version", "train --help", "export"],
)
def test_nobody_reads_the_output(closed_pipe, small_data, tmp_path, argv):
    if argv == "export":
        argv = ["export", "--data", small_data, "--out", tmp_path / "all.fa"]
    ended = start([*MODULE, *argv], stdout=closed_pipe)
    assert ended.stderr == ""
    assert ended.returncode in (0, 1)


def fault(text="some fault"):
    def run(args):
        raise RuntimeError(text)

    return run


def test_fault_shows_its_traceback_and_one_error_line(monkeypatch, capsys):
    monkeypatch.setattr(export_command, "run", fault("two\nlines"))
    assert call("export", "--data", "x", "--out", "y") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback")
    assert err.endswith("tal1-hvd: error: RuntimeError: two lines\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [("train --data nope", 2), ("simulate --out {out} --positives 20 --negatives 20", 0)],
    ids=["bad input", "good"],
)
@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path, command, code, closed):
    argv = [*MODULE, *command.format(out=tmp_path / "data").split()]
    ended = subprocess.run(
        ["sh", "-c", f"{shlex.join(argv)} {closed}"], capture_output=True, check=False
    )
    assert ended.returncode == code


def test_python_without_our_packages():
    """As where the environment was not activated."""
    package = Path(tal1_hvd.__file__).parents[1]
    code = (
        f"import sys; sys.path.append({str(package)!r}); from tal1_hvd.cli.main import main;"
        "sys.exit(main(['train']))"
    )
    ended = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"tal1-hvd: error: this Python ({sys.executable}) lacks ")
    assert "source .venv/bin/activate" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_interrupt(monkeypatch, capsys):
    def run(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(export_command, "run", run)
    assert call("export", "--data", "x", "--out", "y") == 130
    assert capsys.readouterr() == ("", "tal1-hvd: error: interrupted\n")


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0), ("7", 0)])
def test_bad_input_of_many_ranks_is_said_once(monkeypatch, capsys, rank, lines):
    monkeypatch.setenv("HOROVOD_RANK", rank)
    assert call("train", "--epochs", "none") == 2
    assert capsys.readouterr().err.count("\n") == lines


def test_other_commands_of_many_processes_all_say_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("HOROVOD_RANK", "7")
    assert call("export", "--data", "nowhere", "--out", "y") == 2
    assert "nowhere" in capsys.readouterr().err


def in_shell(folder, before, words, after):
    """Run the command line in a shell, between other words of its."""
    command = f"{before} {shlex.join(map(str, [*MODULE, *words]))} {after}"
    return start(["bash", "-c", command], cwd=folder)


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written(redirection, tmp_path):
    ended = in_shell(tmp_path, "", ["--version"], redirection)
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("\n") <= 1


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("export --data {data} --out all.fa", []),
        ("simulate --out d --length 1500 --positives 300 --negatives 300", []),
        ("train --data {data} --out r --epochs 1 --batch-size 16", ["r"]),
    ],
)
def test_no_room(command, left, small_data, tmp_path):
    """Files of more than 5 KiB cannot be written, as on a full disk."""
    ended = in_shell(tmp_path, "ulimit -f 5;", command.format(data=small_data).split(), "")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "cannot be written: File too large" in ended.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == left
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name]


def test_closed_input(tmp_path):
    words = ["import", "--positives", "-", "--negatives", "-", "--out", "x"]
    ended = in_shell(tmp_path, "", words, "<&-")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1


def test_arguments_of_the_process_by_default(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tal1-hvd", "fly"])
    assert main() == 2
    assert "'fly'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["one line", "two\nlines", "tabs\tand \r\n  blanks ", ""])
def test_report_is_one_line(capsys, text):
    report(text)
    assert capsys.readouterr() == ("", f"tal1-hvd: error: {' '.join(text.split())}\n")


class TestCounting:
    def test_nothing_without_a_terminal(self, capsys):
        with cli_progress.counting("counting", 10, "things") as advance:
            advance(10)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("total", [10, None])
    def test_bar_on_a_terminal_goes_to_stderr(self, monkeypatch, capsys, total):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        with cli_progress.counting("counting", total, "things") as advance:
            advance(4)
            advance(6)
        out, err = capsys.readouterr()
        assert out == ""
        assert "counting" in err
        assert "10 things" in err

    def test_errors_pass(self):
        with pytest.raises(InputError), cli_progress.counting("counting", 1, "things"):
            raise InputError("bad")


def test_error_cannot_steer_the_terminal(tmp_path, capsys):
    motif = tmp_path / "m"
    motif.write_text("MEME version 4\nALPHABET= \x1b[2J\x07\nMOTIF a\n")
    assert call("simulate", "--out", tmp_path / "new", "--motif-file", motif) == 2
    assert "its alphabet is ?[2J?, ACGT is needed" in capsys.readouterr().err


def test_paths_cannot_steer_the_terminal(small_data, tmp_path, capsys, tensorflow_as_it_is):
    run = tmp_path / "\x1b[31mred"
    assert call("train", "--data", small_data, "--out", run, "--epochs", 1) == 0
    assert call("status", run) == 0
    captured = capsys.readouterr()
    assert "/?[31mred: finished" in captured.out
    assert "run folder " in captured.err
    assert "\x1b" not in captured.out + captured.err
