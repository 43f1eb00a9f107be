"""``tal1-hvd COMMAND``: finds the command, reads its flags, reports errors in one line."""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from tal1_hvd._version import __version__
from tal1_hvd.cli.arguments import Parser
from tal1_hvd.cli.errors import report
from tal1_hvd.distributed.environment import launched_rank
from tal1_hvd.errors import InputError

# name -> module, summary; a command's module is imported only when it is called
COMMANDS = {
    "simulate": ("simulate", "make a simulated dataset"),
    "import": ("import_", "make a dataset from real sequences"),
    "export": ("export", "write a dataset's sequences as FASTA or simdata"),
    "train": ("train", "train a model, on one rank or many"),
    "evaluate": ("evaluate", "exact metrics of a trained model on a dataset"),
    "predict": ("predict", "score sequences with a trained model"),
    "compare": ("compare", "every way to distribute training, side by side"),
    "status": ("status", "what a run does, from another terminal"),
    "report": ("report", "an HTML page about a finished run"),
    "benchmark": ("benchmark", "how fast training is, against plain Keras"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: the process's own arguments.

    Returns
    -------
    int
        0 on success, 2 on bad input, 1 on a fault, 130 on Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    # TensorFlow's notes about its own build say nothing to users.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # What is there at exit ends with the process; to look for garbage in it takes half a second.
    atexit.register(gc.freeze)
    try:
        try:
            return _run(argv)
        finally:
            # Now rather than at exit, so that a reader who has left is met here.
            if sys.stdout is not None:
                sys.stdout.flush()
    except InputError as error:
        # Ranks of one training meet the same error; one of them says it.
        if argv[:1] != ["train"] or launched_rank() in (None, 0):
            report(str(error))
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        report("; go on with: ".join(["interrupted", *map(str, interrupt.args)]))
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        _give_up_output()
        return 1
    except ModuleNotFoundError as error:
        report(
            f"this Python ({sys.executable}) lacks {error.name}; use the environment that "
            "launch/setup made: source .venv/bin/activate"
        )
        return 2
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _give_up_output()
            report("the disk, or what standard output goes to, is full")
            return 1
        traceback.print_exc()
        report(f"{type(error).__name__}: {error}")
        return 1


def _open_closed_streams() -> None:
    """Let what is closed lead nowhere; the next file to be opened would take its place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 (as long as the process)


def _give_up_output() -> None:
    """Send what is still to be written nowhere; Python would complain again at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str]) -> int:
    name, rest = _split(argv)
    command = import_module(f"tal1_hvd.cli.{COMMANDS[name][0]}")
    parser = Parser(prog=f"tal1-hvd {name}", description=command.__doc__)
    command.add_arguments(parser)
    return command.run(parser.parse(rest))


def _split(argv: list[str]) -> tuple[str, list[str]]:
    """Return the command and its arguments; show help or the version and exit where asked."""
    listing = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in COMMANDS.items())
    parser = Parser(
        prog="tal1-hvd",
        usage="tal1-hvd COMMAND [OPTIONS]",
        description="Train DNA-motif CNNs with Keras 3 and Horovod, and use them on real DNA.",
        epilog=f"commands:\n{listing}\n\n'tal1-hvd COMMAND --help' tells a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tal1-hvd {__version__}")
    if argv and argv[0] in COMMANDS:
        return argv[0], argv[1:]
    if not argv:
        parser.print_help()
        raise SystemExit(0)
    if argv[0].startswith("-"):
        parser.parse_args(argv)
    raise InputError(f"no command {argv[0]!r}; there are {', '.join(COMMANDS)}")
