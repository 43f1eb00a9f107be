"""How ranks meet: they connect, agree on what to do, and take the run folder."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tal1_hvd.distributed.agreement import together
from tal1_hvd.distributed.communicator import Communicator, connect
from tal1_hvd.distributed.environment import allow_timeline
from tal1_hvd.distributed.horovod_communicator import load_horovod
from tal1_hvd.distributed.rendezvous import come_together
from tal1_hvd.distributed.watchdog import Watchdog
from tal1_hvd.errors import InputError
from tal1_hvd.machine import quick_keras_import, start_tensorflow, usable_cores
from tal1_hvd.training.begin import Begun, Request, begin
from tal1_hvd.training.checkpoint import Checkpoint
from tal1_hvd.training.elastic import Memory, Newest, newest, settled
from tal1_hvd.training.manifest import make_manifest
from tal1_hvd.training.plan import Plan, make_plan, read_goal
from tal1_hvd.training.reporters import Reporter, Silent
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import read_settings


@dataclass(frozen=True)
class Meeting:
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


def meet(
    request: Request,
    begun: Begun | None,
    make_reporter: Callable[[], Reporter],
    stack: contextlib.ExitStack,
    memory: Memory | None,
    started: int,
) -> Meeting:
    """Connect, check and start TensorFlow; `stack` locks the run folder, and watches the ranks.

    `started` is how many ranks there were to be when this process was started.
    """
    # Horovod imports TensorFlow.
    with quick_keras_import():
        expected, _ = request.expected()
        if request.timeline:
            allow_timeline()
        busy = not expected.peer_to_peer
        with contextlib.ExitStack() as connecting:
            if memory is not None:
                # First what takes long: whoever is lost after they have come together ends the job.
                load_horovod(busy)
                connecting.enter_context(come_together(expected.stall_timeout))
            communicator = connect(expected.strategy, request.replicas, expected.threads, busy)
    rank, size = communicator.rank, communicator.size
    reporter = make_reporter() if rank == 0 else Silent()
    if memory is not None:
        memory.joined()
    known = memory is not None and memory.plan is not None

    def prepare() -> tuple[Plan, str]:
        if request.timeline and communicator.name != "horovod":
            raise InputError(
                "--timeline: Horovod writes it, which joins ranks under --ranks, horovodrun, "
                "mpirun or srun; leave it out"
            )
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
        # Whoever was rank 0 at first was lost before it could.
        begun = together(communicator, lambda: begin(request, started, True) if rank == 0 else None)
        path = communicator.broadcast_json(begun and str(begun.folder.path))
    folder = RunFolder(Path(path))
    together(communicator, lambda: stack.enter_context(folder.lock()) if rank == 0 else None)
    if memory is not None:
        at_first = found.ranks
        if at_first is None:
            # Some may have been lost before any met: the settings tell how many there were to be.
            at_first = communicator.broadcast_json(
                together(communicator, lambda: read_settings(folder.config)[1] if rank == 0 else 0)
            )
        plan = settled(plan, at_first, rank, size)
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
    return Meeting(communicator, plan, manifest, device, folder, reporter, memory, found.checkpoint)
