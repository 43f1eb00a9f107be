"""Whatever is wrong with what the user gave: one line, exit code 2, and nothing left behind."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from tal1_hvd.cli import compare, launching
from tal1_hvd.training import plan
from tests.bad_data_cases import COMMAND_LINE, DATASETS, IMPORTS, SIMULATIONS
from tests.bad_input import (
    EVALUATE,
    EXPORT,
    IMPORT,
    PREDICT,
    RESUME,
    SHUFFLE,
    SIMULATE,
    TRAIN,
    contents,
    require_one_line,
    run_line,
)
from tests.bad_run_cases import COMPARISONS, MODELS, RESUMES, TRAININGS
from tests.commands import MODULE, start

pytestmark = pytest.mark.usefixtures("tensorflow_as_it_is")

CASES = [
    *COMMAND_LINE,
    *SIMULATIONS,
    *IMPORTS,
    *DATASETS,
    *TRAININGS,
    *COMPARISONS,
    *RESUMES,
    *MODELS,
]


@pytest.fixture
def here(good_inputs, tmp_path, monkeypatch):
    """Stand in a copy of the good inputs; starting ranks or simulating the default data fails."""

    def never(*args, **kwargs):
        raise AssertionError("bad input was not noticed before this")

    for name in ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launching, "launch_ranks", never)
    monkeypatch.setattr(plan, "cached_dataset", never)
    # What is wrong is found with and without Horovod.
    monkeypatch.setattr(compare, "find_launcher", lambda count: [])
    folder = tmp_path / "here"
    shutil.copytree(good_inputs, folder)
    monkeypatch.chdir(folder)
    return folder


def test_good_inputs_are_good(here):
    """What the bad inputs are made from works as it is."""
    commands = [SIMULATE, IMPORT, SHUFFLE, EXPORT, TRAIN, RESUME, EVALUATE, PREDICT]
    commands.append("train --data tiny --out new --epochs 1 --batch-size 8")
    for command in commands:
        code, _, err = run_line(command)
        assert code == 0, err
        if Path("new").is_dir():
            shutil.rmtree("new")
        Path("new").unlink(missing_ok=True)
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize(("command", "words", "prepare"), CASES)
def test_bad_input(here, command, words, prepare):
    prepare()
    before = contents(here.parent)
    code, out, err = run_line(command)
    require_one_line(code, out, err)
    for word in words:
        assert word in err
    assert contents(here.parent) == before


def test_run_that_another_process_trains(here):
    with FileLock(here / "run" / ".lock"):
        code, out, err = run_line(RESUME)
    require_one_line(code, out, err)
    assert "another process is training" in err


@pytest.mark.parametrize("name", ["no-horovod", "within-a-launcher"])
def test_ranks_that_cannot_be_started(here, monkeypatch, name):
    if name == "no-horovod":
        monkeypatch.undo()
        monkeypatch.chdir(here)
        monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
        words = ["--ranks", "Horovod"]
    else:
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
        words = ["--ranks", "launcher", "3"]
    before = contents(here)
    code, out, err = run_line(f"{TRAIN} --ranks 2")
    require_one_line(code, out, err)
    assert all(word in err for word in words)
    assert contents(here) == before


PROCESSES = (
    "unknown-command",
    "config-without-a-file",
    "unknown-motif",
    "positives-cut-gzip",
    "edited-labels",
    "more-ranks-than-examples",
    "resume-another-seed",
)


@pytest.mark.parametrize(
    ("command", "words", "prepare"), [case for case in CASES if case.id in PROCESSES]
)
def test_bad_input_of_a_process(here, command, words, prepare):
    prepare()
    before = contents(here.parent)
    ended = start([*MODULE, *shlex.split(command)])
    require_one_line(ended.returncode, ended.stdout, ended.stderr)
    assert all(word in ended.stderr for word in words)
    assert contents(here.parent) == before
