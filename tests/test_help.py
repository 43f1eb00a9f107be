"""What each command's help says, and that it comes at once."""

from __future__ import annotations

import re
import sys

import pytest

from tal1_hvd.cli.main import COMMANDS
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.training.settings import TrainSettings
from tests.commands import call, start


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
        "--launcher": "(default: mpirun, on this machine)",
        "--threads": "(default: 1; with one rank, one a core)",
        "--patience": "(default: never)",
        "--staleness": "(default: synchronous)",
        "--elastic": "",
        "--fixed-global-batch": "",
        "--timeline": "",
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
    "compare": {
        "--out": "",
        "--quick": "",
        "--data": "(default: the default dataset simulated anew for each seed",
        "--seeds": "(default: 5)",
        "--epochs": "(default: 50)",
        "--ranks": "(default: 2 4)",
        "--large-batch": "",
    },
    "status": {"--json": ""},
    "report": {"--run": ""},
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
heavy = {{"tensorflow", "keras", "horovod", "simdna", "sklearn", "scipy", "Bio", "rich.progress",
    "matplotlib", "jinja2"}}
print(sorted(heavy & set(sys.modules)))
"""
    found = start([sys.executable, "-c", code])
    assert (found.stdout, found.stderr) == ("[]\n", "")
