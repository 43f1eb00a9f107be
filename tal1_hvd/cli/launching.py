"""``train --ranks``: start the ranks, and show what rank 0 tells."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tal1_hvd.cli.errors import STOPPED, report, say
from tal1_hvd.distributed.executors import find_executor
from tal1_hvd.distributed.launch import StoppedEarlyError, find_launcher, launch_ranks
from tal1_hvd.errors import InputError
from tal1_hvd.machine import usable_cores
from tal1_hvd.training.begin import Request, begin
from tal1_hvd.training.manifest import COMMAND
from tal1_hvd.training.plan import make_plan, read_goal
from tal1_hvd.training.reporters import Bar, Events, Lines, Reporter, replay

# Set for the ranks that are started here: rank 0 then sends events instead of drawing.
_EVENTS = "TAL1_HVD_EVENTS"
_INTERRUPTED = 130
_REFUSED = 2


def shown_elsewhere() -> bool:
    """Say whether the process that started this rank shows its progress and results."""
    return _EVENTS in os.environ


def make_reporter() -> Reporter:
    """Return what suits where this process's output goes."""
    if shown_elsewhere():
        return Events()
    return Bar() if sys.stderr.isatty() else Lines()


def launch(request: Request, count: int, executor: str | None = None) -> tuple[Path, int]:
    """Start the ranks and show their course.

    Parameters
    ----------
    request : Request
    count : int
        Ranks, at least 2.
    executor : str, optional
        ``ray`` or ``spark``, which place them on their cluster; default: on this machine.

    Returns
    -------
    folder : Path
        The run folder.
    code : int
        The command's exit code.

    Raises
    ------
    InputError
        The request cannot be carried out.
    """
    if request.changes.get("elastic"):
        raise InputError(
            "--ranks: starts ranks that stay; for --elastic, leave it out and use launch/elastic"
        )
    strategy = request.expected()[0].strategy
    if strategy == "single":
        raise InputError(f"--strategy: single cannot be {count} ranks; leave it or --ranks out")
    if executor is not None and strategy not in ("auto", "horovod"):
        raise InputError(f"--launcher: {executor} starts Horovod's ranks, not those of {strategy}")
    reporter = make_reporter()
    begun = begin(request, count)
    folder = begun.folder.path
    try:
        # What is wrong is found here in one line instead of one a rank; and the data is made here.
        make_plan(read_goal(request, count), 0, count, reporter)
        if executor is None:
            launcher = find_launcher(count, strategy)
        else:
            launcher = find_executor(executor, count, folder)
        with begun.folder.lock():
            pass
    except (InputError, KeyboardInterrupt):
        begun.take_back()
        raise
    if begun.new and request.resume:
        reporter.message(f"{folder}: no run to go on with yet; starting it")
    starting = f"starting {count} ranks{_where(count, executor)}"
    code = _watch_ranks(launcher, request, folder, reporter, starting)
    reporter.finish()
    go_on = f"go on with: tal1-hvd train --out {folder} --resume --ranks {count}"
    go_on += "" if executor is None else f" --launcher {executor}"
    if code == _INTERRUPTED:
        report(f"interrupted; {go_on}")
    elif code == STOPPED:
        say(go_on)
    elif code == _REFUSED:
        begun.take_back()
    elif code != 0:
        report(f"the job ended with exit code {code}; {go_on}")
        code = 1
    return folder, code


def _where(count: int, executor: str | None) -> str:
    if executor is not None:
        return f" on {executor.capitalize()}"
    cores = usable_cores()
    return f" on {cores} cores, which is slower than {cores} ranks" if count > cores else ""


def _watch_ranks(
    launcher: Sequence[str], request: Request, folder: Path, reporter: Reporter, starting: str
) -> int:
    """Say that ranks start, start them, and return the job's exit code."""
    try:
        return launch_ranks(
            [*launcher, sys.executable, "-m", "tal1_hvd.train", *_flags(request, folder)],
            {_EVENTS: "1", COMMAND: json.dumps(sys.argv)},
            lambda line: replay(line, reporter),
            lambda: reporter.message(starting),
        )
    except KeyboardInterrupt:
        return _INTERRUPTED
    except StoppedEarlyError:
        reporter.message("stopped by a signal before the ranks had connected")
        return STOPPED


def _flags(request: Request, folder: Path) -> list[str]:
    named = {f"--{name.replace('_', '-')}": value for name, value in request.changes.items()}
    flags = [name if value is True else f"{name}={value}" for name, value in named.items()]
    flags += ["--timeline"] * request.timeline
    # The folder is there by now.
    return [*flags, f"--out={folder}", "--resume"]
