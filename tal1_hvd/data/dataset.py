"""The dataset folder: written whole or not at all, opened as memory maps, checked by checksums.

::

    dataset.json    format version, task, parameters, seed, counts, length, SHA-256 of each file
    sequences.npy   uint8, shape=(n, length), A C G T N = 0 1 2 3 4
    labels.npy      uint8, shape=(n,), 0 or 1
    splits.npy      uint8, shape=(n,), 0 train, 1 validation, 2 test
    ids.txt         one id a line
    sites.bed       simulated data: sequence id, start, end, motif, 0, strand (0-based half-open)
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tal1_hvd._version import __version__
from tal1_hvd.data.encoding import ALPHABET
from tal1_hvd.data.files import atomic_folder, exists, sha256
from tal1_hvd.errors import InputError

FORMAT_VERSION = 1
_CHECKED = ("sequences.npy", "labels.npy", "splits.npy", "ids.txt")
SPLITS = {"train": 0, "validation": 1, "test": 2}


class Site(NamedTuple):
    """A planted motif site: 0-based half-open, in bp from the sequence's start."""

    sequence_id: str
    start: int
    end: int
    motif: str
    strand: str


@dataclass(frozen=True)
class Dataset:
    """An opened dataset folder.

    Attributes
    ----------
    path : Path
    description : dict
        What `dataset.json` holds.
    sequences : np.ndarray, shape=(n, length), dtype=uint8
        A memory map.
    labels, splits : np.ndarray, shape=(n,), dtype=uint8
    """

    path: Path
    description: dict[str, Any]
    sequences: np.ndarray
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

        files = self.description["sha256"]
        joined = "".join(files[name] for name in ("sequences.npy", "labels.npy", "splits.npy"))
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

    def ids(self) -> list[str]:
        """Return the id of every sequence, in row order."""
        return (self.path / "ids.txt").read_text(encoding="utf-8").splitlines()

    def sites(self) -> list[Site]:
        """Return the planted sites; empty where the data was not simulated."""
        path = self.path / "sites.bed"
        if not path.exists():
            return []
        with path.open(encoding="utf-8") as handle:
            fields = (line.rstrip("\n").split("\t") for line in handle)
            return [Site(f[0], int(f[1]), int(f[2]), f[3], f[5]) for f in fields]


@dataclass(frozen=True)
class DatasetWriter:
    """A dataset being made: fill `sequences`, then call `finish` once.

    Attributes
    ----------
    folder : Path
        Where the files go until they are complete.
    sequences : np.memmap, shape=(n, length), dtype=uint8
    """

    folder: Path
    sequences: np.memmap

    def finish(
        self,
        *,
        labels: np.ndarray,
        splits: np.ndarray,
        ids: Sequence[str],
        task: str,
        parameters: dict[str, Any],
        seed: int,
        sites: Iterable[Site] | None = None,
    ) -> None:
        """Write everything but the sequences, and the description with all checksums.

        Parameters
        ----------
        labels, splits : np.ndarray, shape=(n,)
        ids : sequence of str, length n
            Distinct, without white space.
        task : str
        parameters : dict
            All that made the data, JSON values.
        seed : int
        sites : iterable of Site, optional
        """
        self.sequences.flush()
        np.save(self.folder / "labels.npy", labels.astype(np.uint8))
        np.save(self.folder / "splits.npy", splits.astype(np.uint8))
        (self.folder / "ids.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
        if sites is not None:
            with (self.folder / "sites.bed").open("w", encoding="utf-8") as handle:
                handle.writelines(
                    f"{s.sequence_id}\t{s.start}\t{s.end}\t{s.motif}\t0\t{s.strand}\n"
                    for s in sites
                )
        files = sorted(path for path in self.folder.iterdir())
        description = {
            "format_version": FORMAT_VERSION,
            "tool_version": __version__,
            "task": task,
            "parameters": parameters,
            "seed": seed,
            "alphabet": ALPHABET,
            "length": self.sequences.shape[1],
            "count": len(labels),
            "positives": int(np.sum(labels)),
            "negatives": int(len(labels) - np.sum(labels)),
            "splits": {name: int(np.sum(splits == code)) for name, code in SPLITS.items()},
            "sha256": {path.name: sha256(path) for path in files},
        }
        (self.folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n")


@contextmanager
def create_dataset(out: str | Path, count: int, length: int) -> Iterator[DatasetWriter]:
    """Make a dataset folder that appears under its name only once it is complete.

    Parameters
    ----------
    out : str or Path
        Must not exist, or be an empty folder.
    count : int
        Number of sequences.
    length : int
        Length of every sequence in bp.

    Yields
    ------
    DatasetWriter

    Raises
    ------
    InputError
        `out` exists or cannot be written.
    """
    with atomic_folder(Path(out)) as folder:
        sequences = np.lib.format.open_memmap(
            folder / "sequences.npy", mode="w+", dtype=np.uint8, shape=(count, length)
        )
        # A full disk is met here; writing into a map of a hole would end the process.
        with (folder / "sequences.npy").open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, sequences.offset + sequences.nbytes)
        yield DatasetWriter(folder, sequences)


def open_dataset(path: str | Path, *, verify: bool = True) -> Dataset:
    """Open a dataset folder; its sequences stay on disk until they are used.

    Parameters
    ----------
    path : str or Path
    verify : bool
        Compare every file's SHA-256 with the one noted when it was made.

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
    if verify:
        _verify(path, description["sha256"])
    count, length = description["count"], description["length"]
    dataset = Dataset(
        path=path,
        description=description,
        sequences=_load(path / "sequences.npy", (count, length), mmap=True),
        labels=_load(path / "labels.npy", (count,)),
        splits=_load(path / "splits.npy", (count,)),
    )
    try:
        ids = len(dataset.ids())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path / 'ids.txt'}: cannot be read: {error}") from None
    if ids != count:
        raise InputError(f"{path / 'ids.txt'}: expected {count} ids, got {ids}")
    if dataset.labels.max(initial=0) > 1:
        raise InputError(f"{path / 'labels.npy'}: holds labels other than 0 and 1")
    if dataset.splits.max(initial=0) > max(SPLITS.values()):
        raise InputError(f"{path / 'splits.npy'}: holds splits other than 0, 1 and 2")
    return dataset


def _read_description(path: Path) -> dict[str, Any]:
    file = path / "dataset.json"
    if not exists(path):
        raise InputError(f"{path}: no such dataset folder (make one with simulate or import)")
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
    for name in _CHECKED:
        if not isinstance(description["sha256"].get(name), str):
            raise InputError(f"{file}: has no SHA-256 of {name}; make the dataset again")
    if description["count"] < 1 or description["length"] < 1:
        raise InputError(f"{file}: the dataset holds no sequences")
    return description


def _verify(path: Path, checksums: dict[str, str]) -> None:
    for name, expected in checksums.items():
        file = path / Path(name).name
        try:
            found = sha256(file)
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}") from None
        if found != expected:
            raise InputError(
                f"{file}: was changed after it was made (SHA-256 {found[:12]}, "
                f"dataset.json says {str(expected)[:12]}); make the dataset again"
            )


def _load(file: Path, shape: tuple[int, ...], mmap: bool = False) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{file}: cannot be read: holds several arrays, one was expected")
    if array.shape != shape or array.dtype != np.uint8:
        raise InputError(
            f"{file}: expected uint8 of shape {shape}, got {array.dtype} of shape {array.shape}"
        )
    return array
