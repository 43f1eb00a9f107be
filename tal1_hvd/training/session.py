"""One session of a run: from what the user asked for to a finished run folder, on all ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.distributed.agreement import together
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.distributed.environment import (
    launched_elastically,
    launched_rank,
    launched_world_size,
)
from tal1_hvd.errors import InputError
from tal1_hvd.training.begin import Request, begin, require_new
from tal1_hvd.training.checkpoint import Checkpoint, Progress, load_checkpoint, require_fit
from tal1_hvd.training.elastic import (
    Memory,
    share,
    through_changes,
)
from tal1_hvd.training.interruptions import Left, Stopped
from tal1_hvd.training.meeting import Meeting, meet
from tal1_hvd.training.plan import Plan
from tal1_hvd.training.recording import recorded
from tal1_hvd.training.reporters import Reporter, Silent
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import TrainSettings, describe_way


@dataclass(frozen=True)
class Result:
    """What a session leaves.

    Attributes
    ----------
    folder : Path
        The run folder.
    metrics : dict
        What its `metrics.json` holds; empty on ranks other than 0.
    rank : int
    """

    folder: Path
    metrics: dict[str, Any]
    rank: int


def run_session(request: Request, make_reporter: Callable[[], Reporter] = Silent) -> Result:
    """Train, or go on training, on the ranks that this process belongs to.

    Parameters
    ----------
    request : Request
    make_reporter : callable
        Makes what is told of the course; called on rank 0.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        The request cannot be carried out: an AgreedError, unless rank 0 saw it before ranks met.
    KeyboardInterrupt, Stopped
        With the command that goes on; Stopped after a checkpoint.
    """
    elastic = launched_elastically() and request.expected()[0].elastic
    if request.changes.get("elastic") and not elastic:
        if launched_rank() is None:
            _require_sound(request)
        raise InputError(
            "--elastic: needs ranks that horovodrun --host-discovery-script has started; "
            "launch/elastic does that"
        )
    size = launched_world_size()
    ranks = size or request.replicas
    first = launched_rank() in (None, 0)
    begun = begin(request, ranks, job=size is not None) if first else None

    def once(memory: Memory | None) -> Result:
        with contextlib.ExitStack() as stack:
            meeting = meet(request, begun, make_reporter, stack, memory, ranks)
            return _train(meeting, stack, request.timeline)

    try:
        return through_changes(once) if elastic else once(None)
    except (InputError, ImportError):
        if begun is not None:
            begun.take_back()
        raise
    except KeyboardInterrupt:
        if begun is None:
            raise
        hosts = [""] * ranks if size is None else []
        raise KeyboardInterrupt(how_to_go_on(begun.folder, elastic, hosts)) from None


def _require_sound(request: Request) -> None:
    """Raise InputError for most of what ranks would refuse; launch/elastic asks before it has any.

    Nothing is made, and no data read.
    """
    if request.resume:
        return
    settings = TrainSettings(**request.changes)
    if request.out is not None:
        require_new(request.out)
    if settings.data is not None:
        open_dataset(settings.data, verify=False)


def how_to_go_on(folder: RunFolder, elastic: bool, hosts: Sequence[str]) -> str:
    """Return the command that goes on with a run; for several hosts users have one of their own.

    Parameters
    ----------
    folder : RunFolder
    elastic : bool
    hosts : sequence of str
        That of each rank.
    """
    command = "launch/elastic" if elastic else "tal1-hvd train"
    ranks = f" --ranks {len(hosts)}" if len(set(hosts)) == 1 and (len(hosts) > 1 or elastic) else ""
    return f"{command} --out {folder.path} --resume{ranks}"


def _train(meeting: Meeting, stack: contextlib.ExitStack, timeline: bool) -> Result:
    # Imports TensorFlow, which had to be set up first.
    from tal1_hvd.models.compiled import why_not_compiled
    from tal1_hvd.training.train import train
    from tal1_hvd.training.trainer import Trainer

    communicator, plan, folder = meeting.communicator, meeting.plan, meeting.folder
    rank, reporter = communicator.rank, meeting.reporter
    on_disk = together(
        communicator,
        lambda: load_checkpoint(folder.last) if rank == 0 and folder.last.exists() else None,
    )
    checkpoint = meeting.checkpoint or on_disk
    if meeting.memory is not None:
        # All ranks keep all of it.
        checkpoint = share(communicator, checkpoint if rank == 0 else None)
        if checkpoint is not None:
            meeting.memory.keep(checkpoint)
    progress = checkpoint.progress if checkpoint is not None else Progress()
    progress = Progress(**communicator.broadcast_json(vars(progress)))
    trainer = Trainer.build(plan.goal.settings, plan.dataset, plan.batching, communicator, progress)
    like = trainer.snapshot(Progress())
    together(
        communicator,
        lambda: _take_over(meeting, on_disk, checkpoint, like) if rank == 0 else None,
    )
    if communicator.broadcast_json(_is_finished(folder, plan, checkpoint)):
        if checkpoint is not None:
            epoch = checkpoint.progress.epoch
            reporter.message(f"{folder.path}: already finished after epoch {epoch}; nothing to do")
        communicator.close()
        return Result(folder.path, folder.read_metrics() if rank == 0 else {}, rank)
    reporter = stack.enter_context(recorded(meeting))
    if timeline:
        communicator.record_timeline(folder.timeline)
    if meeting.checkpoint is not None:
        size = communicator.size
        there = "1 rank" if size == 1 else f"{size} ranks"
        reporter.message(f"{there} now, going on after {progress.describe()}")
    else:
        reporter.message(_describe(plan, folder, meeting.device, communicator))
    if meeting.checkpoint is None and plan.goal.manifest is not None and rank == 0:
        reporter.message(
            "no checkpoint yet: from the start"
            if checkpoint is None
            else f"going on after {checkpoint.progress.describe()}"
        )
    reason = why_not_compiled()
    if reason is not None:
        reporter.message(f"the first layer uses TensorFlow's own operations: {reason}")
    try:
        saved = on_disk.progress.epoch if on_disk is not None else 0
        metrics = train(trainer, folder, reporter, checkpoint, meeting.memory, saved)
    except Stopped as stopped:
        held = "others go on" if isinstance(stopped, Left) else "a checkpoint holds all of it"
        reporter.message(f"stopped by a signal after {stopped}; {held}")
        if not isinstance(stopped, Left):
            # Whoever sent the signal may have sent it to the launcher too.
            communicator.close(launcher=False)
        hosts = [rank["host"] for rank in meeting.manifest["ranks"]]
        go_on = how_to_go_on(folder, meeting.memory is not None, hosts)
        raise type(stopped)(go_on) from None
    # No rank leaves, and stops giving signs of life, before all are done.
    communicator.close()
    return Result(folder.path, metrics, rank)


def _take_over(
    meeting: Meeting, on_disk: Checkpoint | None, checkpoint: Checkpoint | None, like: Checkpoint
) -> None:
    """Make sure that the run can go on, and note its settings from now on."""
    folder, plan, manifest = meeting.folder, meeting.plan, meeting.manifest
    if on_disk is not None:
        require_fit(folder.last, on_disk, like)
    if _is_finished(folder, plan, checkpoint):
        return
    # Metrics mark a finished run, which this one is not any more if it has more epochs now.
    folder.metrics.unlink(missing_ok=True)
    folder.remove_leftovers()
    settings = plan.goal.settings
    folder.write_settings(
        settings, plan.goal.ranks if settings.fixed_global_batch else manifest["world_size"]
    )
    folder.write_manifest(manifest)


def _is_finished(folder: RunFolder, plan: Plan, checkpoint: Checkpoint | None) -> bool:
    if checkpoint is None:
        return False
    if not checkpoint.progress.finished(plan.goal.settings.epochs, plan.goal.settings.patience):
        return False
    try:
        folder.read_metrics()
    except InputError:
        # Missing or damaged: they are made again from the checkpoint.
        return False
    return True


def _describe(plan: Plan, folder: RunFolder, device: str, communicator: Communicator) -> str:
    size, settings = communicator.size, plan.goal.settings
    how = describe_way(communicator.name, settings.aggregation, settings.staleness)
    ranks = f"{size} ranks ({how}), {device} each"
    if size == 1:
        # Whatever joins ranks, there is nothing to join.
        plain = settings.aggregation == "allreduce"
        ranks = f"1 rank, {device}" if plain else f"1 rank, so without {how}, {device}"
    optimizer = "" if settings.optimizer == "adam" else f" by {settings.optimizer}"
    return (
        f"training {settings.model}{optimizer} on {plan.batching.examples:,} sequences of "
        f"{plan.dataset.length} bp in {plan.dataset.path}: {ranks}, "
        f"global batch {plan.batching.global_batch}; run folder {folder.path}"
    )
