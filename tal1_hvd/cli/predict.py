"""Score sequences with a trained model: a line a record, in the file's order.

Columns: id, start, end (0-based half-open, in the record), strand (. for both), score.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tal1_hvd.cli.arguments import Parser
from tal1_hvd.cli.progress import counting
from tal1_hvd.data.fasta import read_fasta
from tal1_hvd.data.files import atomic_file, require_absent
from tal1_hvd.machine import quick_keras_import
from tal1_hvd.training.run_folder import RunFolder


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("input", metavar="INPUT", help="FASTA, plain or gzip; - is stdin")
    parser.add_argument("--run", required=True, metavar="RUN", help="run folder")
    parser.add_argument(
        "--out", default="-", metavar="TSV", help="file to write; - is stdout (default: -)"
    )
    parser.add_argument(
        "--on-length",
        default="error",
        choices=("error", "pad", "center-crop"),
        help="records not of the model's length: pad adds N to short ones, center-crop cuts long "
        "ones, both around the centre (default: %(default)s)",
    )
    parser.add_argument(
        "--both-strands",
        action="store_true",
        help="mean over each record and its reverse complement",
    )


def run(args: argparse.Namespace) -> int:
    """Predict."""
    if args.out != "-":
        require_absent(Path(args.out))
    # Before TensorFlow, which takes seconds to import.
    RunFolder(Path(args.run)).require_model()
    with quick_keras_import():
        from tal1_hvd.inference.predict import predict_records
        from tal1_hvd.inference.trained_model import load

    source = "stdin" if args.input == "-" else args.input
    model = load(args.run)
    with _output(args.out) as handle, counting("scoring", None, "records") as advance:
        predictions = predict_records(
            model, read_fasta(args.input), source, args.on_length, args.both_strands, advance
        )
        for number, p in enumerate(predictions):
            # After the first record is scored, so that bad input leaves nothing on standard output.
            if number == 0:
                handle.write("id\tstart\tend\tstrand\tscore\n")
            handle.write(f"{p.id}\t{p.start}\t{p.end}\t{p.strand}\t{p.score:.6g}\n")
    return 0


@contextmanager
def _output(path: str) -> Iterator[TextIO]:
    if path == "-":
        yield sys.stdout
        sys.stdout.flush()
    else:
        with atomic_file(Path(path)) as handle:
            yield handle
