"""Writing a dataset folder, which appears under its name only once it is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tal1_hvd._version import __version__
from tal1_hvd.data.dataset import FORMAT_VERSION, SPLITS, shard_folder
from tal1_hvd.data.encoding import ALPHABET
from tal1_hvd.data.files import atomic_folder, sha256
from tal1_hvd.data.sites import Site

# Sequences that take more are written in shards.
_SHARD_BYTES = 1 << 28


class Part(NamedTuple):
    """Rows `start` to `stop` (half-open) of a dataset, and the folder of their files."""

    folder: Path
    start: int
    stop: int


@dataclass(frozen=True)
class DatasetWriter:
    """A dataset being made: `put` all sequences, then call `finish` once.

    Other processes may put sequences too.

    Attributes
    ----------
    folder : Path
        Where the files go until they are complete.
    parts : tuple of Part
        The folder itself, or its shards.
    length : int
        Of every sequence in bp.
    """

    folder: Path
    parts: tuple[Part, ...]
    length: int

    def put(self, row: int, codes: np.ndarray) -> None:
        """Store sequences.

        Parameters
        ----------
        row : int
            The first one's.
        codes : np.ndarray, shape=(n, length), dtype=uint8
        """
        for part in self.parts:
            start, stop = max(row, part.start), min(row + len(codes), part.stop)
            if start < stop:
                stored = np.load(part.folder / "sequences.npy", mmap_mode="r+")
                stored[start - part.start : stop - part.start] = codes[start - row : stop - row]

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
            In the order of the rows; read once, and never held as a whole.
        """
        if sites is not None:
            _write_sites(self.parts, ids, sites)
        for part in self.parts:
            rows = slice(part.start, part.stop)
            np.save(part.folder / "labels.npy", labels[rows].astype(np.uint8))
            np.save(part.folder / "splits.npy", splits[rows].astype(np.uint8))
            text = "".join(f"{name}\n" for name in ids[rows])
            (part.folder / "ids.txt").write_text(text, encoding="utf-8")
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        shards = {"shards": [part.stop - part.start for part in self.parts]}
        description = {
            "format_version": FORMAT_VERSION,
            "tool_version": __version__,
            "task": task,
            "parameters": parameters,
            "seed": seed,
            "alphabet": ALPHABET,
            "length": self.length,
            "count": len(labels),
            **(shards if self.parts[0].folder != self.folder else {}),
            "positives": int(np.sum(labels)),
            "negatives": int(len(labels) - np.sum(labels)),
            "splits": {name: int(np.sum(splits == code)) for name, code in SPLITS.items()},
            "sha256": {path.relative_to(self.folder).as_posix(): sha256(path) for path in files},
        }
        (self.folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n")


def _write_sites(parts: Iterable[Part], ids: Sequence[str], sites: Iterable[Site]) -> None:
    remaining = iter(sites)
    site = next(remaining, None)
    for part in parts:
        own = set(ids[part.start : part.stop])
        with (part.folder / "sites.bed").open("w", encoding="utf-8") as handle:
            while site is not None and site.sequence_id in own:
                handle.write(
                    f"{site.sequence_id}\t{site.start}\t{site.end}\t{site.motif}\t0\t{site.strand}\n"
                )
                site = next(remaining, None)
    if site is not None:
        raise ValueError(f"the sites of {site.sequence_id!r} are not in the order of the rows")


@contextmanager
def create_dataset(
    out: str | Path, count: int, length: int, shard_bytes: int = _SHARD_BYTES
) -> Iterator[DatasetWriter]:
    """Make a dataset folder that appears under its name only once it is complete.

    Parameters
    ----------
    out : str or Path
        Must not exist, or be an empty folder.
    count : int
        Number of sequences.
    length : int
        Length of every sequence in bp.
    shard_bytes : int
        Sequences that take more are written in shards of about so much.

    Yields
    ------
    DatasetWriter

    Raises
    ------
    InputError
        `out` exists or cannot be written.
    """
    with atomic_folder(Path(out)) as folder:
        parts = tuple(_plan_parts(folder, count, length, shard_bytes))
        for part in parts:
            part.folder.mkdir(parents=True, exist_ok=True)
            file = part.folder / "sequences.npy"
            shape = (part.stop - part.start, length)
            stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
            # A full disk is met here; writing into a map of a hole would end the process.
            with file.open("r+b") as handle:
                os.posix_fallocate(handle.fileno(), 0, stored.offset + stored.nbytes)
        yield DatasetWriter(folder, parts, length)


def _plan_parts(folder: Path, count: int, length: int, shard_bytes: int) -> Iterator[Part]:
    rows = max(shard_bytes // length, 1)
    if count <= rows:
        yield Part(folder, 0, count)
        return
    for number, start in enumerate(range(0, count, rows)):
        yield Part(shard_folder(folder, number), start, min(start + rows, count))
