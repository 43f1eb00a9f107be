"""Faults that come once each, for benchmarks/faults.py: the disk, the clock, files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from fault_jobs import (
    BIN,
    FOREVER,
    Case,
    Job,
    MissingError,
    Row,
    Setting,
    complaint,
    ended,
    epochs_saved,
    mpirun,
    require,
    require_root,
    resumes,
    stop,
    train,
    until_it_goes_on,
    until_saved,
)
from fault_network import network_cut, network_cut_elastic, network_cut_for_5_seconds

from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.simulation.simulate import simulate

PROGRAMS = Path(__file__).parent.parent / "tests" / "programs"


@contextlib.contextmanager
def _started(setting: Setting, name: str) -> Iterator[tuple[Job, Path]]:
    """Start two ranks that train for long, and wait until a checkpoint is there."""
    out, log = setting.fresh(name)
    flags = train(out, "--data", setting.data, *FOREVER)
    with Job([*mpirun(2), *flags], log) as job:
        until_saved(job, out)
        yield job, out


def killed_while_writing_a_checkpoint(setting: Setting) -> Row:
    """Cut the third checkpoint in half and kill the rank that writes it."""
    out, log = setting.fresh("writing")
    program = [BIN / "python", PROGRAMS / "killed_writing.py"]
    flags = ["--out", out, *setting.flags]
    job = Job([*mpirun(2), *program, *flags], log)
    code = job.end()
    require(code == 128 + signal.SIGKILL, f"ends with {code}: {complaint(job.text())}")
    lost = resumes(out, setting, 2)
    return "-", "the one before is still whole; `--resume` goes on from it", str(code), lost


def disk_full(setting: Setting) -> Row:
    """Fill the disk that the run is on, while it trains."""
    out, _ = setting.fresh("full")
    with _mounted(out.parent, "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        flags = train(out, "--data", setting.data, *FOREVER)
        with Job([*mpirun(2), *flags], setting.folder / "full.log") as job:
            until_saved(job, out)
            saved = epochs_saved(out)
            since = time.monotonic()
            with (
                (out.parent / "filler").open("wb", buffering=0) as filler,
                contextlib.suppress(OSError),
            ):
                while True:
                    filler.write(bytes(1 << 12))
            seconds, code = ended(job, since)
        (out.parent / "filler").unlink(missing_ok=True)
        return seconds, f"ends: {complaint(job.text())}", code, resumes(out, setting, saved)


def folder_removed(setting: Setting) -> Row:
    """Remove the run folder while it is trained into."""
    with _started(setting, "removed") as (job, out):
        since = time.monotonic()
        shutil.rmtree(out, ignore_errors=True)
        seconds, code = ended(job, since)
    return seconds, f"ends: {complaint(job.text())}", code, "what was removed"


def folder_read_only(setting: Setting) -> Row:
    """Make the run folder read-only, for root too, while it is trained into."""
    with (
        _started(setting, "read-only") as (job, out),
        # A mount of its own, as the one below has files that are open for writing.
        _mounted(out, "--bind", str(out)),
    ):
        since = time.monotonic()
        subprocess.run(["mount", "-o", "remount,bind,ro", str(out)], check=True)
        saved = epochs_saved(out)
        seconds, code = ended(job, since)
    return seconds, f"ends: {complaint(job.text())}", code, resumes(out, setting, saved)


def clock_jumps(setting: Setting) -> Row:
    """Move the clock of a job a day ahead, and then two days back."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise MissingError("needs libfaketime")
    out, log = setting.fresh("clock")
    offset = out.with_name("offset")
    offset.write_text("+0")
    fake = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset)}
    fake |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    passed = [word for name in fake for word in ("-x", name)]
    flags = train(out, "--data", setting.data, *FOREVER)
    with Job([*mpirun(2, *passed), *flags], log, fake) as job:
        until_saved(job, out)
        for jump in ("+1d", "-1d"):
            offset.write_text(jump)
            until_it_goes_on(job, out)
        saved = epochs_saved(out)
        stop(job)
    what = "trains on, and saves (a day ahead, then two days back)"
    return "-", what, "-", resumes(out, setting, saved)


def dataset_truncated(setting: Setting) -> Row:
    """Cut the sequences' file in half while it is trained on; put it back for --resume."""
    with _put_back(setting) as sequences, _started(setting, "cut") as (job, out):
        saved = epochs_saved(out)
        since = time.monotonic()
        os.truncate(sequences, sequences.stat().st_size // 2)
        seconds, code = ended(job, since)
        what = f"ends: {complaint(job.text())}; {_is_refused(out)}"
    return seconds, what, code, f"{resumes(out, setting, saved)}, once the file is back"


def dataset_bit_flipped(setting: Setting) -> Row:
    """Flip the highest bit of a base while it is trained on."""
    out, log = setting.fresh("flipped")
    with (
        _put_back(setting) as sequences,
        Job([*mpirun(2), *train(out, *setting.flags)], log) as job,
    ):
        until_saved(job, out)
        with sequences.open("r+b") as handle:
            handle.seek(200_000)
            base = handle.read(1)[0]
            handle.seek(200_000)
            handle.write(bytes([base ^ 0x80]))
        code = job.end()
        require(code == 2, f"ends with {code}: {complaint(job.text())}")
        require(not (out / "metrics.json").exists(), "leaves results")
        what = f"at the end of the training, before results: {complaint(job.text())}"
    return "-", what, str(code), "the run, which may have learnt from the flipped bit"


@contextlib.contextmanager
def _put_back(setting: Setting) -> Iterator[Path]:
    """Let the sequences' file be spoilt, and put it back."""
    sequences, copy = setting.data / "sequences.npy", setting.folder / "whole.npy"
    shutil.copy(sequences, copy)
    try:
        yield sequences
    finally:
        shutil.copy(copy, sequences)


def _is_refused(out: Path) -> str:
    """Try to go on with a run; return in which words that is refused."""
    again = Job([*mpirun(2), *train(out, "--resume")], out.with_name("refused"))
    code = again.end()
    require(code == 2, f"--resume is not refused, but ends with {code}: {complaint(again.text())}")
    return f"`--resume` refuses (2): {complaint(again.text())}"


def two_runs_into_one_folder(setting: Setting) -> Row:
    """Go on with a run that is still trained."""
    with _started(setting, "twice") as (job, out):
        since = time.monotonic()
        what = _is_refused(out)
        seconds = f"{time.monotonic() - since:.1f}"
        until_it_goes_on(job, out)
        saved = epochs_saved(out)
        stop(job)
    return seconds, f"{what}; the first trains on", "2", resumes(out, setting, saved)


def _refused(setting: Setting, name: str, spoil: Callable[[Path], None]) -> Row:
    with _started(setting, name) as (job, out):
        stop(job)
    last = out / "checkpoints" / "last.npz"
    intact = last.read_bytes()
    saved = epochs_saved(out)
    spoil(last)
    spoilt = last.read_bytes()
    since = time.monotonic()
    what = _is_refused(out)
    seconds = f"{time.monotonic() - since:.1f}"
    require(last.read_bytes() == spoilt, "the checkpoint was changed")
    last.write_bytes(intact)
    return seconds, what, "2", f"{resumes(out, setting, saved)}, once the file is back"


def checkpoint_corrupt(setting: Setting) -> Row:
    """Turn the middle of a checkpoint around."""

    def spoil(path: Path) -> None:
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 64] = bytes(255 - byte for byte in data[middle : middle + 64])
        path.write_bytes(data)

    return _refused(setting, "corrupt", spoil)


def checkpoint_of_another_run(setting: Setting) -> Row:
    """Put the checkpoint of a run on longer sequences in the place of a run's."""
    other, log = setting.fresh("other")
    longer = SimulationSettings(length=500, center=100, positives=100, negatives=100, seed=0)
    data = simulate(longer, other.with_name("longer"))
    code = Job(train(other, "--data", data, "--epochs", 2), log).end()
    require(code == 0, f"the other run ends with {code}")
    source = other / "checkpoints" / "last.npz"
    return _refused(setting, "foreign", lambda path: shutil.copy(source, path))


def checkpoint_of_a_later_version(setting: Setting) -> Row:
    """Raise the format's version in a checkpoint."""

    def spoil(path: Path) -> None:
        with np.load(path) as checkpoint:
            held = dict(checkpoint)
        note = json.loads(held["note"].tobytes())
        held["note"] = np.frombuffer(json.dumps({**note, "format_version": 99}).encode(), np.uint8)
        np.savez(path, **held)

    return _refused(setting, "later", spoil)


CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        killed_while_writing_a_checkpoint,
        disk_full,
        folder_removed,
        folder_read_only,
        clock_jumps,
        dataset_truncated,
        dataset_bit_flipped,
        network_cut_for_5_seconds,
        network_cut,
        network_cut_elastic,
        two_runs_into_one_folder,
        checkpoint_corrupt,
        checkpoint_of_another_run,
        checkpoint_of_a_later_version,
    )
}


@contextlib.contextmanager
def _mounted(folder: Path, *options: str) -> Iterator[None]:
    require_root()
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
