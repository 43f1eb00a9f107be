"""Exact metrics of a trained model (its epoch of lowest validation loss) on a dataset."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tal1_hvd.cli.arguments import Parser
from tal1_hvd.cli.tables import show_evaluation
from tal1_hvd.data.dataset import SPLITS, open_dataset
from tal1_hvd.errors import InputError
from tal1_hvd.machine import quick_keras_import
from tal1_hvd.training.run_folder import RunFolder


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--run", required=True, metavar="RUN", help="run folder")
    parser.add_argument("--data", required=True, metavar="DIR", help="dataset folder")
    parser.add_argument(
        "--split", default="test", choices=(*SPLITS, "all"), help="(default: %(default)s)"
    )
    parser.add_argument(
        "--both-strands",
        action="store_true",
        help="score the mean over each sequence and its reverse complement",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Evaluate."""
    # Before TensorFlow, which takes seconds to import.
    RunFolder(Path(args.run)).require_model()
    dataset = open_dataset(args.data)
    rows = dataset.rows(args.split)
    if not len(rows):
        raise InputError(f"--split: the {args.split} split of {args.data} is empty")
    if args.seed < 0:
        raise InputError(f"--seed: must be at least 0, got {args.seed}")
    with quick_keras_import():
        from tal1_hvd.evaluation.summary import full_summary
        from tal1_hvd.inference.trained_model import load

    model = load(args.run)
    if model.length != dataset.length:
        raise InputError(
            f"--data: {args.data} holds sequences of {dataset.length} bp, the model of {args.run} "
            f"takes {model.length}"
        )
    scores = model.predict_rows(dataset.sequences, rows, args.both_strands)
    metrics = full_summary(dataset.labels[rows], scores, args.seed)
    if args.json:
        print(json.dumps(metrics, indent=2))
    else:
        show_evaluation(metrics, f"{args.split}, {len(rows):,} sequences")
    return 0
