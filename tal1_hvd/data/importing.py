"""Datasets from real sequences: FASTA positives, and negatives from FASTA or by shuffling."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tal1_hvd.data.dataset_writer import create_dataset
from tal1_hvd.data.encoding import encode, fit_length
from tal1_hvd.data.fasta import read_fasta
from tal1_hvd.data.files import require_vacant
from tal1_hvd.data.shuffle import dinucleotide_shuffle
from tal1_hvd.data.simdata import is_simdata, read_simdata
from tal1_hvd.data.sites import Site
from tal1_hvd.data.splits import chromosome_split, stratified_split
from tal1_hvd.errors import InputError

DINUCLEOTIDE_SHUFFLE = "dinucleotide-shuffle"

# Sequences that are written together.
_AT_ONCE = 1000

# chr1:100-200 anywhere in the header, as bedtools getfasta writes it; a strand may follow.
_LOCUS = re.compile(r"(?:^|[\s=:])([\w.]+):(\d+)-(\d+)(?![\d\w])")


@dataclass(frozen=True)
class ImportSettings:
    """How real data becomes a dataset.

    Attributes
    ----------
    positives : str
        FASTA file, or a simdata file that holds both classes.
    negatives : str, optional
        FASTA file or ``dinucleotide-shuffle``; none with a simdata file.
    length : int, optional
        In bp; longer sequences are cropped around their centre, shorter ones padded with N.
    split : {"random", "chromosome"}
    test_chroms, valid_chroms : tuple of str
        Chromosomes held out, for ``split="chromosome"``.
    negatives_per_positive : int
        Shuffles of each positive.
    label : str, optional
        Label column of a simdata file.
    seed : int
    """

    positives: str
    negatives: str | None = None
    length: int | None = None
    split: str = "random"
    test_chroms: tuple[str, ...] = ()
    valid_chroms: tuple[str, ...] = ()
    negatives_per_positive: int = 1
    label: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--length", self.length, 1),
            ("--negatives-per-positive", self.negatives_per_positive, 1),
            ("--seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"{option}: must be at least {least}, got {value}")
        if self.positives == self.negatives == "-":
            raise InputError("--negatives: stdin is read as --positives already; give a file")
        if self.negatives_per_positive > 1 and self.negatives != DINUCLEOTIDE_SHUFFLE:
            raise InputError(f"--negatives-per-positive: goes with {DINUCLEOTIDE_SHUFFLE}")
        if self.label is not None and not is_simdata(self.positives):
            raise InputError("--label: goes with a simdata file as --positives")


@dataclass(frozen=True)
class _Example:
    where: str
    id: str
    codes: np.ndarray
    label: int
    chromosome: str | None


def import_dataset(settings: ImportSettings, out: str | Path) -> Path:
    """Make a dataset folder from real sequences.

    Parameters
    ----------
    settings : ImportSettings
    out : str or Path
        Must not exist, or be an empty folder.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    InputError
        A file is unreadable, a sequence has the wrong length or letters, an id occurs twice, a
        header lacks the chromosome that the split needs, a class is empty, or `out` exists.
    """
    out = Path(out)
    require_vacant(out)
    examples, sites = _read_examples(settings)
    labels = np.array([example.label for example in examples], dtype=np.uint8)
    for label, name in ((1, "positives"), (0, "negatives")):
        if not np.any(labels == label):
            raise InputError(f"{settings.positives}: the dataset would have no {name}")
    _require_distinct_ids(examples)
    splits = _split(settings, examples, labels)
    length = len(examples[0].codes)
    with create_dataset(out, len(examples), length) as writer:
        for row in range(0, len(examples), _AT_ONCE):
            writer.put(row, np.stack([e.codes for e in examples[row : row + _AT_ONCE]]))
        writer.finish(
            labels=labels,
            splits=splits,
            ids=[example.id for example in examples],
            task="imported",
            parameters=asdict(settings),
            seed=settings.seed,
            sites=sites,
        )
    return out


def _read_examples(settings: ImportSettings) -> tuple[list[_Example], list[Site] | None]:
    if is_simdata(settings.positives):
        return _read_simdata(settings)
    if settings.negatives is None:
        raise InputError("--negatives is missing: a FASTA file or dinucleotide-shuffle")
    positives = _read_fasta(settings.positives, 1, settings.length)
    if settings.negatives == DINUCLEOTIDE_SHUFFLE:
        rng = np.random.default_rng(settings.seed)
        negatives = [
            _Example(
                positive.where,
                f"{positive.id}_shuffled{copy}",
                dinucleotide_shuffle(positive.codes, rng),
                0,
                positive.chromosome,
            )
            for positive in positives
            for copy in range(settings.negatives_per_positive)
        ]
    else:
        negatives = _read_fasta(settings.negatives, 0, settings.length)
        found, wanted = len(negatives[0].codes), len(positives[0].codes)
        if found != wanted:
            raise InputError(
                f"{settings.negatives}: sequences of {found} bp, but the positives have {wanted} "
                "bp; give --length to crop or pad all to one length"
            )
    return positives + negatives, None


def _read_fasta(path: str, label: int, length: int | None) -> list[_Example]:
    examples: list[_Example] = []
    name = "stdin" if path == "-" else path
    for record in read_fasta(path):
        where = f"{name}, line {record.line}: record {record.id!r}"
        codes = _encode(record.sequence, where, length)
        examples.append(_Example(where, record.id, codes, label, _chromosome(record.description)))
        if len(codes) != len(examples[0].codes):
            raise InputError(
                f"{where} has {len(codes)} bp, the first record {len(examples[0].codes)} bp; "
                "give --length to crop or pad all to one length"
            )
    return examples


def _read_simdata(settings: ImportSettings) -> tuple[list[_Example], list[Site]]:
    if settings.negatives is not None:
        raise InputError("--negatives: a simdata file holds both classes; leave it out")
    if settings.length is not None:
        raise InputError("--length: sequences of a simdata file keep their length; leave it out")
    examples: list[_Example] = []
    sites: list[Site] = []
    for record in read_simdata(settings.positives, settings.label):
        where = f"{settings.positives}, line {record.line}: record {record.id!r}"
        codes = _encode(record.sequence, where, None)
        examples.append(_Example(where, record.id, codes, record.label, _chromosome(record.id)))
        sites.extend(record.sites)
        if len(codes) != len(examples[0].codes):
            raise InputError(
                f"{where} has {len(codes)} bp, the first record {len(examples[0].codes)} bp"
            )
    if not examples:
        raise InputError(f"{settings.positives}: holds no sequences")
    return examples, sites


def _encode(sequence: str, where: str, length: int | None) -> np.ndarray:
    try:
        codes = encode(sequence)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return codes if length is None else fit_length(codes, length)[0]


def _chromosome(header: str) -> str | None:
    match = _LOCUS.search(header)
    return match.group(1) if match else None


def _require_distinct_ids(examples: Sequence[_Example]) -> None:
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise InputError(
                f"{example.where}: the id {example.id!r} stands before in this or the other file; "
                "ids must be distinct"
            )
        seen.add(example.id)


def _split(settings: ImportSettings, examples: list[_Example], labels: np.ndarray) -> np.ndarray:
    if settings.split == "random":
        if settings.test_chroms or settings.valid_chroms:
            raise InputError("--test-chroms and --valid-chroms go with --split chromosome")
        return stratified_split(labels, settings.seed)
    for example in examples:
        if example.chromosome is None:
            raise InputError(
                f"record {example.id!r}: --split chromosome needs headers with chr:start-end "
                "(as bedtools getfasta writes them)"
            )
    chromosomes = [example.chromosome or "" for example in examples]
    return chromosome_split(chromosomes, settings.test_chroms, settings.valid_chroms)
