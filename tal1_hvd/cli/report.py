"""Make an HTML page about a finished run: scores, learning curves, speed, settings.

The page is RUN/report.html, which needs neither network nor scripts; its figures are in RUN/figures
too, as PNG and SVG.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tal1_hvd.cli.arguments import Parser
from tal1_hvd.data.files import require_plain
from tal1_hvd.report.page import write_page
from tal1_hvd.report.run_page import read_run, run_page
from tal1_hvd.training.run_folder import RunFolder


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--run", required=True, metavar="RUN", help="run folder")


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    folder = RunFolder(Path(args.run))
    require_plain(folder.path)
    write_page(run_page(read_run(folder)), folder.report, folder.path / "figures")
    print(folder.report)
    return 0
