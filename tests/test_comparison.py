"""Comparisons from results made up here: plan, folder, table, page."""

from __future__ import annotations

import csv
import json
import os
import signal
from itertools import cycle
from unittest.mock import Mock

import numpy as np
import pytest

from tal1_hvd.cli import compare
from tal1_hvd.comparison import run
from tal1_hvd.comparison.matrix import Cell, Way, make_matrix
from tal1_hvd.comparison.results import COLUMNS, Outcome, find, read_outcomes, shares, write_csv
from tal1_hvd.comparison.run import Folder, Plan, train_all
from tal1_hvd.errors import InputError
from tal1_hvd.published import TARGET_ACCURACY
from tal1_hvd.training.run_folder import RunFolder
from tests.commands import call
from tests.helpers import refused


def make_plan(**changes):
    machine = {"processor": "Abacus 1000", "cores": 2}
    what = {"data": "here", "fingerprint": "f", "seeds": 2, "epochs": 2, "ranks": (2, 4)}
    return Plan(**{**machine, **what, **changes})


PLAN = make_plan()
HISTORY = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")


def outcome(way, seed=0, seconds=(1.0, 2.0), accuracies=(0.9, 0.97), published=True, more=False):
    history = {name: np.array([0.6, 0.5]) for name in HISTORY}
    history |= {
        "seconds": np.array(seconds),
        "validation_accuracy": np.array(accuracies),
        "examples_per_second": np.array([100.0, 300.0]) * way.ranks,
    }
    scores = {"accuracy": accuracies[-1], "loss": 0.1, "auroc": 0.99, "auprc": 0.98}
    metrics = {
        "test": scores,
        "validation": scores,
        "train_seconds": 2 * sum(seconds),
        "strategy": way.changes.get("strategy", "horovod"),
        "model": "paper",
        "world_size": way.ranks,
        "global_batch_size": way.global_batch,
        "bytes_per_step": 100,
    }
    return Outcome(Cell(way, seed), metrics, history, published, more)


def step(**changes):
    parts = {"first_layer": 300, "other_compute": 100, "all_reduce": 50, "input": 50, **changes}
    return {"step": sum(parts.values()), **parts}


class TestPlan:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"seeds": 0}, "--seeds: must lie between 1 and 1,000, got 0"),
            ({"epochs": -1}, "--epochs: must lie between 1 and 1,000,000, got -1"),
            ({"seeds": 10**10}, "--seeds: must lie between"),
            ({"ranks": ()}, "--ranks: expected numbers of at least 2, each larger than the one"),
            ({"ranks": (1, 2)}, "got 1 2"),
            ({"ranks": (4, 2)}, "got 4 2"),
            ({"ranks": (2, 2)}, "got 2 2"),
        ],
    )
    def test_refused(self, changes, words):
        with refused(words):
            make_plan(**changes)


class TestFolder:
    def test_goes_on_with_its_own(self, tmp_path):
        folder = Folder.open(tmp_path / "new", PLAN)
        (folder.path / "runs" / "kept").mkdir()
        assert Folder.open(tmp_path / "new", PLAN) == folder
        assert (folder.path / "runs" / "kept").exists()

    def test_holds_another(self, tmp_path):
        Folder.open(tmp_path / "new", PLAN)
        for other, said in (
            ({"epochs": 3}, "epochs 2 there, 3 here"),
            ({"fingerprint": "g"}, "fingerprint f there, g here"),
            ({"cores": 3}, "cores 2 there, 3 here"),
        ):
            with refused("holds another comparison", said, "another --out"):
                Folder.open(tmp_path / "new", make_plan(**other))

    def test_is_taken_by_one(self, tmp_path):
        folder = Folder.open(tmp_path / "new", PLAN)
        with folder.lock(), refused("another process is comparing into it"):
            Folder.open(tmp_path / "new", PLAN).lock()
        with folder.lock():
            pass

    def test_holds_something_else(self, tmp_path):
        (tmp_path / "file").touch()
        with refused(tmp_path, "exists already"):
            Folder.open(tmp_path, PLAN)

    def test_damaged(self, tmp_path):
        (tmp_path / "plan.json").write_text("{")
        with refused("plan.json: cannot be read"):
            Folder.open(tmp_path, PLAN)


@pytest.fixture
def trainings(monkeypatch):
    """Return the flags of trainings, which leave metrics and nothing else."""
    given = []

    def train(flags, log, cell):
        given.append(flags)
        (out,) = (flag.partition("=")[2] for flag in flags if flag.startswith("--out="))
        metrics = {"test": None, "train_seconds": 1.0}
        folder = run.Path(out)
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(metrics))

    # Steps of 500, 600, 700, 500, ... microseconds.
    noise = cycle((0, 100, 200))
    monkeypatch.setattr(run, "_train", train)
    monkeypatch.setattr(run, "break_down", lambda settings, ranks: step(input=50 + next(noise)))
    return given


class TestTraining:
    def test_each_cell_once(self, tmp_path, trainings):
        folder = Folder.open(tmp_path / "new", PLAN)
        told = []
        train_all(PLAN, folder, told.append)
        cells = PLAN.matrix.cells(2)
        assert len(trainings) == len(cells)
        assert trainings[1] == [
            "--strategy=horovod",
            "--ranks=2",
            "--data=here",
            "--seed=0",
            "--epochs=2",
            f"--out={folder.path}/runs/horovod-2-seed0",
            "--resume",
        ]
        assert told[0] == "1/37  single process, 1 rank, seed 0: accuracy -, 1.0 s"
        assert told[-1] == "37/37  one step of model-parallel, 2 ranks: 600 µs"

    def test_goes_on(self, tmp_path, trainings):
        folder = Folder.open(tmp_path / "new", PLAN)
        train_all(PLAN, folder, lambda text: None)
        (folder.path / "runs" / "gossip-2-seed1" / "metrics.json").unlink()
        (folder.path / "runs" / "gossip-2-seed1").rmdir()
        trainings.clear()
        told = []
        train_all(PLAN, folder, told.append)
        assert [flags[-2] for flags in trainings] == [f"--out={folder.path}/runs/gossip-2-seed1"]
        assert sum("done before" in text for text in told) == 25
        assert not any("one step" in text for text in told)


def test_a_large_batch_may_diverge_but_not_fail(tmp_path, trainings, monkeypatch):
    plan = make_plan(seeds=1, ranks=(2,), large_batch=True)
    folder, told = Folder.open(tmp_path / "new", plan), []
    train = run._train

    def fail(words):
        def train_or_fail(flags, log, cell):
            if cell.way.label.startswith("LARS"):
                raise InputError(words)
            train(flags, log, cell)

        monkeypatch.setattr(run, "_train", train_or_fail)

    fail("--learning-rate: the loss is not finite any more in epoch 3")
    train_all(plan, folder, told.append)
    assert sum("the loss is not finite" in text for text in told) == 4
    fail("another process is training into it")
    with refused("another process"):
        train_all(plan, folder, told.append)


def test_waits_for_ranks_that_are_about_to_end(tmp_path, monkeypatch):
    run_folder = RunFolder(tmp_path)
    locks = [run_folder.lock()]

    def release(seconds):
        locks.pop().__exit__(None, None, None)

    with locks[0]:
        monkeypatch.setattr(run.time, "sleep", release)
        run._wait_until_free(run_folder)
    assert not locks
    run._wait_until_free(RunFolder(tmp_path / "nothing yet"))


def test_terminated(small_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "find_launcher", lambda count: [])
    monkeypatch.setattr(compare, "train_all", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    flags = ("--quick", "--epochs", 1, "--data", small_data, "--out", tmp_path / "new")
    assert call("compare", *flags) == 130
    assert capsys.readouterr().err.endswith("interrupted; go on with: the same command\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_interrupted(small_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "find_launcher", lambda count: [])
    monkeypatch.setattr(compare, "train_all", Mock(side_effect=KeyboardInterrupt))
    flags = ("--quick", "--epochs", 1, "--data", small_data, "--out", tmp_path / "new")
    assert call("compare", *flags) == 130
    assert capsys.readouterr().err.endswith("interrupted; go on with: the same command\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("nothing else"), "tal1-hvd: error: nothing else\n"),
        (RecursionError("deep"), "its files were changed, or are of another version: Recursion"),
        (AttributeError("get"), "its files were changed, or are of another version: Attribute"),
        (KeyError("auroc"), "its files were changed, or are of another version: KeyError('auroc')"),
    ],
)
def test_damaged(small_data, tmp_path, monkeypatch, capsys, error, words):
    monkeypatch.setattr(compare, "find_launcher", lambda count: [])
    monkeypatch.setattr(compare, "train_all", Mock(side_effect=error))
    flags = ("--quick", "--epochs", 1, "--data", small_data, "--out", tmp_path / "new")
    assert call("compare", *flags) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


class TestTrainingThatFails:
    CELL = Cell(Way("way", 2), 3)

    def test_bad_input_is_said_in_a_line(self, tmp_path):
        with refused("way, 2 ranks, seed 3: exit code 2", tmp_path / "log", "nowhere: no such"):
            run._train(["--data=nowhere", f"--out={tmp_path}/out"], tmp_path / "log", self.CELL)
        assert "nowhere: no such" in (tmp_path / "log").read_text()

    def test_fault(self, tmp_path, monkeypatch):
        monkeypatch.setattr(run.sys, "executable", "false")
        with pytest.raises(RuntimeError, match="way, 2 ranks, seed 3: exit code 1"):
            run._train([], tmp_path / "log", self.CELL)


class TestOutcome:
    WAY = make_matrix([2]).strategies[1]

    def test_checkpoints_are_shared_out(self):
        assert outcome(self.WAY).elapsed.tolist() == [2, 6]

    @pytest.mark.parametrize(
        ("accuracies", "seconds"),
        [((0.9, TARGET_ACCURACY), 6), ((TARGET_ACCURACY, 0.9), 2), ((0.9, 0.95), None)],
    )
    def test_time_to_target(self, accuracies, seconds):
        assert outcome(self.WAY, accuracies=accuracies).seconds_to_target == seconds

    def test_validation_where_there_is_no_test_split(self):
        found = outcome(self.WAY)
        assert (found.split, found.score) == ("test", found.metrics["test"])
        found.metrics["test"] = None
        assert (found.split, found.score) == ("validation", found.metrics["validation"])


def test_csv(tmp_path):
    matrix = make_matrix([2, 4])
    outcomes = [outcome(cell.way, cell.seed) for cell in matrix.cells(2)]
    write_csv(outcomes, tmp_path / "compare.csv")
    with (tmp_path / "compare.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert tuple(rows[0]) == COLUMNS
    assert all(value for row in rows for value in row.values())
    # One line a way and seed: the same batch a rank for all.
    assert len(rows) == 2 * len(matrix.strategies)
    assert [row["strategy"] for row in rows[:4]] == ["single", "horovod", "mirrored", "multiworker"]
    server = rows[[row["aggregation"] for row in rows].index("parameter-server (staleness 4)")]
    assert (server["world_size"], server["oversubscribed"]) == ("2", "false")


def test_outcomes_are_read(tmp_path):
    folder = Folder.open(tmp_path / "new", PLAN)
    for cell in PLAN.matrix.cells(2):
        made = folder.run(cell).path
        made.mkdir()
        settings = cell.way.settings("here", cell.seed, 2)
        (made / "config.yaml").write_text(settings.to_yaml(cell.way.ranks))
        (made / "metrics.json").write_text(json.dumps(outcome(cell.way).metrics))
        dataset = {"path": "p", "fingerprint": "f", "parameters": {}}
        (made / "manifest.json").write_text(json.dumps({"dataset": dataset}))
        (made / "history.csv").write_text("seconds,validation_accuracy\n1,0.5\n2,\n")
    found = read_outcomes(PLAN, folder)
    assert [o.cell for o in found] == PLAN.matrix.cells(2)
    assert {o.cell.way.ranks for o in found if o.oversubscribed} == {4}
    assert found[0].history["seconds"].tolist() == [1, 2]
    assert np.isnan(found[0].history["validation_accuracy"][1])
    assert not any(o.published_data for o in found)
    other, own = (folder.run(PLAN.matrix.cells(2)[i]) for i in (-1, 0))
    own.config.write_bytes(other.config.read_bytes())
    with refused("not the run of single process, 1 rank, seed 0 (batch_size, "):
        read_outcomes(PLAN, folder)


def test_titles():
    assert Way("way", 1).title == "way, 1 rank"
    assert Way("way", 2).title == "way, 2 ranks"
    assert Way("way", 1, {"batch_size": 4096}).title == "way, 1 rank, batch 4,096"
    assert Way("way", 2, {"batch_size": 32}).title == "way, 2 ranks, batch 32 a rank"


def test_findings():
    way = Way("way", 2)
    outcomes = [outcome(way, 0), outcome(way, 1, seconds=(2.0, 2.0), accuracies=(0.9, 0.95))]
    (finding,) = find(outcomes, [way])
    assert finding.mean("accuracy") == pytest.approx(0.96)
    assert (finding.seconds, finding.rate) == (7, 400)
    assert finding.seconds_to_target == (6.0, 1)
    assert find(outcomes[1:], [way])[0].seconds_to_target == (None, 0)
    assert finding.title == "way, 2 ranks"
    outcomes[1].score["auroc"] = None
    assert finding.mean("auroc") is None


def test_shares():
    """Parts measured apart can add up to more than the step."""
    assert shares(step(step=1)) == pytest.approx(
        {"first_layer": 0.6, "other_compute": 0.2, "all_reduce": 0.1, "input": 0.1}
    )
