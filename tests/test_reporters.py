"""What a run says: lines, a bar, and events that another process shows."""

from __future__ import annotations

import io
import json

import pytest

from tal1_hvd.training.reporters import (
    EVENT_PREFIX,
    Bar,
    Both,
    Events,
    Lines,
    Silent,
    describe_epoch,
    replay,
)

ROW = {
    "epoch": 2,
    "train_loss": 0.51234,
    "train_accuracy": 0.9,
    "validation_loss": 0.6,
    "validation_accuracy": 0.75,
    "validation_auroc": 0.87654,
    "validation_auprc": 0.5,
    "examples_per_second": 12345.6,
}
FIGURES = "loss 0.5123  validation loss 0.6000  accuracy 0.7500  auROC 0.8765  12,346 examples/s"

CALLS = [
    ("message", {"text": "training paper: ü\nsecond [line]"}),
    ("start", {"epochs": 5, "done": 1, "examples": 100}),
    ("advance", {"examples": 64}),
    ("epoch", {"row": {**ROW, "validation_auroc": None}}),
    ("finish", {}),
]


class Recorder:
    """Notes what it is told, under whatever name."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda **given: self.calls.append((name, given))


class Named(Silent):
    """Hands calls on to a recorder, by the names of what is given."""

    def __init__(self, recorder):
        self._recorder = recorder

    def message(self, text):
        self._recorder.message(text=text)

    def start(self, epochs, done, examples):
        self._recorder.start(epochs=epochs, done=done, examples=examples)

    def advance(self, examples):
        self._recorder.advance(examples=examples)

    def epoch(self, row):
        self._recorder.epoch(row=row)

    def finish(self):
        self._recorder.finish()

    def record(self, event, **values):
        self._recorder.record(event=event, **values)


class Writes(io.StringIO):
    """Notes each call of write."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def write(self, text):
        self.calls.append(text)
        return super().write(text)


def tell(reporter, calls=CALLS):
    for name, given in calls:
        getattr(reporter, name)(**given)


class TestDescribe:
    def test_figures(self):
        assert describe_epoch(ROW, 5) == f"epoch 2/5  {FIGURES}"

    def test_no_auroc_where_a_class_is_missing(self):
        text = describe_epoch({**ROW, "validation_auroc": None}, 5)
        assert text == f"epoch 2/5  {FIGURES.replace('0.8765', '-')}"


class TestLines:
    def test_a_line_a_message_and_an_epoch(self):
        stream = Writes()
        reporter = Lines(stream)
        tell(
            reporter,
            [
                ("message", {"text": "hello"}),
                ("start", {"epochs": 5, "done": 1, "examples": 100}),
                ("advance", {"examples": 64}),
                ("epoch", {"row": ROW}),
                ("finish", {}),
            ],
        )
        # One call a line, so that ranks' lines stay whole.
        assert stream.calls == ["tal1-hvd: hello\n", f"tal1-hvd: epoch 2/5  {FIGURES}\n"]

    def test_standard_error_by_default(self, capsys):
        Lines().message("hello")
        assert capsys.readouterr() == ("", "tal1-hvd: hello\n")


def test_silent(capsys):
    tell(Silent())
    assert capsys.readouterr() == ("", "")


def test_both_are_told_all():
    recorders = Recorder(), Recorder()
    recorded = [*CALLS, ("record", {"event": "ranks", "ranks": []})]
    tell(Both(*(Named(recorder) for recorder in recorders)), recorded)
    assert recorders[0].calls == recorders[1].calls == recorded


class TestEvents:
    def test_replayed_they_are_the_same_calls(self, capsys):
        tell(Events())
        out, err = capsys.readouterr()
        assert err == ""
        recorder = Recorder()
        lines = out.splitlines(keepends=True)
        assert len(lines) == len(CALLS)
        assert all(replay(line, recorder) for line in lines)
        assert recorder.calls == CALLS

    def test_one_write_a_line(self, monkeypatch):
        stream = Writes()
        monkeypatch.setattr("sys.stdout", stream)
        tell(Events())
        assert all(text.startswith(EVENT_PREFIX) for text in stream.calls)
        assert [text.count("\n") for text in stream.calls] == [1] * len(CALLS)

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "\n",
            "epoch 1/5\n",
            f" {EVENT_PREFIX}[]\n",
            json.dumps(["finish", {}]),
            EVENT_PREFIX.strip(),
        ],
    )
    def test_other_lines(self, line):
        recorder = Recorder()
        assert replay(line, recorder) is False
        assert recorder.calls == []

    @pytest.mark.parametrize("text", ["", '["epoch", {"row"', "nonsense", '["unheard", {}]', "[]"])
    def test_what_looks_like_an_event_is_none(self, text):
        """A rank that is killed may leave half a line: to be printed, not stumbled over."""
        recorder = Recorder()
        assert replay(f"{EVENT_PREFIX}{text}\n", recorder) is False
        assert recorder.calls == []


class TestBar:
    def test_figures_and_messages(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        bar = Bar()
        bar.message("run [folder] /x")
        bar.start(epochs=5, done=1, examples=100)
        bar.advance(100)
        bar.message("in between")
        bar.epoch(ROW)
        bar.finish()
        out, err = capsys.readouterr()
        assert out == ""
        assert "tal1-hvd: run [folder] /x\n" in err
        assert "tal1-hvd: in between\n" in err
        assert "epoch 3/5" in err
        assert FIGURES in err
        # One epoch of five was done before, and one now.
        assert "40 %" in err

    def test_last_epoch(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        bar = Bar()
        bar.start(epochs=2, done=0, examples=10)
        bar.advance(20)
        bar.epoch(ROW)
        bar.finish()
        error = capsys.readouterr().err
        assert "epoch 2/2" in error
        assert "100 %" in error

    def test_finish_without_a_start(self, capsys):
        bar = Bar()
        bar.finish()
        bar.finish()
