"""Ranks on machines that a cluster's executor chose: their output comes here, signals go there.

A folder that all machines see carries both, as it carries the run: no port is opened for it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from tal1_hvd.distributed.end_with_parent import end_with_parent
from tal1_hvd.distributed.environment import launched_rank

# Seconds between looks into the folder, which may lie on a network...
_BETWEEN_LOOKS = 0.2
# ...and those that a rank has to end once another has failed, and that the folder can be away.
_GRACE = 5.0
# A file that is there until a rank fails, and what its name begins with from then on.
_RUNNING, _FAILED = "running", "failed-"
_PREFIX = ".ranks-"


@dataclass(frozen=True)
class RankProgram:
    """What each rank runs.

    Attributes
    ----------
    command : tuple of str
    folder : Path
        The relay's.
    directory : Path
        The program's working directory.
    environment : dict
        Added to the worker's own.
    """

    command: tuple[str, ...]
    folder: Path
    directory: Path
    environment: dict[str, str]

    def run(self) -> int:
        """Run it on this machine, as the rank that the environment names.

        Returns
        -------
        int
            Its exit code; 128 + its number for a signal.
        """
        rank = launched_rank()
        try:
            files = [self.folder / f"{rank}{suffix}" for suffix in (".out", ".err")]
            for file in files:
                file.touch()
            # It is not this process that would miss it, but the one that becomes it.
            Path(self.command[0]).stat()
            process = subprocess.Popen(
                end_with_parent(self.command, signal.SIGKILL),
                cwd=self.directory,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            # The launcher sees no folder of this machine; the executor shows what is written here.
            sys.stderr.write(
                f"tal1-hvd: error: rank {rank} on {platform.node()}: {error.filename}: "
                f"{error.strerror}; all machines have to see the environment, the working "
                "directory and the run folder at the same paths\n"
            )
            fail(self.folder, 2)
            return 2
        writers = [
            threading.Thread(target=_write, args=(stream, file), daemon=True)
            for stream, file in zip((process.stdout, process.stderr), files, strict=True)
        ]
        for writer in writers:
            writer.start()
        code = self._attend(process)
        for writer in writers:
            # What the rank has started may have its streams a little longer.
            writer.join(_GRACE)
        code = code if code >= 0 else 128 - code
        if code:
            fail(self.folder, code)
        return code

    def _attend(self, process: subprocess.Popen[bytes]) -> int:
        """Hand on a request to stop, and end the rank once another has failed."""
        asked, seen = False, time.monotonic()
        while True:
            try:
                return process.wait(_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                pass
            if _is_there(self.folder / _RUNNING):
                seen = time.monotonic()
            # Without the folder there is nobody who waits for this rank; but a network can hide it.
            if _failure(self.folder) is not None or time.monotonic() - seen > _GRACE:
                process.terminate()
                try:
                    return process.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
            elif not asked and _is_there(self.folder / "stop"):
                process.send_signal(signal.SIGUSR1)
                asked = True


def fail(folder: Path, code: int) -> None:
    """Have all ranks of a relay end; the first code stays. It takes no room on a full disk."""
    with contextlib.suppress(OSError):
        (folder / _RUNNING).rename(folder / f"{_FAILED}{code}")


def _failure(folder: Path) -> int | None:
    """Return the exit code of the first rank that failed, as far as it can be seen."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_FAILED}*"):
            return int(path.name.removeprefix(_FAILED))
    return None


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _write(lines: IO[bytes], file: Path) -> None:
    """Add lines to a file; where that fails, as the disk is full, say errors where we are."""
    for line in lines:
        try:
            with file.open("ab") as handle:
                handle.write(line)
        except OSError:
            if file.suffix == ".err":
                sys.stderr.write(line.decode(errors="replace"))
                sys.stderr.flush()


class Relay:
    """The launcher's end: copies what ranks write to its own output, until it is closed.

    Parameters
    ----------
    folder : Path
        That of the run; the relay's is made in it and removed at the end, as is one that a killed
        launcher has left.
    streams : mapping
        Where what ends on ``.out`` and ``.err`` goes; default: this process's own.
    """

    def __init__(self, folder: Path, streams: Mapping[str, TextIO] | None = None):
        for left in folder.glob(f"{_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder)).resolve()
        (self.folder / _RUNNING).touch()
        self._streams = streams or {".out": sys.stdout, ".err": sys.stderr}
        self._read: dict[Path, int] = {}
        self._closed = threading.Event()
        self._copier = threading.Thread(target=self._copy_until_closed, daemon=True)

    def program(self, command: Sequence[str], names: Sequence[str]) -> RankProgram:
        """Return what ranks run: a command, here, with variables of this environment.

        Parameters
        ----------
        command : sequence of str
        names : sequence of str
            What the names of variables that ranks need begin with.
        """
        passed = {k: v for k, v in os.environ.items() if k.startswith(tuple(names))}
        return RankProgram(tuple(command), self.folder, Path.cwd(), passed)

    def stop(self) -> None:
        """Have all ranks make a checkpoint and end, if there are any yet."""
        with contextlib.suppress(OSError):
            (self.folder / "stop").touch()

    def exit_code(self) -> int:
        """Return that of the first rank that failed, or 0."""
        return _failure(self.folder) or 0

    @contextlib.contextmanager
    def copying(self) -> Iterator[Relay]:
        """Copy in the block; remove the folder after it."""
        self._copier.start()
        try:
            yield self
        finally:
            self._closed.set()
            self._copier.join()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _copy_until_closed(self) -> None:
        while not self._closed.wait(_BETWEEN_LOOKS):
            self._copy(False)
        self._copy(True)

    def _copy(self, last: bool) -> None:
        for path in sorted(self.folder.glob("*.*")):
            stream = self._streams[path.suffix]
            try:
                with path.open("rb") as handle:
                    handle.seek(self._read.get(path, 0))
                    data = handle.read()
            except OSError:
                # The next look may find it again.
                continue
            # Whole lines, so that those of several ranks do not mix.
            data = data if last else data[: data.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(data)
            stream.write(data.decode(errors="replace"))
            stream.flush()
