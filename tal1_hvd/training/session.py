"""One session of a run: from what the user asked for to a finished run folder, on all ranks."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tal1_hvd.data.batches import Batching
from tal1_hvd.data.dataset import Dataset, open_dataset
from tal1_hvd.data.files import exists, is_vacant, require_vacant
from tal1_hvd.distributed.agreement import together
from tal1_hvd.distributed.communicator import Communicator, connect
from tal1_hvd.distributed.watchdog import Watchdog
from tal1_hvd.errors import InputError
from tal1_hvd.machine import quick_keras_import, start_tensorflow, usable_cores
from tal1_hvd.simulation.cache import cached_dataset
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.training.checkpoint import Checkpoint, load_checkpoint, require_fit
from tal1_hvd.training.manifest import make_manifest
from tal1_hvd.training.plan import plan_batches, plan_resume
from tal1_hvd.training.reporters import Reporter, Silent
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import TrainSettings

if TYPE_CHECKING:
    from tal1_hvd.training.train import Trainer


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes
    ----------
    changes : dict
        Settings given by the user, named as in `TrainSettings`; all others keep their defaults, or
        the run's own where it is resumed.
    out : Path, optional
        The run folder; a new one under ``runs/`` if left out.
    resume : bool
        Go on with the run in `out`; or start it, if `changes` names its data, where it was stopped
        before there was anything to go on with.
    """

    changes: dict[str, Any]
    out: Path | None = None
    resume: bool = False

    def stall_timeout(self) -> float:
        """Return the timeout (s) before the request is worked out: a resumed run's own if any."""
        before = TrainSettings()
        if self.resume and self.out is not None:
            # What is wrong with it is said when the request is worked out.
            with contextlib.suppress(InputError):
                before = TrainSettings.from_yaml(self.out / "config.yaml")
        return self.changes.get("stall_timeout", before.stall_timeout)


@dataclass(frozen=True)
class Plan:
    """A request worked out for a number of ranks, and checked.

    Attributes
    ----------
    settings : TrainSettings
    dataset : Dataset
    batching : Batching
    out : Path, optional
    manifest : dict, optional
        A resumed run's.
    """

    settings: TrainSettings
    dataset: Dataset
    batching: Batching
    out: Path | None
    manifest: dict[str, Any] | None


def make_plan(
    request: Request, rank: int, size: int, reporter: Reporter, verify: bool = True
) -> Plan:
    """Work out and check all that can be checked before TensorFlow starts.

    Parameters
    ----------
    request : Request
    rank, size : int
    reporter : Reporter
        Told if the default dataset is simulated.
    verify : bool
        Check the dataset's checksums; one process a machine is enough.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        The request cannot be carried out.
    """
    manifest = None
    if _goes_on(request):
        settings, manifest = plan_resume(request.out, request.changes, size)
    else:
        settings = TrainSettings(**request.changes)
        if request.out is not None:
            if exists(request.out / "config.yaml"):
                raise InputError(
                    f"{request.out}: exists already and holds a run; go on with it by --resume, "
                    "or choose another --out"
                )
            require_vacant(request.out)
    data = settings.data
    if manifest and "data" not in request.changes and not (data and exists(Path(data))):
        # The run was started from another folder, or with the default dataset.
        data = manifest["dataset"]["path"]
    if data is None:
        data = cached_dataset(SimulationSettings(), reporter.message)
    dataset = open_dataset(data, verify=verify, cache_mb=settings.cache_mb)
    if manifest and manifest["dataset"]["fingerprint"] != dataset.fingerprint:
        raise InputError(f"--data: {data} is not the dataset that the run was started with")
    return Plan(
        settings, dataset, plan_batches(settings, dataset, rank, size), request.out, manifest
    )


def _goes_on(request: Request) -> bool:
    """Say whether the request is to go on with a run, rather than to start one."""
    if not request.resume:
        return False
    if request.out is None:
        raise InputError("--resume: name the run to go on with in --out")
    # Without a word about its data, a name that was mistyped would train on other data.
    return "data" not in request.changes or not is_vacant(request.out)


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
    AgreedError
        The request cannot be carried out; raised on all ranks.
    """
    with contextlib.ExitStack() as stack:
        return _train(_start(request, make_reporter, stack))


@dataclass(frozen=True)
class _Session:
    """What all ranks have agreed on before they train."""

    communicator: Communicator
    plan: Plan
    manifest: dict[str, Any]
    device: str
    folder: RunFolder
    reporter: Reporter


def _start(
    request: Request, make_reporter: Callable[[], Reporter], stack: contextlib.ExitStack
) -> _Session:
    """Connect, check, start TensorFlow and make the run folder, which `stack` locks and watches."""
    # Horovod imports TensorFlow.
    with quick_keras_import():
        communicator = connect(request.changes.get("strategy", "auto"))
    rank, size = communicator.rank, communicator.size
    reporter = make_reporter() if rank == 0 else Silent()

    def prepare() -> tuple[Plan, str]:
        plan = make_plan(request, rank, size, reporter, verify=communicator.local_rank == 0)
        alone = 1 if size > 1 else usable_cores()
        return plan, start_tensorflow(plan.settings.threads or alone, communicator.local_rank)

    plan, device = together(communicator, prepare)
    manifest = make_manifest(plan.settings, plan.dataset, plan.batching, communicator, device)
    folder = RunFolder(
        Path(communicator.broadcast_json(str(plan.out or new_run_path(plan.settings))))
    )
    together(communicator, lambda: _claim(folder, plan, manifest, stack) if rank == 0 else None)
    if request.resume and plan.manifest is None:
        reporter.message(f"{folder.path}: no run to go on with yet; starting it")
    name = communicator.broadcast_json(uuid.uuid4().hex)
    stack.enter_context(Watchdog(folder.heartbeats, rank, size, plan.settings.stall_timeout, name))
    return _Session(communicator, plan, manifest, device, folder, reporter)


def _train(session: _Session) -> Result:
    # Imports TensorFlow, which had to be set up first.
    from tal1_hvd.models.dna_conv_pool import why_not_compiled
    from tal1_hvd.training.train import Trainer, train

    communicator, plan, folder = session.communicator, session.plan, session.folder
    rank, reporter = communicator.rank, session.reporter
    trainer = Trainer.build(plan.settings, plan.dataset, plan.batching, communicator)
    checkpoint = together(
        communicator,
        lambda: _take_over(folder, plan, session.manifest, trainer) if rank == 0 else None,
    )
    if communicator.broadcast_json(_is_finished(folder, plan, checkpoint)):
        reporter.message(f"{folder.path}: already finished; nothing to do")
        communicator.close()
        return Result(folder.path, folder.read_metrics() if rank == 0 else {}, rank)
    reporter.message(_describe(plan, folder, session.device, communicator))
    if plan.manifest is not None and rank == 0:
        epoch = checkpoint.progress.epoch if checkpoint is not None else 0
        reporter.message(
            f"going on after epoch {epoch}" if epoch else "no checkpoint yet: from the start"
        )
    reason = why_not_compiled()
    if reason is not None:
        reporter.message(f"the first layer uses TensorFlow's own operations: {reason}")
    metrics = train(trainer, folder, reporter, checkpoint)
    # No rank leaves, and stops giving signs of life, before all are done.
    communicator.close()
    return Result(folder.path, metrics, rank)


def new_run_path(settings: TrainSettings) -> Path:
    """Return a name for a run folder, by model, seed and time (UTC)."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{settings.model}-seed{settings.seed}-{stamp}"


def _claim(
    folder: RunFolder, plan: Plan, manifest: dict[str, Any], stack: contextlib.ExitStack
) -> None:
    """Create the run folder if the run is new, and lock it for this session."""
    if plan.manifest is None:
        RunFolder.create(folder.path, plan.settings, manifest)
    stack.enter_context(folder.lock())


def _take_over(
    folder: RunFolder, plan: Plan, manifest: dict[str, Any], trainer: Trainer
) -> Checkpoint | None:
    """Load a resumed run's last checkpoint, if there is one, and note its settings from now on."""
    if plan.manifest is None:
        return None
    checkpoint = None
    if folder.last.exists():
        checkpoint = load_checkpoint(folder.last)
        variables = trainer.model.variables, trainer.optimizer_state
        require_fit(folder.last, checkpoint, *variables)
    if _is_finished(folder, plan, checkpoint):
        return checkpoint
    # Metrics mark a finished run, which this one is not any more if it has more epochs now.
    folder.metrics.unlink(missing_ok=True)
    folder.remove_leftovers()
    folder.write_settings(plan.settings, manifest["world_size"])
    folder.write_manifest(manifest)
    return checkpoint


def _is_finished(folder: RunFolder, plan: Plan, checkpoint: Checkpoint | None) -> bool:
    if checkpoint is None:
        return False
    if not checkpoint.progress.finished(plan.settings.epochs, plan.settings.patience):
        return False
    try:
        folder.read_metrics()
    except InputError:
        # Missing or damaged: they are made again from the checkpoint.
        return False
    return True


def _describe(plan: Plan, folder: RunFolder, device: str, communicator: Communicator) -> str:
    size = communicator.size
    ranks = (
        f"1 rank, {device}" if size == 1 else f"{size} ranks ({communicator.name}), {device} each"
    )
    return (
        f"training {plan.settings.model} on {plan.batching.examples:,} sequences of "
        f"{plan.dataset.length} bp in {plan.dataset.path}: {ranks}, "
        f"global batch {plan.batching.global_batch}; run folder {folder.path}"
    )
