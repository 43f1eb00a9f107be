"""FASTA as a stream of records that know their line: plain or gzip, from a file or stdin."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from tal1_hvd.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Record:
    """One FASTA record.

    Attributes
    ----------
    id : str
        The header's first word.
    description : str
        The whole header without ``>``.
    sequence : str
        As in the file, line breaks and blanks removed.
    line : int
        Line of the header, from 1.
    """

    id: str
    description: str
    sequence: str
    line: int


@contextmanager
def open_text(path: str | Path) -> Iterator[TextIO]:
    """Open a text file for reading; gzip is recognised by its first bytes, ``-`` is stdin.

    Parameters
    ----------
    path : str or Path

    Yields
    ------
    TextIO
        UTF-8 with or without a byte-order mark, any line ending.

    Raises
    ------
    InputError
        The file cannot be read, is truncated, damaged, or not text.
    """
    name = "stdin" if str(path) == "-" else str(path)
    try:
        with _open_binary(path) as raw:
            buffered = io.BufferedReader(raw) if not hasattr(raw, "peek") else raw
            zipped = buffered.peek(2)[:2] == _GZIP_MAGIC
            stream = gzip.GzipFile(fileobj=buffered) if zipped else buffered
            text = io.TextIOWrapper(stream, encoding="utf-8-sig")
            try:
                yield text
            finally:
                # Left to itself the wrapper would close what it wraps, stdin too.
                text.detach()
                if buffered is not raw:
                    buffered.detach()
    except UnicodeDecodeError:
        raise InputError(f"{name}: not a text file (UTF-8)") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name}: truncated or damaged gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from None


@contextmanager
def _open_binary(path: str | Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        if sys.stdin is None:
            raise InputError("stdin: is closed; name a file, or pipe one in")
        yield sys.stdin.buffer
    else:
        with Path(path).open("rb") as handle:
            yield handle


class _Lines:
    """The lines of a FASTA file, with the line numbers of the headers seen so far."""

    def __init__(self, handle: TextIO, name: str):
        self._handle = handle
        self._name = name
        self.headers: deque[int] = deque()

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self._handle, start=1):
            if line.startswith(">"):
                self.headers.append(number)
            elif not self.headers and line.strip():
                raise InputError(
                    f"{self._name}, line {number}: not FASTA: expected a header that starts "
                    f"with '>', got {line.strip()[:40]!r}"
                )
            yield line


def read_fasta(path: str | Path) -> Iterator[Record]:
    """Read FASTA records one at a time, so memory holds one record whatever the file's size.

    Parameters
    ----------
    path : str or Path
        Plain or gzip, any line ending; ``-`` reads stdin.

    Yields
    ------
    Record

    Raises
    ------
    InputError
        The file cannot be read, holds no record, or has text before the first header, a header
        without a name, or a record without a sequence.
    """
    # Biopython is slow to import and only readers of FASTA need it.
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    name = "stdin" if str(path) == "-" else str(path)
    with open_text(path) as handle:
        lines = _Lines(handle, name)
        count = 0
        for title, sequence in SimpleFastaParser(iter(lines)):
            count += 1
            header_line = lines.headers.popleft()
            words = title.split(maxsplit=1)
            if not words:
                raise InputError(f"{name}, line {header_line}: a header without a name")
            if not sequence:
                raise InputError(f"{name}, line {header_line}: record {words[0]!r} has no sequence")
            yield Record(words[0], title, sequence, header_line)
    if not count:
        raise InputError(f"{name}: holds no FASTA record")


def write_fasta(handle: TextIO, records: Iterable[tuple[str, str]]) -> int:
    """Write records, a header and one sequence line each.

    Parameters
    ----------
    handle : TextIO
    records : iterable of (header, sequence)

    Returns
    -------
    int
        How many were written.
    """
    count = 0
    for header, sequence in records:
        handle.write(f">{header}\n{sequence}\n")
        count += 1
    return count
