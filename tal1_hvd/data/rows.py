"""Rows of codes in one file or several, of which only so much stays in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tal1_hvd.errors import InputError


class StoredRows:
    """An array of codes on disk, read by rows.

    Files are memory-mapped as long as they fit into the bound; what has been read of them stays in
    memory. Rows of the others are read anew each time (from the operating system's own cache of
    the disk, where there is room).

    Parameters
    ----------
    maps : sequence of np.memmap
        Opened ``.npy`` files, uint8 of shape (n_k, length), one after the other.
    resident_bytes : int
        How much may be memory-mapped.

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
        self._files = [
            _Mapped(stored) if end <= resident_bytes else _Unmapped(stored)
            for stored, end in zip(maps, np.cumsum([stored.nbytes for stored in maps]), strict=True)
        ]

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
        codes = np.empty((flat.size, self.shape[1]), dtype=np.uint8)
        where = np.searchsorted(self._starts, flat, side="right") - 1
        for number in np.unique(where):
            chosen = np.flatnonzero(where == number)
            self._files[number].read(flat[chosen] - self._starts[number], codes, chosen)
        return codes.reshape(*rows.shape, self.shape[1])


class _Mapped:
    def __init__(self, stored: np.memmap):
        self._stored = stored

    def read(self, rows: np.ndarray, into: np.ndarray, places: np.ndarray) -> None:
        """Fill some rows of `into`."""
        into[places] = self._stored[rows]


class _Unmapped:
    def __init__(self, stored: np.memmap):
        self._path = Path(stored.filename)
        self._offset = stored.offset
        self._file = self._path.open("rb", buffering=0)

    def read(self, rows: np.ndarray, into: np.ndarray, places: np.ndarray) -> None:
        """Fill some rows of `into`."""
        width = into.shape[1]
        memory = memoryview(into).cast("B")
        starts = (self._offset + width * rows).tolist()
        file = self._file.fileno()
        for start, place in zip(starts, (width * places).tolist(), strict=True):
            if os.preadv(file, [memory[place : place + width]], start) != width:
                raise InputError(f"{self._path}: was cut short after it was opened")
