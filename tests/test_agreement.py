"""An error of one rank stops them all, with its own text."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tal1_hvd.distributed.agreement import AgreedError, together
from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.errors import InputError


class Among(SingleProcess):
    """A rank whose fellows report the given errors (None: no error)."""

    def __init__(self, rank, errors):
        self.rank, self.size = rank, len(errors)
        self._errors, self.gathered = errors, 0

    def all_gather_json(self, value):
        self.gathered += 1
        return [value if rank == self.rank else error for rank, error in enumerate(self._errors)]


def failing(text):
    def action():
        if text is not None:
            raise InputError(text)
        return "done"

    return action


@pytest.mark.parametrize("size", [1, 2, 4])
def test_nobody_fails(size):
    value = object()
    calls = []
    communicator = Among(0, [None] * size)
    assert together(communicator, lambda: calls.append(1) or value) is value
    assert calls == [1]
    assert communicator.gathered == 1


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        (["no file"], "no file"),
        (["no file", "no file"], "no file"),
        (["no file", None], "no file"),
        (["first", "second"], "first"),
        ([None, "no file"], "rank 1: no file"),
        ([None, None, "late", "later"], "rank 2: late"),
        ([None, "", None], "rank 1: "),
    ],
)
def test_all_ranks_stop_with_the_lowest_failing_ranks_error(errors, text):
    for rank, own in enumerate(errors):
        with pytest.raises(AgreedError) as caught:
            together(Among(rank, errors), failing(own))
        assert str(caught.value) == text


def test_agreed_error_is_bad_input():
    assert issubclass(AgreedError, InputError)


def test_faults_are_no_input_errors():
    """Only what the user did wrong is agreed upon; a fault ends its rank, and so the job."""
    communicator = Among(0, [None, None])

    def fault():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        together(communicator, fault)
    assert communicator.gathered == 0


def test_single_process():
    assert together(SingleProcess(), lambda: 3) == 3
    with pytest.raises(AgreedError, match=r"^wrong$"):
        together(SingleProcess(), failing("wrong"))


def test_real_ranks():
    size = 3
    slots, barrier = [None] * size, threading.Barrier(size, timeout=60)

    class Rank(SingleProcess):
        def __init__(self, rank):
            self.rank, self.size = rank, size

        def all_gather_json(self, value):
            slots[self.rank] = value
            barrier.wait()
            return list(slots)

    def work(rank):
        with pytest.raises(AgreedError) as caught:
            together(Rank(rank), failing("no data" if rank == 1 else None))
        return str(caught.value)

    with ThreadPoolExecutor(size) as pool:
        assert list(pool.map(work, range(size))) == ["rank 1: no data"] * size
