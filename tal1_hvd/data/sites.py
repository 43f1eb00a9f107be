"""The motif sites that were planted in simulated sequences."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tal1_hvd.errors import InputError


class Site(NamedTuple):
    """A planted motif site: 0-based half-open, in bp from the sequence's start."""

    sequence_id: str
    start: int
    end: int
    motif: str
    strand: str


def read_sites(file: Path) -> list[Site]:
    """Read a dataset's ``sites.bed``: sequence id, start, end, motif, 0, strand.

    Raises
    ------
    InputError
        It cannot be read, or a line is damaged.
    """
    try:
        with file.open(encoding="utf-8") as handle:
            fields = [line.rstrip("\n").split("\t") for line in handle]
        return [Site(f[0], int(f[1]), int(f[2]), f[3], f[5]) for f in fields]
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    except IndexError:
        raise InputError(f"{file}: cannot be read: a line has less than 6 columns") from None
