"""Simulated datasets in the user's cache, so that training without data simulates only once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from tal1_hvd._version import __version__
from tal1_hvd.data.dataset import FORMAT_VERSION
from tal1_hvd.data.files import sha256
from tal1_hvd.errors import InputError
from tal1_hvd.machine import usable_cores
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.simulation.simulate import simulate


def cached_dataset(
    settings: SimulationSettings, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Return the folder of a simulated dataset, making it if it is not in the cache yet.

    Any number of processes may ask at once: one simulates, the others wait.

    Parameters
    ----------
    settings : SimulationSettings
    say : callable
        Told where the data comes from.

    Returns
    -------
    Path
        Under ``$XDG_CACHE_HOME/tal1_hvd/datasets`` (by default ``~/.cache``).

    Raises
    ------
    InputError
        The cache cannot be written.
    """
    identity = [FORMAT_VERSION, __version__, asdict(settings)]
    if settings.motif_file is not None:
        identity.append(sha256(Path(settings.motif_file)))
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "tal1_hvd" / "datasets"
    target = folder / f"{settings.task}-{key}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{key}.lock"):
            if not target.exists():
                count = settings.positives + settings.negatives
                # Of a process that was killed; nobody else writes while this one has the lock.
                for unfinished in folder.glob(f".{target.name}.*.tmp"):
                    shutil.rmtree(unfinished, ignore_errors=True)
                say(f"simulating the default dataset, {count:,} sequences, into {target}")
                simulate(settings, target, jobs=usable_cores())
    except OSError as error:
        raise InputError(
            f"{folder}: the cache cannot be written: {error.strerror or error}; "
            "give --data, or point XDG_CACHE_HOME elsewhere"
        ) from None
    return target
