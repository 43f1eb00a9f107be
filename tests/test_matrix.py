"""What a comparison trains."""

from __future__ import annotations

import pytest

from tal1_hvd.comparison.matrix import HOROVOD, SINGLE, Way, make_matrix


def test_ways_on_two_ranks():
    matrix = make_matrix([2])
    assert [way.title for way in matrix.strategies] == [
        "single process, 1 rank",
        "Horovod, 2 ranks",
        "MirroredStrategy, 2 ranks",
        "MultiWorkerMirroredStrategy, 2 ranks",
        "parameter server, 2 ranks",
        "asynchronous server, 2 ranks",
        "gossip, 2 ranks",
        "model-parallel, 2 ranks",
    ]
    assert {way.aggregation for way in matrix.strategies} == {
        "allreduce",
        "parameter-server",
        "parameter-server (staleness 4)",
        "gossip",
        "model-parallel",
    }


def test_more_ranks_are_for_strategies():
    added = {way.title for way in make_matrix([2, 4]).strategies}
    added -= {way.title for way in make_matrix([2]).strategies}
    assert added == {
        "Horovod, 4 ranks",
        "MirroredStrategy, 4 ranks",
        "MultiWorkerMirroredStrategy, 4 ranks",
    }


def test_scaling():
    matrix = make_matrix([2, 4])
    assert [(way.label, way.ranks, way.global_batch) for way in matrix.weak] == [
        (SINGLE, 1, 64),
        (HOROVOD, 2, 128),
        (HOROVOD, 4, 256),
    ]
    assert [(way.label, way.ranks, way.global_batch) for way in matrix.strong] == [
        (SINGLE, 1, 256),
        (HOROVOD, 2, 256),
        (HOROVOD, 4, 256),
    ]


def test_strong_scaling_leaves_out_ranks_that_do_not_divide_the_batch():
    assert [way.ranks for way in make_matrix([3, 4]).strong] == [1, 4]


def test_large_batches():
    assert make_matrix([2]).large_batch == []
    ways = make_matrix([2], large_batch=True).large_batch
    assert {way.ranks for way in ways} == {1}
    rules = {way.label for way in ways}
    assert len(rules) == 5
    for rule in rules:
        assert [way.global_batch for way in ways if way.label == rule] == [64, 256, 1024, 4096]


@pytest.mark.parametrize("large_batch", [False, True])
@pytest.mark.parametrize("ranks", [[2], [2, 4], [3, 5, 8]], ids=str)
def test_every_cell_has_a_folder_of_its_own(ranks, large_batch):
    cells = make_matrix(ranks, large_batch).cells(seeds=2)
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    # A machine that becomes slower does so for all ways.
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    for cell in cells:
        settings = cell.way.settings("data", cell.seed, 3)
        assert (settings.data, settings.seed, settings.epochs) == ("data", cell.seed, 3)
        assert settings.batch_size * cell.way.ranks == cell.way.global_batch


def test_names():
    way = Way("A (b): C", 2, {"batch_size": 7})
    assert (way.name, way.title) == ("a-b-c-2-batch7", "A (b): C, 2 ranks, batch 7 a rank")
    assert Way("one", 1).title == "one, 1 rank"
