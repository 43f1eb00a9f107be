"""What a run does, read from its folder by another process."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tal1_hvd.data.files import exists, require_plain
from tal1_hvd.errors import InputError
from tal1_hvd.machine import process_began, process_namespace
from tal1_hvd.training.event_log import read_events
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import read_settings

# Seconds without a sign of life after which a run on another machine counts as silent: rank 0 tells
# of its progress every 5, and ranks touch their files every second.
_SILENT = 60.0
_KINDS = (
    "session",
    "start",
    "progress",
    "epoch",
    "ranks",
    "checkpoint",
    "left",
    "stopped",
    "failed",
)
_SCORES = ("train_loss", "validation_loss", "validation_accuracy", "examples_per_second")
_LARGEST = 1e15


@dataclass(frozen=True)
class Status:
    """What a run does.

    Attributes
    ----------
    state : str
        ``not begun``, ``starting``, ``training``, ``stopped`` by a signal, ``failed``, ``killed``
        (its process is gone and left no word here), ``silent`` (on another machine, and without a
        sign of life for a minute) or ``finished``.
    why : str
        What there is to say about that; empty if there is nothing.
    epoch, epochs : int
        Done, and in all.
    examples, epoch_examples : int
        Done of the next epoch, as far as it is known, and in all.
    seconds_left : float, optional
        Until training ends, while it goes on.
    session : dict
        The last ``session`` event; empty before the first.
    row : dict
        The last epoch's line of the history; empty before the first.
    checkpoint : dict
        The last ``checkpoint`` event; empty before the first.
    ranks : list of dict
        For each rank its place and what the last epoch cost it, as far as it is known.
    now : float
        Seconds since 1970 when this was read.
    """

    state: str
    why: str
    epoch: int
    epochs: int
    examples: int
    epoch_examples: int
    seconds_left: float | None
    session: dict[str, Any]
    row: dict[str, Any]
    checkpoint: dict[str, Any]
    ranks: list[dict[str, Any]]
    now: float


def read_status(folder: RunFolder, now: float) -> Status:
    """Read what a run does.

    Parameters
    ----------
    folder : RunFolder
    now : float
        Seconds since 1970.

    Returns
    -------
    Status

    Raises
    ------
    InputError
        It is no run folder, or damaged.
    """
    if not exists(folder.path):
        raise InputError(f"{folder.path}: no such run folder")
    if not exists(folder.config):
        raise InputError(f"{folder.path}: not a run folder: it has no {folder.config.name}")
    require_plain(folder.path, links=True)
    settings, _ = read_settings(folder.config)
    last: dict[str, dict[str, Any]] = {}
    if exists(folder.events):
        for event in read_events(folder.events):
            if event["event"] not in _KINDS:
                continue
            if event["event"] == "start" and _number(last.get("epoch", {}), "epoch") > _number(
                event, "done"
            ):
                # A killed session had gone further than its last checkpoint.
                last.pop("epoch")
            if event["event"] == "session":
                # What an earlier session told of its ranks and end is past.
                last = {kind: last[kind] for kind in ("epoch", "checkpoint") if kind in last}
            if event["event"] != "epoch" or _is_row(event):
                last[event["event"]] = {**event, "time": _number(event, "time")}
    start, row, progress = (last.get(kind, {}) for kind in ("start", "epoch", "progress"))
    state, why = _state(folder, last, now)
    epoch = max(int(_number(row, "epoch")), int(_number(start, "done")))
    of_this = int(_number(progress, "epoch")) == epoch + 1
    examples = int(_number(progress, "examples")) if of_this else 0
    epoch_examples = int(_number(start, "examples"))
    left = None
    if state == "training" and _number(row, "seconds"):
        part = examples / max(epoch_examples, 1)
        left = max((settings.epochs - epoch - part) * _number(row, "seconds"), 0.0)
    return Status(
        state,
        why,
        epoch,
        settings.epochs,
        examples,
        epoch_examples,
        left,
        last.get("session", {}),
        row,
        last.get("checkpoint", {}),
        _ranks(last),
        now,
    )


def _state(folder: RunFolder, last: Mapping[str, dict[str, Any]], now: float) -> tuple[str, str]:
    session = last.get("session")
    # There only once all is done, and removed when a run goes on.
    if exists(folder.metrics):
        return "finished", ""
    if session is None:
        return "not begun", ""
    for end in ("failed", "stopped"):
        if end in last:
            return end, str(last[end].get("text", ""))
    host, process = session.get("host"), session.get("process")
    if (host, session.get("namespace")) == (platform.node(), process_namespace()):
        if type(process) is not int or process_began(process) != session.get("began"):
            return (
                "killed",
                f"process {process} of rank 0 is gone; logs/ may say why",
            )
    else:
        silence = now - max([event["time"] for event in last.values()] + _signs_of_life(folder))
        if silence > _SILENT:
            return "silent", f"no sign of life for {silence:.0f} s from {host}, which is not here"
    if "left" in last:
        return "starting", "ranks have come or gone, and meet again"
    return ("training" if "start" in last else "starting"), ""


def _signs_of_life(folder: RunFolder) -> list[float]:
    try:
        return [path.stat().st_mtime for path in folder.heartbeats.iterdir()]
    except OSError:
        # None are kept, or one has just gone.
        return []


def _ranks(last: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    def by_rank(kind: str) -> dict[int, dict[str, Any]]:
        found = last.get(kind, {}).get("ranks", [])
        found = [rank for rank in found if isinstance(rank, dict)] if type(found) is list else []
        return {rank["rank"]: rank for rank in found if type(rank.get("rank")) is int}

    places, usages = by_rank("session"), by_rank("ranks")
    return [{**place, **usages.get(rank, {})} for rank, place in sorted(places.items())]


def _is_row(event: Mapping[str, Any]) -> bool:
    """Say whether an event holds what is shown of an epoch."""
    auroc = event.get("validation_auroc", "missing")
    shown = [event.get(key) for key in _SCORES] + ([] if auroc is None else [auroc])
    return type(event.get("epoch")) is int and all(
        type(value) in (int, float) and abs(value) < _LARGEST for value in (event["epoch"], *shown)
    )


def _number(event: Mapping[str, Any], key: str) -> float:
    """Return a number of an event, whoever wrote it; 0 where there is none."""
    value = event.get(key)
    return value if type(value) in (int, float) and abs(value) < _LARGEST else 0.0
