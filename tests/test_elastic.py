"""What ranks that meet anew tell each other, on ranks that are threads of this process."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.training import elastic
from tal1_hvd.training.checkpoint import Checkpoint, Progress
from tal1_hvd.training.elastic import Memory, newest, settled, share, through_changes
from tal1_hvd.training.interruptions import RanksChanged
from tal1_hvd.training.plan import Goal, Plan, plan_batches
from tal1_hvd.training.settings import TrainSettings
from tests.test_train import Rank

SETTINGS = TrainSettings(batch_size=10, elastic=True, fixed_global_batch=True)


@pytest.fixture(scope="module")
def plan(learnable_data):
    """Return the plan of the first of three ranks."""
    dataset = open_dataset(learnable_data)
    goal = Goal(SETTINGS, str(learnable_data), None, 3)
    return Plan(goal, dataset, plan_batches(SETTINGS, dataset, 0, 3, 3))


def remembering(plan=None, epoch=None, examples=0):
    memory = Memory()
    memory.plan, memory.folder = plan, plan and Path("run")
    if epoch is not None:
        history = [{"epoch": number} for number in range(epoch)]
        progress = Progress(epoch=epoch, examples=examples, train_seconds=1.0, history=history)
        weights = [np.full(3, 10.0 * epoch + examples)]
        memory.checkpoint = Checkpoint(progress, weights, weights, weights)
    return memory


def meet(memories):
    """Return what each rank learns."""
    size = len(memories)
    slots, barrier = [None] * size, threading.Barrier(size, timeout=30)
    ranks = [Rank(rank, size, slots, barrier) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(newest, ranks, memories))


def test_nobody_knows_anything():
    for found in meet([remembering(), remembering()]):
        assert (found.checkpoint, found.folder, found.ranks) == (None, None, None)


def test_all_learn_the_newest(plan):
    """One rank is new, and one has missed the last state."""
    memories = [remembering(), remembering(plan, 2, 0), remembering(plan, 2, 5)]
    for found in meet(memories):
        assert (found.folder, found.ranks) == (Path("run"), 3)
        assert found.checkpoint.progress == memories[2].checkpoint.progress
        for group in ("model", "optimizer", "best"):
            np.testing.assert_array_equal(getattr(found.checkpoint, group)[0], [25.0] * 3)


def test_lost_before_anything_was_reached(plan):
    for found in meet([remembering(plan), remembering()]):
        assert (found.checkpoint, found.folder, found.ranks) == (None, Path("run"), 3)


def test_share_alone():
    own = remembering(epoch=1).checkpoint
    assert share(SingleProcess(), None) is None
    assert share(SingleProcess(), own).progress == own.progress


@pytest.mark.parametrize(("size", "batch"), [(1, 30), (2, 15), (4, 8)])
def test_as_many_ranks_as_there_are(plan, size, batch):
    """Whatever the plan of a rank that has just joined takes for the beginning."""
    joined = replace(plan, goal=replace(plan.goal, ranks=9))
    for before in (plan, joined):
        found = settled(before, 3, 0, size)
        assert found.goal.ranks == 3
        assert (found.batching.batch, found.batching.global_batch) == (batch, 30)


class TestThroughChanges:
    @pytest.fixture(autouse=True)
    def lost(self, monkeypatch):
        monkeypatch.setattr(elastic, "is_lost_rank", lambda error: "lost" in str(error))

    def test_until_it_returns(self):
        def meeting(memory):
            met.append(memory)
            if len(met) < 4:
                memory.keep(remembering(epoch=len(met)).checkpoint)
                raise RanksChanged if len(met) % 2 else OSError("a rank was lost")
            return memory.checkpoint.progress.epoch

        met = []
        assert through_changes(meeting) == 3
        assert all(memory is met[0] for memory in met)

    def test_other_errors_are_not_for_it(self):
        def meeting(memory):
            raise ValueError("this disk is on fire")

        with pytest.raises(ValueError, match="on fire"):
            through_changes(meeting)

    def test_not_for_ever(self):
        def meeting(memory):
            met.append(memory)
            raise OSError("lost again")

        met = []
        with pytest.raises(OSError, match="lost again"):
            through_changes(meeting)
        assert len(met) == 6
