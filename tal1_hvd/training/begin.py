"""What is done first for a run: its folder is made, with its settings in it.

TensorFlow takes seconds to start; a run that is killed meanwhile can be resumed like any other.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tal1_hvd.data.files import (
    exists,
    is_vacant,
    missing_parents,
    remove_empty,
    require_plain,
    require_vacant,
)
from tal1_hvd.errors import InputError
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import TrainSettings, read_settings


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes
    ----------
    changes : dict
        Settings given by the user, named as in `TrainSettings`; all others keep their defaults, or
        the run's own where it is resumed.
    out : Path, optional
        The run folder; a new one under ``runs/`` if left out.
    resume : bool
        Go on with the run in `out`; or start it, if there is nothing and either `changes` names its
        data or the ranks were started by a launcher.
    replicas : int
        Ranks of this process, where the strategy lets it have several.
    timeline : bool
        Horovod writes its timeline of the session.
    """

    changes: dict[str, Any]
    out: Path | None = None
    resume: bool = False
    replicas: int = 1
    timeline: bool = False

    def expected(self) -> tuple[TrainSettings, int | None]:
        """Return what is known before the request is worked out.

        Returns
        -------
        settings : TrainSettings
        ranks : int, optional
            That have trained the run that goes on.
        """
        expected, ranks = TrainSettings(), None
        # What is wrong is said when the request is worked out.
        if self.resume and self.out is not None:
            with contextlib.suppress(InputError):
                expected, ranks = read_settings(self.out / "config.yaml")
        with contextlib.suppress(InputError):
            expected = replace(expected, **self.changes)
        return expected, ranks


@dataclass(frozen=True)
class Begun:
    """The folder of a run that is to start or to go on.

    Attributes
    ----------
    folder : RunFolder
    new : bool
        The request starts it.
    made : tuple of Path
        The folder and those around it, as far as they were made for it; innermost first.
    """

    folder: RunFolder
    new: bool = False
    made: tuple[Path, ...] = ()

    def take_back(self) -> None:
        """Remove what was made for a request that is refused, unless training has begun in it."""
        if self.new:
            # Whoever trains into it by now keeps it.
            with contextlib.suppress(InputError), self.folder.lock():
                if not self.folder.has_begun():
                    self.folder.remove_settings()
            remove_empty(self.made)


def begin(request: Request, size: int, job: bool = False) -> Begun:
    """Make the run's folder, unless the request is to go on with one.

    Parameters
    ----------
    request : Request
    size : int
        Ranks that will train.
    job : bool
        A launcher has started them: they may have been killed before they could begin.

    Returns
    -------
    Begun

    Raises
    ------
    InputError
        The settings are wrong; or the folder exists or cannot be made, or is not named, or there is
        no run to go on with.
    """
    if request.resume:
        if request.out is None:
            raise InputError("--resume: name the run to go on with in --out")
        if exists(request.out / "config.yaml"):
            require_plain(request.out)
            return Begun(RunFolder(request.out))
        nothing = f"{request.out}: no run to resume here (it has no config.yaml); "
        if not is_vacant(request.out):
            raise InputError(f"{nothing}choose another --out")
        # A mistyped name would train on the default data. That is risked where the ranks of a job
        # may have been killed before they could begin.
        if not (job or "data" in request.changes):
            raise InputError(f"{nothing}to start one, give --data, or leave --resume out")
    settings = TrainSettings(**request.changes)
    if request.out is not None:
        return _create(request.out, settings, size)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / f"{settings.model}-seed{settings.seed}-{stamp}"
    try:
        return _create(path, settings, size)
    except InputError:
        if not exists(path):
            raise
    # Others have begun in the same second; no two processes of a machine have one number.
    return _create(path.with_name(f"{path.name}-{os.getpid()}"), settings, size)


def require_new(path: Path) -> None:
    """Raise InputError unless a run could begin under this name."""
    if exists(path / "config.yaml"):
        raise InputError(
            f"{path}: exists already and holds a run; go on with it by --resume, or choose "
            "another --out"
        )
    require_vacant(path)


def _create(path: Path, settings: TrainSettings, size: int) -> Begun:
    require_new(path)
    # All that is not there around a file in the folder.
    made = missing_parents(path / "config.yaml")
    return Begun(RunFolder.create(path, settings, size), True, made)
