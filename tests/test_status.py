"""What is told of a run from outside, by its event file."""

from __future__ import annotations

import json
import os
import platform

import pytest

from tal1_hvd.errors import InputError
from tal1_hvd.machine import process_began, process_namespace
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import TrainSettings
from tal1_hvd.training.status import read_status
from tests.commands import call

NOW = 1000.0
HERE = {
    "event": "session",
    "host": platform.node(),
    "process": os.getpid(),
    "began": process_began(os.getpid()),
    "namespace": process_namespace(),
    "model": "paper",
    "strategy": "horovod",
    "world_size": 2,
    "global_batch_size": 128,
    "ranks": [
        {"rank": rank, "host": "n1", "process": 7 + rank, "device": "CPU"} for rank in (0, 1)
    ],
}
START = {"event": "start", "epochs": 50, "done": 0, "examples": 100}
EPOCH = {
    "event": "epoch",
    "epoch": 4,
    "train_loss": 0.5,
    "validation_loss": 0.25,
    "validation_accuracy": 0.75,
    "validation_auroc": 0.875,
    "examples_per_second": 12345.6,
    "seconds": 10.0,
}
RANKS = {
    "event": "ranks",
    "ranks": [
        {
            "rank": rank,
            "steps": 100,
            "seconds": 2.0,
            "waited": 0.5,
            "memory": 600_000_000,
            "device_memory": 0,
        }
        for rank in (0, 1)
    ],
}
PROGRESS = {"event": "progress", "epoch": 5, "examples": 50}
CHECKPOINT = {"event": "checkpoint", "epoch": 3, "examples": 20, "seconds": 0.1}


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", TrainSettings(), 2)


def write(folder, *events):
    lines = (json.dumps({"time": NOW - 3, **event}) + "\n" for event in events)
    folder.events.write_text("".join(lines))
    return read_status(folder, NOW)


class TestState:
    def test_not_begun(self, folder):
        status = read_status(folder, NOW)
        assert (status.state, status.why, status.epoch, status.ranks) == ("not begun", "", 0, [])

    def test_finished_before_there_were_events(self, folder):
        folder.metrics.touch()
        assert read_status(folder, NOW).state == "finished"

    def test_training(self, folder):
        status = write(folder, HERE, START, EPOCH, RANKS, CHECKPOINT, PROGRESS)
        assert (status.state, status.why) == ("training", "")
        assert (status.epoch, status.epochs) == (4, 50)
        assert (status.examples, status.epoch_examples) == (50, 100)
        # 45.5 epochs of 10 seconds.
        assert status.seconds_left == pytest.approx(455.0)
        assert status.checkpoint["epoch"] == 3
        assert status.ranks[1] == {**HERE["ranks"][1], **RANKS["ranks"][1]}

    def test_starting(self, folder):
        status = write(folder, HERE)
        assert (status.state, status.seconds_left) == ("starting", None)

    @pytest.mark.parametrize(
        ("event", "state", "why"),
        [
            ({"event": "stopped", "text": "2 epochs"}, "stopped", "2 epochs"),
            ({"event": "failed", "text": "OSError: no"}, "failed", "OSError: no"),
            ({"event": "left"}, "starting", "ranks have come or gone, and meet again"),
        ],
    )
    def test_ends(self, folder, event, state, why):
        status = write(folder, HERE, START, EPOCH, event)
        assert (status.state, status.why, status.seconds_left) == (state, why, None)

    def test_goes_on_after_an_end(self, folder):
        """What a session told of its end and its ranks is past when another begins."""
        again = write(folder, HERE, START, EPOCH, RANKS, CHECKPOINT, {"event": "stopped"}, HERE)
        assert (again.state, again.epoch, again.checkpoint["epoch"]) == ("starting", 4, 3)
        assert again.ranks == HERE["ranks"]

    @pytest.mark.parametrize("change", [{"began": 1}, {"process": 2**22 + 1}])
    def test_killed(self, folder, change):
        """Its process is gone, or another one has its number."""
        gone = {**HERE, **change}
        status = write(folder, gone, START, EPOCH)
        assert status.state == "killed"
        assert status.why == f"process {gone['process']} of rank 0 is gone; logs/ may say why"

    def test_killed_while_ranks_meet_again(self, folder):
        assert write(folder, {**HERE, "began": 1}, START, {"event": "left"}).state == "killed"

    def test_finished_if_its_metrics_are_there(self, folder):
        """Whatever could not be written after them."""
        folder.metrics.touch()
        assert write(folder, {**HERE, "began": 1}, START, EPOCH).state == "finished"

    def test_in_a_container(self, folder):
        """Its numbers of processes mean others here, so they are not looked up."""
        inside = {**HERE, "namespace": "pid:[7]", "began": 1}
        assert write(folder, inside, START, EPOCH).state == "training"

    def test_epochs_that_were_lost(self, folder):
        """A killed session had gone further than the checkpoint that the next began from."""
        again = {**START, "done": 2}
        progress = {"event": "progress", "epoch": 3, "examples": 10}
        status = write(folder, HERE, START, EPOCH, HERE, again, progress)
        assert (status.epoch, status.examples, status.row) == (2, 10, {})

    def test_another_machine(self, folder):
        there = {**HERE, "host": "elsewhere"}
        assert write(folder, there, START, {**EPOCH, "time": NOW - 59}).state == "training"
        silent = write(folder, {**there, "time": 1}, {**START, "time": NOW - 61})
        assert silent.state == "silent"
        assert silent.why == "no sign of life for 61 s from elsewhere, which is not here"
        folder.heartbeats.mkdir()
        (folder.heartbeats / "rank-1").touch()
        os.utime(folder.heartbeats / "rank-1", (NOW - 2, NOW - 2))
        assert read_status(folder, NOW).state == "training"


class TestDamage:
    def test_no_run(self, tmp_path):
        with pytest.raises(InputError, match="nowhere: no such run folder"):
            read_status(RunFolder(tmp_path / "nowhere"), NOW)
        with pytest.raises(InputError, match="not a run folder: it has no config"):
            read_status(RunFolder(tmp_path), NOW)

    @pytest.mark.parametrize(
        "strange",
        [
            {**EPOCH, "train_loss": "x"},
            {**EPOCH, "train_loss": 10**400},
            {**EPOCH, "epoch": "\x1b[2J"},
            {key: value for key, value in EPOCH.items() if key != "epoch"},
            {key: value for key, value in EPOCH.items() if key != "validation_auroc"},
            {"event": "epoch"},
            {**RANKS, "ranks": [7, {"rank": "x"}]},
            {**RANKS, "ranks": "x"},
            {**RANKS, "ranks": [{"rank": 0, "seconds": "x"}]},
            {**START, "done": 1e999},
            {**CHECKPOINT, "epoch": "\x1b[31m", "time": "x"},
            {**PROGRESS, "examples": None},
            {**HERE, "ranks": None, "process": "x"},
            {**HERE, "ranks": [{"rank": 0, "host": "[red]\x1b[31m"}]},
            {"event": ["x"]},
        ],
    )
    def test_events_that_nobody_wrote(self, folder, strange, capsys):
        write(folder, HERE, START, EPOCH, RANKS, CHECKPOINT, strange)
        assert call("status", folder.path) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert "\x1b" not in out


class TestCommand:
    def test_a_run_that_trains(self, folder, capsys, monkeypatch):
        monkeypatch.setattr("tal1_hvd.cli.status.time.time", lambda: NOW)
        write(folder, HERE, START, EPOCH, RANKS, CHECKPOINT, PROGRESS)
        assert call("status", folder.path) == 0
        out, err = capsys.readouterr()
        assert err == ""
        lines = [" ".join(line.split()) for line in out.splitlines() if line.strip(" ─")]
        assert lines == [
            f"{folder.path}: training; epoch 4 of 50 done, 50% of the next; about 7 min left",
            "model paper, strategy horovod, world size 2, global batch size 128",
            "epoch 4/50 loss 0.5000 validation loss 0.2500 accuracy 0.7500 auROC 0.8750 "
            "12,346 examples/s",
            "last checkpoint after epoch 3 and 20 examples, 3 s ago",
            "rank host process device a step waiting memory GPU memory",
            "0 n1 7 CPU 20.00 ms 25% 600 MB -",
            "1 n1 8 CPU 20.00 ms 25% 600 MB -",
        ]

    def test_json(self, folder, capsys):
        write(folder, HERE, START, EPOCH)
        assert call("status", folder.path, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["state"] == "training"
        assert found["row"]["validation_loss"] == 0.25
        assert found["session"]["world_size"] == 2

    def test_bad_input(self, tmp_path, capsys):
        assert call("status", tmp_path / "nowhere") == 2
        assert capsys.readouterr().err.endswith("nowhere: no such run folder\n")
