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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tal1_hvd.distributed.environment import launched_rank
from tal1_hvd.distributed.launch import end_with_parent

# Seconds between looks into the folder, which may lie on a network...
_BETWEEN_LOOKS = 0.2
# ...and those that a rank has to end once another has failed.
_GRACE = 5.0


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
            with (
                (self.folder / f"{rank}.out").open("wb") as out,
                (self.folder / f"{rank}.err").open("wb") as err,
            ):
                process = subprocess.Popen(
                    self.command,
                    cwd=self.directory,
                    env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    preexec_fn=end_with_parent(signal.SIGKILL),
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
        code = self._attend(process)
        code = code if code >= 0 else 128 - code
        if code:
            fail(self.folder, code)
        return code

    def _attend(self, process: subprocess.Popen[bytes]) -> int:
        """Hand on a request to stop, and end the rank once another has failed."""
        asked = False
        while True:
            try:
                return process.wait(_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                pass
            # Without the folder there is nobody who waits for this rank.
            if (self.folder / "failed").exists() or not self.folder.exists():
                process.terminate()
                try:
                    return process.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
            elif not asked and (self.folder / "stop").exists():
                process.send_signal(signal.SIGUSR1)
                asked = True


def fail(folder: Path, code: int) -> None:
    """Have all ranks of a relay end; the first code stays."""
    with contextlib.suppress(OSError), (folder / "failed").open("x") as handle:
        handle.write(str(code))


class Relay:
    """The launcher's end: copies what ranks write to its own output, until it is closed.

    Parameters
    ----------
    folder : Path
        That of the run; the relay's is made in it and removed at the end.
    streams : mapping
        Where what ends on ``.out`` and ``.err`` goes; default: this process's own.
    """

    def __init__(self, folder: Path, streams: Mapping[str, TextIO] | None = None):
        self.folder = Path(tempfile.mkdtemp(prefix=".ranks-", dir=folder)).resolve()
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
        """Have all ranks make a checkpoint and end."""
        (self.folder / "stop").touch()

    def exit_code(self) -> int:
        """Return that of the first rank that failed, or 0."""
        try:
            return int((self.folder / "failed").read_text())
        except FileNotFoundError:
            return 0

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
            with path.open("rb") as handle:
                handle.seek(self._read.get(path, 0))
                data = handle.read()
            # Whole lines, so that those of several ranks do not mix.
            data = data if last else data[: data.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(data)
            stream.write(data.decode(errors="replace"))
            stream.flush()
