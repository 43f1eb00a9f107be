"""The dataset folder: opened as memory maps, checked by checksums.

::

    dataset.json    format version, task, parameters, seed, counts, length, SHA-256 of each file
    sequences.npy   uint8, shape=(n, length), A C G T N = 0 1 2 3 4
    labels.npy      uint8, shape=(n,), 0 or 1
    splits.npy      uint8, shape=(n,), 0 train, 1 validation, 2 test
    ids.txt         one id a line
    sites.bed       simulated data: sequence id, start, end, motif, 0, strand (0-based half-open)

Big ones hold ``dataset.json`` and, in ``shards/00000``, ``shards/00001`` and so on, the other files
for a part of the rows each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tal1_hvd._version import __version__
from tal1_hvd.data.files import DAMAGED, exists, require_plain, sha256
from tal1_hvd.data.rows import StoredRows
from tal1_hvd.data.sites import Site, read_sites
from tal1_hvd.errors import InputError

FORMAT_VERSION = 1
_CHECKED = ("sequences.npy", "labels.npy", "splits.npy", "ids.txt")
SPLITS = {"train": 0, "validation": 1, "test": 2}
# MB of sequences that a process may keep in memory, beside the 600 that TensorFlow takes.
CACHE_MB = 512


@dataclass(frozen=True)
class Dataset:
    """An opened dataset folder.

    Attributes
    ----------
    path : Path
    description : dict
        What `dataset.json` holds.
    folders : tuple of Path
        Where its arrays are: `path` itself, or its shards.
    sequences : np.ndarray or StoredRows, shape=(n, length), dtype=uint8
        A memory map; rows of several files or of one that is too big for it.
    labels, splits : np.ndarray, shape=(n,), dtype=uint8
    """

    path: Path
    description: dict[str, Any]
    folders: tuple[Path, ...]
    sequences: np.ndarray | StoredRows
    labels: np.ndarray
    splits: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def length(self) -> int:
        """Length of every sequence in bp."""
        return self.sequences.shape[1]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the checksums of the arrays: equal where the data is."""
        import hashlib

        checksums = self.description["sha256"]
        joined = "".join(
            checksums[_name(self.path, folder / f"{array}.npy")]
            for folder in self.folders
            for array in ("sequences", "labels", "splits")
        )
        return hashlib.sha256(joined.encode()).hexdigest()

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of a split.

        Parameters
        ----------
        split : {"train", "validation", "test", "all"}

        Returns
        -------
        np.ndarray, shape=(n_split,), dtype=int64
            Ascending.
        """
        if split == "all":
            return np.arange(len(self))
        return np.flatnonzero(self.splits == SPLITS[split])

    def verify(self) -> None:
        """Compare every file's SHA-256 with the one noted when it was made, after training.

        Raises
        ------
        InputError
            A file was changed, so that what was trained on is unknown.
        """
        advice = "make the dataset again and train anew, with another --out"
        _verify(self.path, self.folders, self.description["sha256"], advice)

    def require_whole(self) -> None:
        """Look whether the file of mapped sequences is there in full, before they are read.

        To read what was cut off would end the process by a signal (SIGBUS).

        Raises
        ------
        InputError
            It was cut short.
        """
        if not isinstance(self.sequences, np.memmap):
            # These look by themselves.
            return
        file = self.sequences.filename
        # What was removed stays mapped.
        with suppress(OSError):
            if file.stat().st_size < self.sequences.offset + self.sequences.nbytes:
                raise InputError(
                    f"{file}: was cut short after it was opened; make the dataset again"
                )

    def ids(self) -> list[str]:
        """Return the id of every sequence, in row order."""
        return [name for folder in self.folders for name in _read_ids(folder / "ids.txt")]

    def sites(self) -> list[Site]:
        """Return the planted sites, in row order; empty where the data was not simulated."""
        sites: list[Site] = []
        for path in [folder / "sites.bed" for folder in self.folders]:
            if exists(path):
                sites += read_sites(path)
        return sites


def shard_folder(path: Path, number: int) -> Path:
    """Return a shard's folder, from 0."""
    return path / "shards" / f"{number:05d}"


def open_dataset(path: str | Path, *, verify: bool = True, cache_mb: int = CACHE_MB) -> Dataset:
    """Open a dataset folder; its sequences stay on disk until they are used.

    Parameters
    ----------
    path : str or Path
    verify : bool
        Compare every file's SHA-256 with the one noted when it was made.
    cache_mb : int
        How much of the sequences may stay in memory once it has been read (1 MB is 1,000,000
        bytes); the rest is read from disk each time.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        The folder is missing, incomplete, of another format version, inconsistent, or was edited.
    """
    if not str(path):
        raise InputError("--data: the name of the dataset folder is empty")
    path = Path(path)
    description = _read_description(path)
    parts = _parts(path, description)
    if verify:
        _verify(path, parts, description["sha256"], "make the dataset again")
    dataset = Dataset(
        path=path,
        description=description,
        folders=tuple(parts),
        sequences=_open_sequences(parts, description["length"], cache_mb),
        labels=np.concatenate([_load(folder / "labels.npy", (n,)) for folder, n in parts.items()]),
        splits=np.concatenate([_load(folder / "splits.npy", (n,)) for folder, n in parts.items()]),
    )
    for folder, count in parts.items():
        ids = len(_read_ids(folder / "ids.txt"))
        if ids != count:
            raise InputError(f"{folder / 'ids.txt'}: expected {count} ids, got {ids}")
    if dataset.labels.max(initial=0) > 1:
        raise InputError(f"{path / 'labels.npy'}: holds labels other than 0 and 1")
    if dataset.splits.max(initial=0) > max(SPLITS.values()):
        raise InputError(f"{path / 'splits.npy'}: holds splits other than 0, 1 and 2")
    return dataset


def _read_description(path: Path) -> dict[str, Any]:
    file = path / "dataset.json"
    if not exists(path):
        raise InputError(f"{path}: no such dataset folder (make one with simulate or import)")
    if exists(file):
        require_plain(path, links=True)
    try:
        description = json.loads(file.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: not a dataset folder: it has no dataset.json") from None
    except NotADirectoryError:
        raise InputError(
            f"{path}: a file, not a dataset folder (make one with simulate or import)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    version = description.get("format_version") if isinstance(description, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:
        raise InputError(
            f"{file}: format version {version!r}, this tal1-hvd {__version__} reads version "
            f"{FORMAT_VERSION}; make the dataset again"
        )
    wanted = {"count": int, "length": int, "sha256": dict, "task": str, "parameters": dict}
    for key, kind in wanted.items():
        if not isinstance(description.get(key), kind):
            raise InputError(f"{file}: {key!r} is missing or not of type {kind.__name__}")
    if description["count"] < 1 or description["length"] < 1:
        raise InputError(f"{file}: the dataset holds no sequences")
    shards = description.get("shards", [description["count"]])
    if not isinstance(shards, list) or not all(type(rows) is int and rows > 0 for rows in shards):
        raise InputError(f"{file}: 'shards' is not a list of numbers of rows")
    if sum(shards) != description["count"]:
        raise InputError(f"{file}: its shards hold {sum(shards)} rows, not {description['count']}")
    for folder in _parts(path, description):
        for name in _CHECKED:
            if not isinstance(description["sha256"].get(_name(path, folder / name)), str):
                missing = _name(path, folder / name)
                raise InputError(f"{file}: has no SHA-256 of {missing}; make the dataset again")
    return description


def _parts(path: Path, description: dict[str, Any]) -> dict[Path, int]:
    """Return the folders that hold the arrays, and how many rows each."""
    if "shards" not in description:
        return {path: description["count"]}
    return {shard_folder(path, k): rows for k, rows in enumerate(description["shards"])}


def _name(path: Path, file: Path) -> str:
    """Return what `dataset.json` calls a file of the dataset."""
    return file.relative_to(path).as_posix()


def _verify(path: Path, folders: Iterable[Path], checksums: dict[str, Any], advice: str) -> None:
    for file in [folder / name for folder in folders for name in (*_CHECKED, "sites.bed")]:
        if _name(path, file) not in checksums:
            # Data that was not simulated has no sites.
            continue
        expected = checksums[_name(path, file)]
        try:
            found = sha256(file)
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}") from None
        if found != expected:
            raise InputError(
                f"{file}: was changed after it was made (SHA-256 {found[:12]}, "
                f"dataset.json says {str(expected)[:12]}); {advice}"
            )


def _open_sequences(
    parts: Mapping[Path, int], length: int, cache_mb: int
) -> np.ndarray | StoredRows:
    maps = [
        _load(folder / "sequences.npy", (count, length), mmap=True)
        for folder, count in parts.items()
    ]
    if len(maps) == 1 and maps[0].nbytes <= cache_mb * 1_000_000:
        return maps[0]
    try:
        return StoredRows(maps, cache_mb * 1_000_000)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from None


def _read_ids(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None


def _load(file: Path, shape: tuple[int, ...], mmap: bool = False) -> np.ndarray:
    try:
        # Mapped even where it is copied below: a map cannot be larger than the file.
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except DAMAGED as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{file}: cannot be read: holds several arrays, one was expected")
    if array.shape != shape or array.dtype != np.uint8:
        raise InputError(
            f"{file}: expected uint8 of shape {shape}, got {array.dtype} of shape {array.shape}"
        )
    if not array.flags.c_contiguous:
        raise InputError(f"{file}: expected rows one after the other (C order), got columns")
    return array if mmap else np.array(array)
