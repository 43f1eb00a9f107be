"""Rows of files, of which more or fewer are memory-mapped: always what one array would give."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tal1_hvd.data.rows import StoredRows
from tests.helpers import refused

LENGTH = 6
COUNTS = (4, 1, 5)
WHOLE = np.random.default_rng(0).integers(0, 5, (sum(COUNTS), LENGTH), dtype=np.uint8)
# Bytes after which none, one, two or all files are read from disk.
BOUNDS = (0, 24, 30, 60)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    starts = np.cumsum((0, *COUNTS))
    paths = [folder / f"{number}.npy" for number in range(len(COUNTS))]
    for path, start, count in zip(paths, starts, COUNTS, strict=False):
        np.save(path, WHOLE[start : start + count])
    return [opened(path) for path in paths]


def opened(path):
    return np.load(path, mmap_mode="r")


@pytest.fixture(params=BOUNDS)
def stored(files, request):
    return StoredRows(files, request.param)


def test_is_like_an_array(stored):
    assert (len(stored), stored.shape, stored.dtype) == (10, (10, LENGTH), np.uint8)


@pytest.mark.parametrize(
    "rows",
    [
        0,
        9,
        np.int64(4),
        slice(None),
        slice(3, 6),
        slice(9, 0, -3),
        slice(5, 5),
        [0, 4, 5],
        np.array([7, 7, 0, 4]),
        np.array([[9, 0], [5, 3], [4, 4]]),
        np.empty((0, 3), dtype=np.int64),
    ],
    ids=str,
)
def test_rows_by_hand(stored, rows):
    found = stored[rows]
    assert found.dtype == np.uint8
    assert found.shape == WHOLE[rows].shape
    assert np.array_equal(found, WHOLE[rows])


@given(rows=npst.arrays(np.int64, npst.array_shapes(max_dims=3), elements=st.integers(0, 9)))
@settings(deadline=None)
@pytest.mark.parametrize("bound", BOUNDS)
def test_any_rows(files, bound, rows):
    assert np.array_equal(StoredRows(files, bound)[rows], WHOLE[rows])


@pytest.mark.parametrize("rows", [10, -1, [3, 10], [0, -11]], ids=str)
def test_rows_that_are_not_there(stored, rows):
    with pytest.raises(IndexError, match="of 10"):
        stored[rows]


@pytest.mark.parametrize("rows", [WHOLE[:, 0] > 2, [0.0, 1.0]], ids=["mask", "fractions"])
def test_rows_that_are_not_numbers(stored, rows):
    with pytest.raises(IndexError, match="rows are numbers, got"):
        stored[rows]


def test_what_is_read_can_be_changed_without_a_trace(stored):
    stored[2][:] = 77
    assert np.array_equal(stored[2], WHOLE[2])


def resident(path):
    """Return how much of a file is mapped into this process's memory, in bytes."""
    kilobytes, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = line.split()[-1] == str(path)
        elif inside and line.startswith("Rss:"):
            kilobytes += int(line.split()[1])
    return 1024 * kilobytes


@pytest.mark.parametrize(("bound", "mapped"), [(0, 0), (1_000_000, 1), (3_000_000, 2)])
def test_bound_is_kept(tmp_path, bound, mapped):
    files = [tmp_path / "0.npy", tmp_path / "1.npy"]
    for file in files:
        np.save(file, np.ones((1000, 1000), dtype=np.uint8))
    stored = StoredRows([opened(file) for file in files], bound + 1000)
    assert stored[:].all()
    in_memory = [resident(file) >= 1_000_000 for file in files]
    assert in_memory == [number < mapped for number in range(2)]
    assert all(resident(file) == 0 for file in files[mapped:])


def test_file_cut_short_meanwhile(tmp_path):
    np.save(tmp_path / "0.npy", WHOLE)
    stored = StoredRows([opened(tmp_path / "0.npy")], 0)
    os.truncate(tmp_path / "0.npy", 128 + 5 * LENGTH)
    assert np.array_equal(stored[:5], WHOLE[:5])
    with refused(tmp_path / "0.npy", "cut short"):
        stored[:6]
