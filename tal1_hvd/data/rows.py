"""Rows of codes in one file or several, of which only so much stays in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tal1_hvd.data.encoding import UNKNOWN
from tal1_hvd.errors import InputError

# Of rows that are read and packed together when the first of them is asked for.
_BLOCK_BYTES = 1_500_000
# The four bases of a byte, the first in its lowest bits, as one number of four bytes.
_BASES = (np.arange(256)[:, None] >> np.arange(0, 8, 2) & 3).astype(np.uint8)
_UNPACKED = np.ascontiguousarray(_BASES).view(np.uint32).ravel()


class StoredRows:
    """An array of codes on disk, read by rows.

    Rows stay in memory, four bases a byte, as far as they fit into the bound; all others, and those
    with an N, are read from their file each time (from the operating system's own cache of the
    disk, where there is room).

    Parameters
    ----------
    maps : sequence of np.memmap
        Opened ``.npy`` files, uint8 of shape (n_k, length), one after the other.
    resident_bytes : int
        How much may stay in memory.

    Attributes
    ----------
    shape : tuple of int
        (n, length).
    dtype : np.dtype
        uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, maps: Sequence[np.memmap], resident_bytes: int):
        self.shape = (sum(map(len, maps)), maps[0].shape[1])
        self._starts = np.cumsum([0, *map(len, maps)])
        self._files = [_File(stored) for stored in maps]
        width = -(-self.shape[1] // 4)
        # Memory is taken when it is written to.
        self._packed = np.empty((min(len(self), resident_bytes // width), width), dtype=np.uint8)
        self._is_packed = np.zeros(len(self), dtype=bool)
        self._block = max(1, _BLOCK_BYTES // self.shape[1])
        self._seen = np.zeros(-(-len(self._packed) // self._block), dtype=bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """Read rows.

        Parameters
        ----------
        rows : int, slice, or np.ndarray of int, any shape
            From 0.

        Returns
        -------
        np.ndarray, shape=(*rows.shape, length), dtype=uint8
            A copy.

        Raises
        ------
        IndexError
            There is no such row, or rows are not numbers.
        InputError
            A file was cut short.
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows)
        flat = rows.ravel()
        if flat.size and flat.dtype.kind not in "iu":
            raise IndexError(f"rows are numbers, got {flat.dtype}")
        if flat.size and not 0 <= flat.min() <= flat.max() < len(self):
            raise IndexError(f"rows {flat.min()} to {flat.max()} of {len(self)}")
        if not flat.size:
            # An empty list has no numbers to be of a kind.
            flat = flat.astype(np.int64)
        blocks = np.unique(flat[flat < len(self._packed)] // self._block)
        for block in blocks[~self._seen[blocks]]:
            self._pack(block)
        packed = self._is_packed[flat]
        codes = _unpack(self._packed, np.where(packed, flat, 0), self.shape[1])
        absent = np.flatnonzero(~packed)
        self._read(flat[absent], codes, absent)
        return codes.reshape(*rows.shape, self.shape[1])

    def _pack(self, block: int) -> None:
        """Take a block of rows into memory."""
        start = block * self._block
        rows = np.arange(start, min(start + self._block, len(self._packed)))
        codes = np.empty((len(rows), self.shape[1]), dtype=np.uint8)
        for number, chosen in self._by_file(rows):
            self._files[number].read_range(rows[chosen] - self._starts[number], codes, chosen)
        self._packed[rows] = _pack(codes)
        self._is_packed[rows] = codes.max(axis=1) < UNKNOWN
        self._seen[block] = True

    def _read(self, rows: np.ndarray, into: np.ndarray, places: np.ndarray) -> None:
        """Read rows from their files into some rows of `into`."""
        for number, chosen in self._by_file(rows):
            self._files[number].read(rows[chosen] - self._starts[number], into, places[chosen])

    def _by_file(self, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Return, for each file, where in `rows` those of the file are."""
        where = np.searchsorted(self._starts, rows, side="right") - 1
        return [(number, np.flatnonzero(where == number)) for number in np.unique(where)]


class _File:
    def __init__(self, stored: np.memmap):
        self._path = Path(stored.filename)
        self._offset = stored.offset
        self._file = self._path.open("rb", buffering=0)

    def read(self, rows: np.ndarray, into: np.ndarray, places: np.ndarray) -> None:
        """Fill some rows of `into`."""
        width = into.shape[1]
        memory, file = memoryview(into).cast("B"), self._file.fileno()
        starts = (self._offset + width * rows).tolist()
        for start, place in zip(starts, (width * places).tolist(), strict=True):
            if os.preadv(file, [memory[place : place + width]], start) != width:
                raise self._cut_short()

    def read_range(self, rows: np.ndarray, into: np.ndarray, places: np.ndarray) -> None:
        """Fill some rows of `into`, both consecutive, by one read."""
        wanted = into[places[0] : places[-1] + 1]
        start = self._offset + int(rows[0]) * into.shape[1]
        if os.preadv(self._file.fileno(), [wanted], start) != wanted.nbytes:
            raise self._cut_short()

    def _cut_short(self) -> InputError:
        return InputError(f"{self._path}: was cut short after it was opened")


def _pack(codes: np.ndarray) -> np.ndarray:
    """Return codes below 4, shape (n, length), as four a byte."""
    if codes.shape[1] % 4:
        codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 4)))
    fours = codes.view(np.uint32)
    joined = fours | fours >> 6 | fours >> 12 | fours >> 18
    # Little-endian: the first base lies in the lowest byte.
    return joined.astype(np.uint8)


def _unpack(packed: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Return some rows of what `_pack` made, shape (rows, length)."""
    if not len(packed):
        return np.empty((len(rows), length), dtype=np.uint8)
    codes = np.take(_UNPACKED, np.take(packed, rows, axis=0)).view(np.uint8)
    return np.ascontiguousarray(codes[:, :length])
