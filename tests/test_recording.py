"""What a session leaves for those who look on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.training.event_log import read_events
from tal1_hvd.training.interruptions import Left, RanksChanged, Stopped
from tal1_hvd.training.meeting import Meeting
from tal1_hvd.training.recording import recorded
from tal1_hvd.training.reporters import Silent
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import TrainSettings
from tal1_hvd.training.status import read_status
from tests.sessions import EPOCHS, history


def test_events(trained):
    """What `status` and a user's own scripts read."""
    events = list(read_events(trained.events))
    kinds = [event["event"] for event in events]
    assert kinds[0] == "session"
    assert kinds.count("epoch") == kinds.count("ranks") == EPOCHS
    assert kinds.index("start") < kinds.index("epoch")
    assert "checkpoint" in kinds
    assert kinds[-1] == "finished"
    session = events[0]
    assert (session["process"], session["world_size"]) == (session["ranks"][0]["process"], 1)
    losses = [event["train_loss"] for event in events if event["event"] == "epoch"]
    assert losses == [float(row["train_loss"]) for row in history(trained)]
    for event in events:
        if event["event"] == "ranks":
            (usage,) = event["ranks"]
            assert usage["steps"] == 7
            assert usage["seconds"] > 0 == usage["waited"]
            assert usage["memory"] > 10_000_000
    status = read_status(trained, events[-1]["time"])
    assert (status.state, status.epoch, status.seconds_left) == ("finished", EPOCHS, None)


def test_log(trained):
    lines = (trained.logs / "rank-0.log").read_text().splitlines()
    assert " rank 0/1 " in lines[0]
    assert " INFO one of 1 ranks: " in lines[0]
    assert sum(" INFO epoch " in line for line in lines) == EPOCHS
    assert lines[-1].endswith(" INFO finished: all epochs are done")


@pytest.mark.parametrize(
    ("end", "event", "text"),
    [
        (Stopped("tal1-hvd train"), "stopped", "go on with: tal1-hvd train"),
        (KeyboardInterrupt(), "stopped", "interrupted"),
        (Left("tal1-hvd train"), "left", "ranks come or go"),
        (RanksChanged(), "left", "ranks come or go"),
        (ValueError("no [red]such"), "failed", "ValueError: no [red]such"),
    ],
)
def test_ends(end, event, text, tmp_path):
    """However a session ends, its last event and the end of its log say so."""
    place = {"rank": 0, "host": "n1", "process": 7}
    manifest = {"world_size": 1, "global_batch_size": 64, "strategy": "single", "ranks": [place]}
    plan = SimpleNamespace(goal=SimpleNamespace(settings=TrainSettings()))
    folder = RunFolder(tmp_path)
    meeting = Meeting(SingleProcess(), plan, manifest, "CPU", folder, Silent(), None, None)
    with pytest.raises(type(end)), recorded(meeting) as reporter:
        reporter.message("trains")
        raise end
    *_, message, last = read_events(folder.events)
    assert message["text"] == "trains"
    assert (last["event"], last["text"]) == (event, text)
    log = (folder.logs / "rank-0.log").read_text()
    assert f" {event}: {text}\n" in log
    assert ("Traceback" in log) == (event == "failed")
