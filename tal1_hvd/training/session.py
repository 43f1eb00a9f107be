"""One session of a run: from what the user asked for to a finished run folder, on all ranks."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tal1_hvd.distributed.agreement import together
from tal1_hvd.distributed.communicator import Communicator, connect
from tal1_hvd.distributed.environment import (
    launched_elastically,
    launched_rank,
    launched_world_size,
)
from tal1_hvd.distributed.watchdog import Watchdog
from tal1_hvd.errors import InputError
from tal1_hvd.machine import quick_keras_import, start_tensorflow, usable_cores
from tal1_hvd.training.begin import Begun, Request, begin
from tal1_hvd.training.checkpoint import Checkpoint, Progress, load_checkpoint, require_fit
from tal1_hvd.training.elastic import (
    Memory,
    Newest,
    newest,
    settled,
    share,
    through_changes,
)
from tal1_hvd.training.interruptions import Left, Stopped
from tal1_hvd.training.manifest import make_manifest
from tal1_hvd.training.plan import Plan, make_plan, read_goal
from tal1_hvd.training.reporters import Reporter, Silent
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import describe_way


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
        raise InputError(
            "--elastic: needs ranks that horovodrun --host-discovery-script has started; "
            "launch/elastic does that"
        )
    size = launched_world_size()
    ranks = size or request.replicas
    first = launched_rank() in (None, 0)
    begun = begin(request, ranks, job=size is not None) if first else None

    def meet(memory: Memory | None) -> Result:
        with contextlib.ExitStack() as stack:
            return _train(_start(request, begun, make_reporter, stack, memory))

    try:
        return through_changes(meet) if elastic else meet(None)
    except (InputError, ImportError):
        if begun is not None:
            begun.take_back()
        raise
    except KeyboardInterrupt:
        if begun is None:
            raise
        raise KeyboardInterrupt(_go_on(begun.folder)) from None


def _go_on(folder: RunFolder) -> str:
    return f"tal1-hvd train --out {folder.path} --resume"


@dataclass(frozen=True)
class _Session:
    """What all ranks have agreed on before they train.

    Attributes
    ----------
    memory : Memory, optional
        Where ranks come and go.
    checkpoint : Checkpoint, optional
        What ranks that had met before have reached, newer than any on disk.
    """

    communicator: Communicator
    plan: Plan
    manifest: dict[str, Any]
    device: str
    folder: RunFolder
    reporter: Reporter
    memory: Memory | None
    checkpoint: Checkpoint | None


def _start(
    request: Request,
    begun: Begun | None,
    make_reporter: Callable[[], Reporter],
    stack: contextlib.ExitStack,
    memory: Memory | None,
) -> _Session:
    """Connect, check and start TensorFlow; `stack` locks the run folder, and watches the ranks."""
    # Horovod imports TensorFlow.
    with quick_keras_import():
        expected, _ = request.expected()
        communicator = connect(
            expected.strategy, request.replicas, expected.threads, not expected.peer_to_peer
        )
    rank, size = communicator.rank, communicator.size
    reporter = make_reporter() if rank == 0 else Silent()
    if memory is not None:
        memory.joined()
    known = memory is not None and memory.plan is not None

    def prepare() -> tuple[Plan, str]:
        if known:
            return memory.plan, memory.device
        goal = read_goal(request, size)
        plan = make_plan(goal, rank, size, reporter, verify=communicator.local_rank == 0)
        threads = goal.settings.threads or (1 if size > 1 else usable_cores())
        if memory is not None and memory.device is not None:
            # A process can start it once.
            return plan, memory.device
        device = communicator.device or start_tensorflow(
            threads, communicator.local_rank, graphs=goal.settings.graphs
        )
        return plan, device

    # Where ranks come and go, one that cannot take part leaves the others to go on.
    plan, device = together(communicator, prepare) if memory is None else prepare()
    if memory is not None:
        memory.device = device
    settings = plan.goal.settings
    found = Newest() if memory is None else newest(communicator, memory)
    path = found.folder or communicator.broadcast_json(begun and str(begun.folder.path))
    if path is None:
        raise InputError("rank 0 was lost before the run had begun; start the job again")
    folder = RunFolder(Path(path))
    together(communicator, lambda: stack.enter_context(folder.lock()) if rank == 0 else None)
    if memory is not None:
        plan = settled(plan, found.ranks, rank, size)
        memory.plan, memory.folder = plan, folder.path
    if begun is not None and begun.new and request.resume and not known:
        reporter.message(f"{folder.path}: no run to go on with yet; starting it")
    manifest = make_manifest(settings, plan.dataset, plan.batching, communicator, device)
    name = communicator.broadcast_json(uuid.uuid4().hex)
    # Each process watches another.
    number, count = rank // communicator.replicas, size // communicator.replicas
    # Where ranks may be lost, Horovod's own timeout ends the wait for them.
    timeout = settings.stall_timeout if memory is None else 0
    stack.enter_context(Watchdog(folder.heartbeats, number, count, timeout, name))
    return _Session(
        communicator, plan, manifest, device, folder, reporter, memory, found.checkpoint
    )


def _train(session: _Session) -> Result:
    # Imports TensorFlow, which had to be set up first.
    from tal1_hvd.models.dna_conv_pool import why_not_compiled
    from tal1_hvd.training.train import train
    from tal1_hvd.training.trainer import Trainer

    communicator, plan, folder = session.communicator, session.plan, session.folder
    rank, reporter = communicator.rank, session.reporter
    on_disk = together(
        communicator,
        lambda: load_checkpoint(folder.last) if rank == 0 and folder.last.exists() else None,
    )
    checkpoint = session.checkpoint or on_disk
    if session.memory is not None:
        # All ranks keep all of it.
        checkpoint = share(communicator, checkpoint if rank == 0 else None)
        if checkpoint is not None:
            session.memory.keep(checkpoint)
    progress = checkpoint.progress if checkpoint is not None else Progress()
    progress = Progress(**communicator.broadcast_json(vars(progress)))
    trainer = Trainer.build(plan.goal.settings, plan.dataset, plan.batching, communicator, progress)
    like = trainer.snapshot(Progress())
    together(
        communicator,
        lambda: _take_over(session, on_disk, checkpoint, like) if rank == 0 else None,
    )
    if communicator.broadcast_json(_is_finished(folder, plan, checkpoint)):
        if checkpoint is not None:
            epoch = checkpoint.progress.epoch
            reporter.message(f"{folder.path}: already finished after epoch {epoch}; nothing to do")
        communicator.close()
        return Result(folder.path, folder.read_metrics() if rank == 0 else {}, rank)
    if session.checkpoint is not None:
        size = communicator.size
        there = "1 rank" if size == 1 else f"{size} ranks"
        reporter.message(f"{there} now, going on after {progress.describe()}")
    else:
        reporter.message(_describe(plan, folder, session.device, communicator))
    if session.checkpoint is None and plan.goal.manifest is not None and rank == 0:
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
        metrics = train(trainer, folder, reporter, checkpoint, session.memory, saved)
    except Stopped as stopped:
        held = "others go on" if isinstance(stopped, Left) else "a checkpoint holds all of it"
        reporter.message(f"stopped by a signal after {stopped}; {held}")
        if not isinstance(stopped, Left):
            communicator.close()
        raise Stopped(_go_on(folder)) from None
    # No rank leaves, and stops giving signs of life, before all are done.
    communicator.close()
    return Result(folder.path, metrics, rank)


def _take_over(
    session: _Session, on_disk: Checkpoint | None, checkpoint: Checkpoint | None, like: Checkpoint
) -> None:
    """Make sure that the run can go on, and note its settings from now on."""
    folder, plan, manifest = session.folder, session.plan, session.manifest
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
