"""How a run shows what it is doing: a bar on a terminal, lines elsewhere, events for a launcher."""

from __future__ import annotations

import json
import sys
from typing import Any, Protocol, TextIO

from tal1_hvd.errors import printable

EVENT_PREFIX = "@tal1-hvd "


class Reporter(Protocol):
    """Told of a run's course on rank 0."""

    def message(self, text: str) -> None:
        """Say something, once."""

    def start(self, epochs: int, done: int, examples: int) -> None:
        """Begin: epochs in all and done, examples of an epoch."""

    def advance(self, examples: int) -> None:
        """Count examples of the epoch that are done."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Show an epoch that is done, by its history row."""

    def finish(self) -> None:
        """End."""

    def record(self, event: str, **values: Any) -> None:
        """Note what only programs want to know; JSON values."""


class Silent:
    """Says nothing; for ranks other than 0 and for use as a library."""

    def message(self, text: str) -> None:
        """Do nothing."""

    def start(self, epochs: int, done: int, examples: int) -> None:
        """Do nothing."""

    def advance(self, examples: int) -> None:
        """Do nothing."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def record(self, event: str, **values: Any) -> None:
        """Do nothing."""


class Both:
    """Tells two others."""

    def __init__(self, one: Reporter, other: Reporter):
        self._both = (one, other)

    def message(self, text: str) -> None:
        """Hand it on."""
        for reporter in self._both:
            reporter.message(text)

    def start(self, epochs: int, done: int, examples: int) -> None:
        """Hand it on."""
        for reporter in self._both:
            reporter.start(epochs, done, examples)

    def advance(self, examples: int) -> None:
        """Hand it on."""
        for reporter in self._both:
            reporter.advance(examples)

    def epoch(self, row: dict[str, Any]) -> None:
        """Hand it on."""
        for reporter in self._both:
            reporter.epoch(row)

    def finish(self) -> None:
        """Hand it on."""
        for reporter in self._both:
            reporter.finish()

    def record(self, event: str, **values: Any) -> None:
        """Hand it on."""
        for reporter in self._both:
            reporter.record(event, **values)


class Lines(Silent):
    """A line a message and an epoch, each written in one call so that ranks' lines stay whole.

    Parameters
    ----------
    stream : TextIO, optional
        Default: standard error.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._epochs = 0

    def message(self, text: str) -> None:
        """Write a line."""
        self._stream.write(f"tal1-hvd: {printable(text)}\n")
        self._stream.flush()

    def start(self, epochs: int, done: int, examples: int) -> None:
        """Note how many epochs there are."""
        self._epochs = epochs

    def epoch(self, row: dict[str, Any]) -> None:
        """Write an epoch's line."""
        self.message(describe_epoch(row, self._epochs))


class Bar(Silent):
    """A live bar on a terminal, the latest epoch's figures beside it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
        )
        self._epochs = 0
        self._task: Any = None

    def message(self, text: str) -> None:
        """Write a line above the bar."""
        self._console.print(f"tal1-hvd: {printable(text)}", markup=False, highlight=False)

    def start(self, epochs: int, done: int, examples: int) -> None:
        """Show the bar."""
        self._epochs = epochs
        self._task = self._progress.add_task(
            f"epoch {done + 1}/{epochs}",
            total=epochs * examples,
            completed=done * examples,
            figures="",
        )
        self._progress.start()

    def advance(self, examples: int) -> None:
        """Move the bar."""
        self._progress.advance(self._task, examples)

    def epoch(self, row: dict[str, Any]) -> None:
        """Show an epoch's figures."""
        following = min(row["epoch"] + 1, self._epochs)
        self._progress.update(
            self._task, description=f"epoch {following}/{self._epochs}", figures=_figures(row)
        )

    def finish(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class Events(Silent):
    """Machine-readable lines on standard output, for the launcher that shows the bar."""

    def message(self, text: str) -> None:
        """Send a message."""
        self._send("message", text=text)

    def start(self, epochs: int, done: int, examples: int) -> None:
        """Send that training begins."""
        self._send("start", epochs=epochs, done=done, examples=examples)

    def advance(self, examples: int) -> None:
        """Send that examples are done."""
        self._send("advance", examples=examples)

    def epoch(self, row: dict[str, Any]) -> None:
        """Send an epoch's row."""
        self._send("epoch", row=row)

    def finish(self) -> None:
        """Send that training has ended."""
        self._send("finish")

    @staticmethod
    def _send(event: str, **values: Any) -> None:
        sys.stdout.write(f"{EVENT_PREFIX}{json.dumps([event, values])}\n")
        sys.stdout.flush()


def replay(line: str, reporter: Reporter) -> bool:
    """Hand a line that `Events` wrote to another reporter.

    Parameters
    ----------
    line : str
    reporter : Reporter

    Returns
    -------
    bool
        False if the line is not an event.
    """
    handlers = {
        "message": reporter.message,
        "start": reporter.start,
        "advance": reporter.advance,
        "epoch": reporter.epoch,
        "finish": reporter.finish,
    }
    if not line.startswith(EVENT_PREFIX):
        return False
    try:
        event, values = json.loads(line[len(EVENT_PREFIX) :])
        handler = handlers[event]
    # A line of a rank that died while it wrote.
    except (ValueError, KeyError, TypeError):
        return False
    handler(**values)
    return True


def describe_epoch(row: dict[str, Any], epochs: int) -> str:
    """Return an epoch's figures as one line."""
    return f"epoch {row['epoch']}/{epochs}  {_figures(row)}"


def _figures(row: dict[str, Any]) -> str:
    auroc = row["validation_auroc"]
    return (
        f"loss {row['train_loss']:.4f}  validation loss {row['validation_loss']:.4f}  "
        f"accuracy {row['validation_accuracy']:.4f}  "
        f"auROC {'-' if auroc is None else f'{auroc:.4f}'}  "
        f"{row['examples_per_second']:,.0f} examples/s"
    )
