"""Starts ranks on this machine, for users who do not know MPI."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from tal1_hvd.distributed.end_with_parent import end_with_parent
from tal1_hvd.errors import InputError
from tal1_hvd.machine import usable_cores


class StoppedEarlyError(Exception):
    """A signal came before ranks had connected: there is nothing to keep."""


# As many as the largest published setting; a model this small gains nothing from more.
_MOST_RANKS = 4


def ranks_from(text: str) -> int:
    """Read ``--ranks``.

    Parameters
    ----------
    text : str
        A number, or ``auto``: a rank a usable core, at most 4.

    Returns
    -------
    int

    Raises
    ------
    InputError
        It is neither.
    """
    if text == "auto":
        return min(usable_cores(), _MOST_RANKS)
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise InputError(f"--ranks: expected a number above 0 or auto, got {text!r}")


# Seconds, more than horovodrun leaves its ranks; then it is killed.
_LET_IT_END = 30.0


def find_launcher(count: int, strategy: str = "horovod") -> list[str]:
    """Return mpirun's command line, or horovodrun's with Gloo where there is no MPI.

    Parameters
    ----------
    count : int
        Ranks.
    strategy : str
        For multiworker, which needs neither, workers are started by a launcher of our own.

    Returns
    -------
    list of str
        To be followed by the program.

    Raises
    ------
    InputError
        Horovod is not installed, or neither launcher.
    """
    if strategy == "multiworker":
        return [sys.executable, "-m", "tal1_hvd.distributed.workers", str(count)]
    if importlib.util.find_spec("horovod") is None:
        raise InputError("--ranks: several ranks need Horovod; launch/setup builds it")
    mpirun = _program("mpirun")
    if mpirun is not None:
        as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        # Ranks of one machine talk through shared memory, without the kernel's copying between
        # processes, which containers forbid; threads are kept apart by the scheduler.
        transport = ["--mca", "btl", "self,vader"]
        transport += ["--mca", "btl_vader_single_copy_mechanism", "none"]
        if not (shutil.which("ssh") or shutil.which("rsh")):
            # Open MPI would end for want of one, though it starts nothing elsewhere.
            transport += ["--mca", "plm", "isolated"]
        placement = ["--bind-to", "none", "--oversubscribe"]
        return [mpirun, *as_root, *transport, *placement, "-np", str(count)]
    horovodrun = _program("horovodrun")
    if horovodrun is not None:
        return [horovodrun, "--gloo", "-np", str(count)]
    raise InputError("--ranks: found neither mpirun nor horovodrun; launch/setup installs both")


def launch_ranks(
    command: Sequence[str],
    environment: Mapping[str, str],
    handle: Callable[[str], bool],
    announce: Callable[[], None],
) -> int:
    """Start a launcher with the ranks of this machine and wait for it.

    Parameters
    ----------
    command : sequence of str
        The launcher's and the program's.
    environment : mapping
        Added to this process's own.
    handle : callable
        Given each line of the ranks' standard output; what it returns False for is printed.
    announce : callable
        Called before ranks start, once signals are seen to.

    Returns
    -------
    int
        The launcher's exit code: that of the first rank that failed; 128 + its number for a signal.

    Raises
    ------
    StoppedEarlyError
    KeyboardInterrupt
        By Ctrl-C ranks are asked to stop, too; a second one ends them.
    """
    # mpirun and our own launcher hand it on, and leave ranks the time that a checkpoint takes.
    asked = signal.SIGTERM if Path(command[0]).name == "horovodrun" else signal.SIGUSR1
    previous = {}
    connected = early = False
    heard: set[int] = set()

    def show(line: str) -> None:
        nonlocal connected
        if handle(line):
            connected = True
        else:
            sys.stdout.write(line)

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal early
        again = number in heard
        heard.add(number)
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not connected:
            # A rank that is about to start would end by it, without a word.
            early = True
            given_up.set()
            if job is not None:
                _send(job, signal.SIGTERM)
            return
        # Once; ranks that cannot answer, as one of them hangs, are ended by the second.
        _send(job, signal.SIGTERM if again else asked)

    given_up = threading.Event()
    job: subprocess.Popen[str] | None = None
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        # What runs in the background of a script ignores Ctrl-C.
        if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            previous[number] = signal.signal(number, ask)
    try:
        announce()
        job = subprocess.Popen(
            end_with_parent(command),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # Ctrl-C is for this process alone, which asks ranks to stop.
            start_new_session=True,
        )
        # A thread of its own, so that neither stream fills up and blocks the ranks. What launchers
        # and ranks say of their end once they are ended here is nobody's concern.
        errors = threading.Thread(
            target=_copy,
            args=(job.stderr, lambda line: given_up.is_set() or _write_errors(line)),
            daemon=True,
        )
        errors.start()
        if early:
            _send(job, signal.SIGTERM)
        _copy(job.stdout, show)
        errors.join()
        code = job.wait()
        if signal.SIGINT in heard and code != 0:
            raise KeyboardInterrupt
        if early and code != 0:
            raise StoppedEarlyError
        return code if code >= 0 else 128 - code
    except BaseException:
        given_up.set()
        if job is not None:
            _send(job, signal.SIGTERM)
            try:
                job.wait(_LET_IT_END)
            except subprocess.TimeoutExpired:
                job.kill()
                job.wait()
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _send(job: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a launcher a signal that it hears even if it has been stopped."""
    job.send_signal(number)
    job.send_signal(signal.SIGCONT)


def _program(name: str) -> str | None:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def _write_errors(line: str) -> None:
    # TensorFlow's servers tell where they listen before they can be told to be silent.
    if not line.startswith(("I0000 ", "WARNING: All log messages before absl::")):
        sys.stderr.write(line)


def _copy(stream, write: Callable[[str], object]) -> None:
    for line in stream:
        write(line)
