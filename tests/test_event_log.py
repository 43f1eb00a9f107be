"""The run's event file, as it is written and as it is read."""

from __future__ import annotations

import json
import os

import pytest

from tal1_hvd.errors import InputError
from tal1_hvd.training import event_log
from tal1_hvd.training.event_log import EventLog, read_events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestEventLog:
    def test_a_line_an_event(self, path):
        log = EventLog(path)
        log.message("trains\non\x1b[31m ü")
        log.start(5, 1, 100)
        log.epoch({"epoch": 2, "train_loss": 0.5})
        log.record("ranks", ranks=[{"rank": 0}])
        log.finish()
        found = events(path)
        times = [event.pop("time") for event in found]
        assert times == sorted(times)
        assert found == [
            {"event": "message", "text": "trains\non\x1b[31m ü"},
            {"event": "start", "epochs": 5, "done": 1, "examples": 100},
            {"event": "epoch", "epoch": 2, "train_loss": 0.5},
            {"event": "ranks", "ranks": [{"rank": 0}]},
        ]

    def test_progress_now_and_then(self, path, monkeypatch):
        """What a graph call does is counted, and told at most every 5 seconds."""
        clock = iter([0.0, 1.0, 5.5, 5.5, 6.0, 11.0, 11.0])
        monkeypatch.setattr(event_log.time, "monotonic", lambda: next(clock))
        log = EventLog(path)
        log.start(5, 1, 100)
        log.advance(10)
        log.advance(20)
        log.epoch({"epoch": 2})
        log.advance(7)
        log.advance(8)
        told = [event for event in events(path) if event["event"] == "progress"]
        assert [(event["epoch"], event["examples"]) for event in told] == [(2, 30), (3, 15)]

    def test_goes_on_after_a_line_that_was_cut(self, path):
        path.write_text('{"time": 1, "event": "start"}\n{"time": 2, "ev')
        EventLog(path).message("again")
        assert [event["event"] for event in read_events(path)] == ["start", "message"]

    def test_cannot_be_written(self, path):
        path.mkdir()
        with pytest.raises(InputError, match=r"events\.jsonl: cannot be written: Is a directory"):
            EventLog(path)

    def test_a_full_disk_does_not_end_training(self, path):
        log = EventLog(path)
        path.unlink()
        path.symlink_to("/dev/full")
        log.message("lost")
        path.unlink()
        log.message("room again")
        assert [event["text"] for event in events(path)] == ["room again"]


class TestReadEvents:
    def test_what_is_no_event_is_left_out(self, path):
        lines = [b"[]", b"{}", b'{"event": "x"}', b"\xff", b"", b"[" * 9999, b"NaN", b'{"time": 1']
        path.write_bytes(b"\n".join([*lines, b'{"time": 1, "event": "message"}']))
        assert list(read_events(path)) == [{"event": "x"}, {"time": 1, "event": "message"}]

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
    def test_numbers_are_finite(self, path, number):
        path.write_text(f'{{"event": "x", "y": [{number}]}}\n{{"event": "x", "y": [1e9]}}\n')
        assert list(read_events(path)) == [{"event": "x", "y": [1e9]}]

    def test_a_pipe_is_not_waited_for(self, path):
        os.mkfifo(path)
        with pytest.raises(InputError, match=r"events\.jsonl: not a file of events"):
            list(read_events(path))

    def test_missing(self, path):
        with pytest.raises(InputError, match=r"events\.jsonl: not a file of events"):
            list(read_events(path))
