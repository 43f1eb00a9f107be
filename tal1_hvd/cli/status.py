"""Show what a run does, from another terminal or machine; it need not have finished.

tal1-hvd status RUN
watch tal1-hvd status RUN                         again every two seconds
tal1-hvd status RUN --json                        for scripts; all of it is in RUN/events.jsonl
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from tal1_hvd.cli.arguments import Parser
from tal1_hvd.errors import InputError
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.status import read_status


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Show it."""
    # What it imports is not needed for help.
    from tal1_hvd.cli.tables import show_status

    status = read_status(RunFolder(Path(args.run)), time.time())
    if args.json:
        try:
            print(json.dumps(vars(status), indent=2))
        except RecursionError:
            raise InputError(f"{args.run}: events.jsonl: an event is nested too deeply") from None
    else:
        show_status(status, args.run)
    return 0
