"""The command line from end to end: help, version, exit codes, pipes, every command once."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tal1_hvd import __version__
from tal1_hvd.cli import export as export_command
from tal1_hvd.cli import progress as cli_progress
from tal1_hvd.cli.errors import report
from tal1_hvd.cli.main import COMMANDS, main
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.encoding import decode
from tal1_hvd.errors import InputError
from tal1_hvd.models.dna_conv_pool import why_not_compiled
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.training import session
from tal1_hvd.training.settings import TrainSettings

CONSOLE_SCRIPT = Path(sys.executable).with_name("tal1-hvd")
MODULE = [sys.executable, "-m", "tal1_hvd"]


@pytest.fixture(scope="module", autouse=True)
def tensorflow_as_it_is():
    """Train without setting TensorFlow up, which a process can do once, before all other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "start_tensorflow", lambda threads, local_rank: "CPU")
        yield


def call(*words):
    """Run a command in this process; exits asked for by argparse count as its return value."""
    try:
        return main([str(word) for word in words])
    except SystemExit as stopped:
        return stopped.code


def start(command, **options):
    """Run a command as a process of its own, buffered as for users, in 80 columns."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    environment["COLUMNS"] = "80"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        [str(word) for word in command],
        text=True,
        check=False,
        timeout=120,
        env=environment,
        **options,
    )


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


def flag(name):
    return {"motifs": "--motif"}.get(name, f"--{name.replace('_', '-')}")


def shown(value):
    return " ".join(value) if isinstance(value, tuple) else str(value)


def expected_defaults(settings):
    return {
        flag(name): f"(default: {shown(value)})"
        for name, value in vars(settings).items()
        if value is not None
    }


# What each command's help must say of each of its options: a default, or that there is none.
OPTIONS = {
    "simulate": expected_defaults(SimulationSettings())
    | {"--out": "", "--motif-file": "", "--jobs": "(default: one a core)"},
    "import": {
        "--out": "",
        "--positives": "",
        "--negatives": "",
        "--negatives-per-positive": "(default: 1)",
        "--length": "",
        "--split": "(default: random)",
        "--test-chroms": "",
        "--valid-chroms": "",
        "--label": "",
        "--seed": "(default: 0)",
    },
    "export": {"--data": "", "--out": "", "--split": "(default: all)"},
    "train": expected_defaults(TrainSettings())
    | {
        "--data": "(default: the default simulated dataset",
        "--out": "(default: a new one under runs/)",
        "--resume": "",
        "--ranks": "",
        "--threads": "(default: 1 among several ranks, one a core alone)",
        "--patience": "(default: never)",
    },
    "evaluate": {
        "--run": "",
        "--data": "",
        "--split": "(default: test)",
        "--both-strands": "",
        "--seed": "(default: 0)",
        "--json": "",
    },
    "predict": {
        "--run": "",
        "--out": "(default: -)",
        "--on-length": "(default: error)",
        "--both-strands": "",
    },
    "benchmark": {
        "--data": "(default: the default simulated dataset",
        "--out": "(default: none)",
        "--epochs": "(default: 60)",
        "--less": "(default: 10)",
        "--repeats": "(default: 3)",
        "--seed": "(default: 0)",
        "--ranks": "(default: auto)",
    },
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_with_its_default(capsys, name):
    assert call(name, "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"usage: tal1-hvd {name} [-h]")
    _, *entries = re.split(r"^  (?=--)", out.partition("\noptions:\n")[2], flags=re.MULTILINE)
    described = {entry.split()[0]: " ".join(entry.split()) for entry in entries}
    assert described.pop("--config") == (
        "--config FILE YAML file with options, named as the flags are"
    )
    assert set(described) == set(OPTIONS[name])
    for option, default in OPTIONS[name].items():
        assert default in described[option]
        assert default or "(default" not in described[option]


def test_help_imports_nothing_heavy():
    """Help must come at once: neither it nor the version nor the package import TensorFlow."""
    code = f"""
import sys, contextlib, io
import tal1_hvd
from tal1_hvd.cli.main import main
from tal1_hvd.training import session
for argv in [["--version"], ["--help"], []] + [[name, "--help"] for name in {list(COMMANDS)}]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(argv)
heavy = {{"tensorflow", "keras", "horovod", "simdna", "sklearn", "scipy", "Bio", "rich.progress"}}
print(sorted(heavy & set(sys.modules)))
"""
    found = start([sys.executable, "-c", code])
    assert (found.stdout, found.stderr) == ("[]\n", "")


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


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """Simulate, and train as a process of its own; return the folder and the ended process."""
    folder = tmp_path_factory.mktemp("flow")
    size = ["--positives", 200, "--negatives", 200, "--length", 120, "--center", 80]
    assert call("simulate", "--out", folder / "data", "--jobs", 1, *size) == 0
    train = ["train", "--data", "data", "--out", "run", "--epochs", 2]
    ended = start([*MODULE, *train], cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder, ended


@pytest.fixture
def here(flow, monkeypatch):
    """Stand in that folder."""
    monkeypatch.chdir(flow[0])


def test_train_says_what_it_does(flow):
    ended = flow[1]
    # These lines alone: whatever TensorFlow itself has to say stays away.
    first, *epochs = ended.stderr.splitlines()
    if why_not_compiled() is not None:
        assert why_not_compiled() in epochs.pop(0)
    assert re.fullmatch(
        r"tal1-hvd: training paper on 280 sequences of 120 bp: 1 rank, .+, "
        r"global batch 64; run folder run",
        first,
    )
    assert [line.split("  ")[0] for line in epochs] == [
        "tal1-hvd: epoch 1/2",
        "tal1-hvd: epoch 2/2",
    ]
    assert ended.stdout.endswith("run folder: run\n")
    assert "test accuracy" in ended.stdout
    assert "\x1b" not in ended.stdout + ended.stderr


@pytest.mark.usefixtures("here")
def test_files_of_a_run():
    assert {path.name for path in Path("run").iterdir() if not path.name.startswith(".")} == {
        "checkpoints",
        "config.yaml",
        "history.csv",
        "manifest.json",
        "metrics.json",
        "model.keras",
        "predictions.tsv",
        "tensorboard",
    }
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert set(metrics) >= {
        "train",
        "validation",
        "test",
        "train_seconds",
        "epochs",
        "examples_per_second",
        "world_size",
        "global_batch_size",
        "strategy",
        "model",
    }
    assert [metrics[split]["n"] for split in ("train", "validation", "test")] == [280, 80, 40]
    with Path("run/history.csv").open() as handle:
        assert [row["epoch"] for row in csv.DictReader(handle)] == ["1", "2"]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_configuration_of_a_run_repeats_it(tmp_path):
    again = tmp_path / "again"
    ended = start([*MODULE, "train", "--config", "run/config.yaml", "--out", again])
    assert ended.returncode == 0
    assert f"run folder: {again}\n" in ended.stdout
    for name in ("predictions.tsv", "config.yaml"):
        assert (again / name).read_bytes() == Path("run", name).read_bytes()


@pytest.mark.usefixtures("here")
def test_training_is_named_after_itself_by_default(tmp_path, monkeypatch, capsys):
    data = Path("data").resolve()
    monkeypatch.chdir(tmp_path)
    assert call("train", "--data", data, "--epochs", 1, "--seed", 3, "--ranks", 1) == 0
    (run,) = Path("runs").iterdir()
    assert re.fullmatch(r"paper-seed3-\d{8}-\d{6}", run.name)
    assert f"run folder: {run}" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_resuming_a_finished_run_changes_no_result(capsys):
    files = [Path("run") / name for name in ("metrics.json", "model.keras", "history.csv")]
    before = [path.read_bytes() for path in files]
    assert call("train", "--out", "run", "--resume") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert [path.read_bytes() for path in files] == before


@pytest.mark.usefixtures("here")
def test_import_of_an_export_has_the_same_sequences(tmp_path, capsys):
    dataset = open_dataset("data")
    for name, label in (("p", 1), ("n", 0)):
        rows = np.flatnonzero(dataset.labels == label)
        records = [f">{name}{row}\n{decode(dataset.sequences[row])}\n" for row in rows]
        (tmp_path / f"{name}.fa").write_text("".join(records))
    out = tmp_path / "imported"
    files = ["--positives", tmp_path / "p.fa", "--negatives", tmp_path / "n.fa"]
    assert call("import", "--out", out, *files) == 0
    assert capsys.readouterr().out == (
        f"{out}: 200 positives and 200 negatives of 120 bp (280 train, 80 validation, 40 test)\n"
    )
    np.testing.assert_array_equal(open_dataset(out).sequences, dataset.sequences)
    assert call("export", "--data", out, "--split", "test", "--out", tmp_path / "t.fa") == 0
    assert capsys.readouterr().out == f"{tmp_path / 't.fa'}: 40 sequences\n"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("seed", [2**32, 2**64])
def test_large_seeds(tmp_path, seed):
    few = ["--positives", 20, "--negatives", 20, "--length", 100, "--center", 80, "--jobs", 1]
    (tmp_path / "p.fa").write_text("".join(f">p{i}\n{'ACGT' * 5}\n" for i in range(10)))
    shuffle = ["--positives", tmp_path / "p.fa", "--negatives", "dinucleotide-shuffle"]
    for name, *words in (
        ["simulate", "--out", tmp_path / "simulated", *few],
        ["import", "--out", tmp_path / "imported", *shuffle],
        ["train", "--data", "data", "--out", tmp_path / "run", "--epochs", 1],
        ["evaluate", "--data", "data", "--run", tmp_path / "run"],
    ):
        assert call(name, *words, "--seed", seed) == 0


@pytest.mark.usefixtures("here")
def test_training_that_diverges_is_no_traceback(tmp_path, capsys):
    run = tmp_path / "run"
    code = call("train", "--data", "data", "--out", run, "--epochs", 2, "--learning-rate", "1e30")
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if code == 0:
        text = (run / "metrics.json").read_text()
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    else:
        assert err.splitlines()[-1].startswith("tal1-hvd: error: ")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_reader_of_predictions_goes_away(tmp_path):
    """``predict ... | head -1`` shows one line, and no traceback."""
    record = f">a\n{'ACGT' * 30}\n"
    (tmp_path / "many.fa").write_text(record * 20_000)
    command = [*MODULE, "predict", "--run", "run", str(tmp_path / "many.fa")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as job:
        assert job.stdout.readline() == "id\tstart\tend\tstrand\tscore\n"
        job.stdout.close()
        assert job.stderr.read() == ""
    assert job.returncode in (0, 1)
