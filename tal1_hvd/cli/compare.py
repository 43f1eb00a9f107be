"""Train in every way to distribute training, in turn, and show them side by side.

Strategies (a single process, Horovod, MirroredStrategy, MultiWorkerMirroredStrategy) and
aggregation algorithms (parameter server, gossip, model-parallel) train the published network with
the same seeds and data. The folder gets compare.csv, report.html with its figures, and a run folder
for each training. A comparison that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from tal1_hvd.cli.arguments import Parser
from tal1_hvd.cli.errors import say
from tal1_hvd.cli.tables import show_comparison
from tal1_hvd.comparison.results import Finding, find, read_outcomes, read_steps, write_csv
from tal1_hvd.comparison.run import Folder, Plan, require_trainable, train_all
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.distributed.launch import find_launcher
from tal1_hvd.errors import InputError
from tal1_hvd.machine import processor_name, usable_cores
from tal1_hvd.published import EPOCHS
from tal1_hvd.report.comparison_page import comparison_page
from tal1_hvd.report.page import write_page

_FULL = {"seeds": 5, "epochs": EPOCHS, "ranks": [2, 4]}
_QUICK = {"seeds": 1, "epochs": 10, "ranks": [2]}


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the comparison")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a first look: {_QUICK['seeds']} seed, {_QUICK['epochs']} epochs, "
        f"{_QUICK['ranks'][0]} ranks, unless said otherwise",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="dataset folder (default: the default dataset simulated anew for each seed, kept in "
        "the user's cache)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help=f"train with seeds 0 to N - 1 (default: {_FULL['seeds']})",
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help=f"of each training (default: {_FULL['epochs']})"
    )
    parser.add_argument(
        "--ranks",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of ranks: all ways on the first, strategies on the others too (default: "
        f"{' '.join(map(str, _FULL['ranks']))}); what is more than cores is marked",
    )
    parser.add_argument(
        "--large-batch",
        action="store_true",
        help="train one rank with batches of 64 to 4,096 too, by several rules for the learning "
        "rate, and with LAMB and LARS",
    )


def run(args: argparse.Namespace) -> int:
    """Train and show."""
    defaults = _QUICK if args.quick else _FULL
    chosen = {
        key: getattr(args, key) if getattr(args, key) is not None else value
        for key, value in defaults.items()
    }
    data = None if args.data is None else str(Path(args.data).absolute())
    plan = Plan(
        data=data,
        fingerprint=None if data is None else open_dataset(args.data).fingerprint,
        processor=processor_name(),
        cores=usable_cores(),
        seeds=chosen["seeds"],
        epochs=chosen["epochs"],
        ranks=tuple(chosen["ranks"]),
        large_batch=args.large_batch,
    )
    require_trainable(plan)
    find_launcher(plan.ranks[0])
    folder = Folder.open(Path(args.out), plan)
    with folder.lock():
        # As Ctrl-C does, so that what was started ends, and the way to go on is said.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            train_all(plan, folder, say)
            page = folder.path / "report.html"
            findings = _write(plan, folder, page)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command") from None
        except InputError:
            raise
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise InputError(
                f"{folder.path}: its files were changed, or are of another version: {error!r}"
            ) from None
        finally:
            signal.signal(signal.SIGTERM, before)
    show_comparison(findings)
    print(f"{page}\n{folder.path / 'compare.csv'}")
    return 0


def _write(plan: Plan, folder: Folder, page: Path) -> Sequence[Finding]:
    outcomes = read_outcomes(plan, folder)
    write_csv(outcomes, folder.path / "compare.csv")
    steps = read_steps(plan.matrix.strategies, folder)
    write_page(comparison_page(plan, outcomes, steps), page, folder.path / "figures")
    return find(outcomes, plan.matrix.strategies)
