"""Train a model: alone, on --ranks of this machine or a cluster, or as a rank of a launcher.

tal1-hvd train                                    one rank, all cores
tal1-hvd train --ranks auto                       a rank a core, at most 4
horovodrun -np 4 python -m tal1_hvd.train         ranks on this machine or others
mpirun -np 4 python -m tal1_hvd.train             the same
tal1-hvd train --launcher ray --ranks 4           ranks on a Ray cluster; or spark
tal1-hvd train --strategy mirrored --ranks 2      ranks as devices of one process (MirroredStrategy)
python -m tal1_hvd.train_tpu                      ranks as cores of a TPU (TPUStrategy)
tal1-hvd train --out RUN --resume                 go on with a run, on any number of ranks
"""

from __future__ import annotations

import argparse
import signal
from dataclasses import replace
from pathlib import Path

from tal1_hvd.cli.arguments import Parser, add_setting
from tal1_hvd.cli.errors import STOPPED, report, say
from tal1_hvd.cli.launching import launch, make_reporter, shown_elsewhere
from tal1_hvd.cli.tables import show_metrics
from tal1_hvd.distributed.agreement import AgreedError
from tal1_hvd.distributed.environment import (
    launched_elastically,
    launched_rank,
    launched_world_size,
)
from tal1_hvd.distributed.launch import ranks_from
from tal1_hvd.distributed.rank_process import end_rank, leave_process, monitor_stops
from tal1_hvd.errors import InputError, printable
from tal1_hvd.models.registry import PRECISIONS, model_summaries
from tal1_hvd.training.begin import Request
from tal1_hvd.training.interruptions import Signals, Stopped
from tal1_hvd.training.manifest import is_published_experiment, read_manifest
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.session import run_session
from tal1_hvd.training.settings import (
    AGGREGATIONS,
    COMPRESSIONS,
    OPTIMIZERS,
    RATE_SCALINGS,
    REPLICATED,
    SHUFFLES,
    STRATEGIES,
    TrainSettings,
    describe_way,
    read_settings,
)

_NOT_SETTINGS = ("config", "out", "resume", "ranks", "launcher", "timeline")


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    d = TrainSettings()
    models = "; ".join(f"{name}: {summary}" for name, summary in model_summaries().items())
    add_setting(
        parser,
        "--data",
        None,
        "dataset folder (default: the default simulated dataset, kept in the user's cache)",
        metavar="DIR",
    )
    parser.add_argument("--out", metavar="RUN", help="run folder (default: a new one under runs/)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, with its settings; if it had not "
        "begun, start it (with --data, or under mpirun, horovodrun or srun)",
    )
    parser.add_argument(
        "--ranks",
        metavar="N|auto",
        help="train on so many ranks of this machine; auto: one a core, at most 4",
    )
    parser.add_argument(
        "--launcher",
        choices=("ray", "spark"),
        help="have Horovod on Ray or Spark start the --ranks, on the cluster that these are set up "
        "for (default: mpirun, on this machine)",
    )
    add_setting(parser, "--model", d.model, models, choices=tuple(model_summaries()))
    add_setting(parser, "--epochs", d.epochs, "epochs", metavar="N")
    add_setting(parser, "--batch-size", d.batch_size, "examples of a rank's batch", metavar="N")
    add_setting(
        parser,
        "--accumulation",
        d.accumulation,
        "batches of a rank whose gradients are added up before an update",
        metavar="N",
    )
    add_setting(
        parser,
        "--optimizer",
        d.optimizer,
        "lamb and lars are for large batches; a good --learning-rate for them is 2^-7 and 2^-8",
        choices=OPTIMIZERS,
    )
    add_setting(
        parser,
        "--learning-rate",
        d.learning_rate,
        "for a global batch of 64; grows with the global batch",
    )
    add_setting(
        parser,
        "--rate-scaling",
        d.rate_scaling,
        "how the rate grows: in proportion to the global batch, by its square root, or not",
        choices=tuple(RATE_SCALINGS),
    )
    add_setting(
        parser,
        "--warmup-examples",
        d.warmup_examples,
        "examples over which the rate rises to its scaled value; 0: none",
        metavar="N",
    )
    add_setting(parser, "--seed", d.seed, "of initial weights and shuffles")
    add_setting(
        parser,
        "--threads",
        None,
        "compute threads a rank (default: 1; with one rank, one a core)",
        type=int,
        metavar="N",
    )
    add_setting(
        parser,
        "--strategy",
        d.strategy,
        "how ranks train together; auto: horovod under mpirun, horovodrun or srun, multiworker "
        "where TF_CONFIG names workers, else single; ranks of mirrored are devices of one process",
        choices=STRATEGIES,
    )
    add_setting(
        parser,
        "--aggregation",
        d.aggregation,
        "allreduce: all sum their gradients; parameter-server: rank 0 updates the weights of all; "
        "gossip: each has weights of its own and averages them with its neighbours'; "
        "model-parallel: each trains a part of the filters on all examples",
        choices=AGGREGATIONS,
    )
    add_setting(
        parser,
        "--staleness",
        None,
        "asynchronous parameter server: steps a rank may be ahead of the slowest (default: "
        "synchronous)",
        type=int,
        metavar="STEPS",
    )
    add_setting(
        parser,
        "--patience",
        None,
        "stop after so many epochs without a lower validation loss (default: never)",
        type=int,
        metavar="N",
    )
    add_setting(
        parser,
        "--precision",
        d.precision,
        "float64: ranks agree to 1e-9; mixed: computes in bfloat16, for hardware that has it",
        choices=tuple(PRECISIONS),
    )
    add_setting(
        parser,
        "--shuffle",
        d.shuffle,
        "global: all examples anew each epoch, as on one rank; shard: each rank keeps its own "
        "part, which it can hold in memory",
        choices=SHUFFLES,
    )
    add_setting(
        parser,
        "--compression",
        d.compression,
        "of gradients between ranks; fp16: half the bytes, rounded",
        choices=COMPRESSIONS,
    )
    add_setting(
        parser,
        "--cache-mb",
        d.cache_mb,
        "sequences a rank may keep in memory (1,365,000 of 1,500 bp in 512 MB); more are read from "
        "disk each time",
        metavar="MB",
    )
    add_setting(
        parser,
        "--stall-timeout",
        d.stall_timeout,
        "end the job when a rank gives no sign of life for so long; 0: never",
        metavar="SECONDS",
    )
    add_setting(
        parser,
        "--elastic",
        None,
        "go on when ranks are lost or join, under horovodrun --host-discovery-script "
        "(launch/elastic)",
        action="store_true",
    )
    add_setting(
        parser,
        "--fixed-global-batch",
        None,
        "elastic: share the global batch of the beginning among the ranks there are, instead of "
        "--batch-size for each",
        action="store_true",
    )
    parser.add_argument(
        "--timeline",
        help="have Horovod write its timeline of this session, RUN/timeline.json, for "
        "chrome://tracing or ui.perfetto.dev",
        action="store_true",
    )


def run(args: argparse.Namespace) -> int:
    """Train, or start the ranks that do."""
    changes = {key: value for key, value in vars(args).items() if key not in _NOT_SETTINGS}
    out = None if args.out is None else Path(args.out)
    request = Request(changes, out, args.resume, timeline=args.timeline)
    launched = launched_world_size()
    elastic = launched_elastically()
    if launched is not None and not elastic and args.ranks not in (None, str(launched)):
        raise InputError(
            f"--ranks: a launcher has started {launched} ranks already; leave --ranks out, of a "
            "--config file too"
        )
    if args.launcher is not None and (launched is not None or args.ranks is None):
        raise InputError(
            f"--launcher: {args.launcher} starts ranks itself; give --ranks, and no mpirun, "
            "horovodrun or srun"
        )
    settings, before = request.expected()
    if settings.strategy in REPLICATED and args.launcher is None:
        replicas = args.ranks or before or REPLICATED[settings.strategy]
        return _train(replace(request, replicas=ranks_from(str(replicas))), False)
    count = 1 if args.ranks is None or launched is not None else ranks_from(args.ranks)
    if count > 1 or args.launcher is not None:
        folder, code = launch(request, count, args.launcher)
        if code == 0:
            _show(folder)
        return code
    return _train(request, elastic or (launched or 1) > 1)


def _train(request: Request, among_others: bool) -> int:
    try:
        if among_others:
            monitor_stops(request.expected()[0].stall_timeout)
        # Asked for while it starts, a checkpoint is made as soon as there is something to keep.
        with Signals([signal.SIGUSR1]):
            result = run_session(request, make_reporter)
    except AgreedError as error:
        if launched_rank() in (None, 0):
            report(str(error))
        return 2
    except Stopped as stopped:
        if launched_rank() in (None, 0) and not shown_elsewhere():
            say(f"go on with: {stopped}")
        if among_others:
            # MPI would wait for its launcher, which the signal may have ended.
            leave_process(STOPPED)
        return STOPPED
    except Exception as error:
        if not among_others:
            raise
        end_rank(error)
    if result.rank == 0 and not shown_elsewhere():
        _show(result.folder)
    return 0


def _show(folder: Path) -> None:
    run = RunFolder(folder)
    metrics, (settings, _) = run.read_metrics(), read_settings(run.config)
    published = is_published_experiment(settings, metrics, read_manifest(run.manifest))
    way = describe_way(metrics["strategy"], settings.aggregation, settings.staleness)
    show_metrics(metrics, f"{way}, {settings.optimizer}", published)
    print(f"run folder: {printable(folder)}")
