"""Rows of files, of which more or fewer stay in memory: always what one array would give."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tal1_hvd.data import rows as rows_module
from tal1_hvd.data.rows import StoredRows, _pack, _unpack
from tests.helpers import refused

LENGTH = 6
COUNTS = (4, 1, 5)
WHOLE = np.random.default_rng(0).integers(0, 5, (sum(COUNTS), LENGTH), dtype=np.uint8)
# Bytes for no row, for some of the first file, for some of the last, for all; a row takes two.
BOUNDS = (0, 7, 13, 60)


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
        [],
        np.array([[9, 0], [5, 3], [4, 4]]),
        np.empty((0, 3), dtype=np.int64),
    ],
    ids=str,
)
def test_rows_by_hand(stored, rows):
    found = stored[rows]
    assert found.dtype == np.uint8
    expected = WHOLE[np.array(rows, dtype=int) if isinstance(rows, list) else rows]
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


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


@given(
    codes=npst.arrays(
        np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(0, 3)
    )
)
def test_packing(codes):
    packed = _pack(codes)
    assert packed.shape == (len(codes), -(-codes.shape[1] // 4))
    order = np.arange(len(codes))[::-1]
    assert np.array_equal(_unpack(packed, order, codes.shape[1]), codes[::-1])


def test_packing_by_hand():
    # C G T A, then A A with nothing behind them.
    assert _pack(np.array([[1, 2, 3, 0, 0, 0]], dtype=np.uint8)).tolist() == [
        [1 + 2 * 4 + 3 * 16, 0]
    ]


@pytest.mark.parametrize(("bound", "kept"), [(0, 0), (1000, 4), (10**9, 10)])
def test_bound_is_kept(tmp_path, bound, kept):
    """A row of 1,000 bases takes 250 bytes; what is kept is not read again."""
    np.save(tmp_path / "0.npy", np.ones((10, 1000), dtype=np.uint8))
    stored = StoredRows([opened(tmp_path / "0.npy")], bound)
    assert stored[:].all()
    os.truncate(tmp_path / "0.npy", 128)
    assert stored[:kept].all()
    for row in range(kept, 10):
        with refused("cut short"):
            stored[row]


def test_rows_with_n_are_read_each_time(tmp_path):
    codes = np.zeros((3, 8), dtype=np.uint8)
    codes[1, 5] = 4
    np.save(tmp_path / "0.npy", codes)
    stored = StoredRows([opened(tmp_path / "0.npy")], 10**6)
    assert np.array_equal(stored[:], codes)
    os.truncate(tmp_path / "0.npy", 128)
    assert np.array_equal(stored[[0, 2]], codes[[0, 2]])
    with refused("cut short"):
        stored[1]


def test_blocks_are_read_when_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_BLOCK_BYTES", 5 * 1024)
    codes = np.random.default_rng(1).integers(0, 4, (2500, 5), dtype=np.uint8)
    np.save(tmp_path / "0.npy", codes[:1500])
    np.save(tmp_path / "1.npy", codes[1500:])
    stored = StoredRows([opened(tmp_path / f"{number}.npy") for number in range(2)], 10**6)
    # The second thousand and a bit, which lie in both files.
    assert np.array_equal(stored[[1024, 2047]], codes[[1024, 2047]])
    os.truncate(tmp_path / "1.npy", 128)
    assert np.array_equal(stored[1024:2048], codes[1024:2048])
    with refused(tmp_path / "1.npy", "cut short"):
        stored[2048]


def test_file_cut_short_meanwhile(tmp_path):
    np.save(tmp_path / "0.npy", WHOLE)
    stored = StoredRows([opened(tmp_path / "0.npy")], 0)
    os.truncate(tmp_path / "0.npy", 128 + 5 * LENGTH)
    assert np.array_equal(stored[:5], WHOLE[:5])
    with refused(tmp_path / "0.npy", "cut short"):
        stored[:6]
