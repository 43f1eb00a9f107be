"""Training that goes on when ranks are lost or join (elastic training).

Each process keeps the newest state that all ranks have reached. When a rank is lost or another one
waits to join, those that are there meet anew, take the newest state that any of them keeps, and go
on from the very example where it was: an epoch is one permutation of all examples, so what is left
of it can be dealt to any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.distributed.horovod_communicator import Membership, is_lost_rank
from tal1_hvd.training.checkpoint import Checkpoint, load_checkpoint, pack
from tal1_hvd.training.interruptions import RanksChanged
from tal1_hvd.training.plan import Plan, plan_batches

T = TypeVar("T")

# Meetings one after the other that end before anything new was reached.
_MOST_IN_VAIN = 5


class Memory:
    """What a process keeps from one meeting of ranks to the next; a `Keeper`.

    Attributes
    ----------
    device : str, optional
        What TensorFlow was started on.
    plan : Plan, optional
        What was worked out when it met others before.
    folder : Path, optional
        The run folder.
    checkpoint : Checkpoint, optional
        The newest state.
    """

    def __init__(self) -> None:
        self.device: str | None = None
        self.plan: Plan | None = None
        self.folder: Path | None = None
        self.checkpoint: Checkpoint | None = None
        self._membership: Membership | None = None

    @property
    def place(self) -> list[int]:
        """Epochs done, and examples of the next; -1 before any state."""
        if self.checkpoint is None:
            return [-1, -1]
        return [self.checkpoint.progress.epoch, self.checkpoint.progress.examples]

    def keep(self, checkpoint: Checkpoint) -> None:
        """Remember the newest state."""
        self.checkpoint = checkpoint

    def changed(self) -> bool:
        """Say whether this process has heard of ranks that come or go."""
        return self._membership is not None and self._membership.changed()

    def joined(self) -> None:
        """Listen for ranks that come or go; once Horovod has started."""
        self._membership = self._membership or Membership()

    def leave(self) -> None:
        """Leave the ranks that met."""
        if self._membership is not None:
            self._membership.leave()


def through_changes(meeting: Callable[[Memory], T]) -> T:
    """Call a function anew whenever ranks are lost or join, until it returns.

    Parameters
    ----------
    meeting : callable
        Connects the ranks that are there, and trains. Given what this process remembers.

    Returns
    -------
    object
        What it returns.
    """
    memory, in_vain = Memory(), 0
    while True:
        before = memory.place
        try:
            return meeting(memory)
        except RanksChanged:
            in_vain = 0
        except Exception as error:
            in_vain = in_vain + 1 if memory.place == before else 0
            if not is_lost_rank(error) or in_vain > _MOST_IN_VAIN:
                raise
        memory.leave()


@dataclass(frozen=True)
class Newest:
    """What ranks that meet know together.

    Attributes
    ----------
    checkpoint : Checkpoint, optional
        The newest that any of them has kept.
    folder : Path, optional
        The run folder.
    ranks : int, optional
        With which the run began.
    """

    checkpoint: Checkpoint | None = None
    folder: Path | None = None
    ranks: int | None = None


def newest(communicator: Communicator, memory: Memory) -> Newest:
    """Give all ranks what those that have met before remember; a collective."""
    note = {
        "folder": memory.folder and str(memory.folder),
        "ranks": memory.plan and memory.plan.goal.ranks,
        "place": memory.place,
    }
    notes = communicator.all_gather_json(note)
    places = [note["place"] for note in notes]
    leads = communicator.rank == places.index(max(places))
    met = next((note for note in notes if note["folder"] is not None), None)
    return Newest(
        share(communicator, memory.checkpoint if leads else None),
        met and Path(met["folder"]),
        met and met["ranks"],
    )


def share(communicator: Communicator, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """Give all ranks the checkpoint that at most one of them has; a collective."""
    if not any(communicator.all_gather_json(checkpoint is not None)):
        return None
    packed = b"" if checkpoint is None else pack(checkpoint)
    joined = communicator.all_gather(np.frombuffer(packed, dtype=np.uint8))
    return load_checkpoint(Path("another rank's state"), joined.tobytes())


def settled(plan: Plan, ranks: int, rank: int, size: int) -> Plan:
    """Return a plan for the ranks that there are now, `ranks` of which began the run."""
    goal = replace(plan.goal, ranks=ranks)
    batching = plan_batches(goal.settings, plan.dataset, rank, size, goal.ranks)
    return Plan(goal, plan.dataset, batching)
