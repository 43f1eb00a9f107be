"""Faults that come once each, for benchmarks/faults.py: the disk, the clock, files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fault_jobs import (
    BIN,
    FOREVER,
    Case,
    Job,
    Row,
    Setting,
    complaint,
    ended,
    epochs_saved,
    mpirun,
    resumes,
    train,
    until_saved,
)
from fault_network import network_cut, network_cut_elastic, network_cut_for_5_seconds

from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.simulation.simulate import simulate

PROGRAMS = Path(__file__).parent.parent / "tests" / "programs"


def _started(setting: Setting, name: str, *options: object) -> tuple[Job, Path]:
    """Start two ranks that train for long, and wait until a checkpoint is there."""
    out, log = setting.fresh(name)
    flags = train(out, "--data", setting.data, *FOREVER, *options)
    job = Job([*mpirun(2), *flags], log)
    until_saved(job, out)
    return job, out


def killed_while_writing_a_checkpoint(setting: Setting) -> Row:
    """Cut the third checkpoint in half and kill the rank that writes it."""
    out, log = setting.fresh("writing")
    program = [BIN / "python", PROGRAMS / "killed_writing.py"]
    flags = ["--out", out, *setting.flags]
    job = Job([*mpirun(2), *program, *flags], log)
    code = job.end()
    lost = resumes(out, setting, 2)
    return "-", "the one before is still whole; `--resume` goes on from it", str(code), lost


def disk_full(setting: Setting) -> Row:
    """Fill the disk that the run is on, while it trains."""
    out, log = setting.fresh("full")
    _mount(out.parent, "-t", "tmpfs", "-o", "size=8m", "tmpfs")
    try:
        log = setting.folder / "full.log"
        job = Job([*mpirun(2), *train(out, "--data", setting.data, *FOREVER)], log)
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
    finally:
        _unmount(out.parent)


def folder_removed(setting: Setting) -> Row:
    """Remove the run folder while it is trained into."""
    job, out = _started(setting, "removed")
    since = time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    seconds, code = ended(job, since)
    return seconds, f"ends: {complaint(job.text())}", code, "what was removed"


def folder_read_only(setting: Setting) -> Row:
    """Make the run folder read-only, for root too, while it is trained into."""
    job, out = _started(setting, "read-only")
    # A mount of its own, as the one below has files that are open for writing.
    _mount(out, "--bind", str(out))
    try:
        since = time.monotonic()
        _mount(out, "-o", "remount,bind,ro")
        saved = epochs_saved(out)
        seconds, code = ended(job, since)
    finally:
        _unmount(out)
    return seconds, f"ends: {complaint(job.text())}", code, resumes(out, setting, saved)


def clock_jumps(setting: Setting) -> Row:
    """Move the clock of a job a day ahead, and then two days back."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    out, log = setting.fresh("clock")
    offset = out.with_name("offset")
    offset.write_text("+0")
    fake = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset)}
    fake |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    passed = [word for name in fake for word in ("-x", name)]
    flags = train(out, "--data", setting.data, *FOREVER)
    job = Job([*mpirun(2, *passed), *flags], log, fake)
    until_saved(job, out)
    for jump in ("+1d", "-1d"):
        offset.write_text(jump)
        before = epochs_saved(out)
        until = time.monotonic() + 20
        while epochs_saved(out) <= before + 1:
            if time.monotonic() > until:
                raise RuntimeError(f"no checkpoint after the clock's jump by {jump}")
            time.sleep(0.1)
    saved = epochs_saved(out)
    job.process.terminate()
    job.end()
    what = "trains on, and saves (a day ahead, then two days back)"
    return "-", what, "-", resumes(out, setting, saved)


def dataset_truncated(setting: Setting) -> Row:
    """Cut the sequences' file in half while it is trained on; put it back for --resume."""
    return _spoilt(setting, "cut", lambda path: os.truncate(path, path.stat().st_size // 2))


def dataset_bit_flipped(setting: Setting) -> Row:
    """Flip the highest bit of a base while it is trained on; put it back for --resume."""

    def flip(path: Path) -> None:
        with path.open("r+b") as handle:
            handle.seek(200_000)
            base = handle.read(1)[0]
            handle.seek(200_000)
            handle.write(bytes([base ^ 0x80]))

    return _spoilt(setting, "flipped", flip)


def _spoilt(setting: Setting, name: str, spoil: Callable[[Path], None]) -> Row:
    whole = setting.data / "sequences.npy"
    copy = setting.folder / "whole.npy"
    shutil.copy(whole, copy)
    job, out = _started(setting, name)
    saved = epochs_saved(out)
    since = time.monotonic()
    spoil(whole)
    try:
        seconds, code = "-", "-"
        try:
            code = str(job.process.wait(20))
            seconds = f"{time.monotonic() - since:.1f}"
            what = f"ends: {complaint(job.text())}"
        except subprocess.TimeoutExpired:
            job.process.terminate()
            job.end()
            what = "trains on"
        refused = Job([*mpirun(2), *train(out, "--resume")], out.with_name("refused"))
        what += f"; `--resume`, {refused.end()}: {complaint(refused.text())}"
    finally:
        shutil.copy(copy, whole)
    return seconds, what, code, f"{resumes(out, setting, saved)}, once the file is back"


def two_runs_into_one_folder(setting: Setting) -> Row:
    """Go on with a run that is still trained."""
    job, out = _started(setting, "twice")
    since = time.monotonic()
    second = Job([*mpirun(2), *train(out, "--resume")], out.with_name("second"))
    code = second.end()
    seconds = f"{time.monotonic() - since:.1f}"
    saved = epochs_saved(out)
    trains = job.process.poll() is None
    job.process.terminate()
    job.end()
    what = f"the second is refused: {complaint(second.text())}"
    what += "; the first trains on" if trains else "; **the first has ended**"
    return seconds, what, str(code), resumes(out, setting, saved)


def _refused(setting: Setting, name: str, spoil: Callable[[Path], None]) -> Row:
    job, out = _started(setting, name)
    job.process.terminate()
    job.end()
    last = out / "checkpoints" / "last.npz"
    intact = last.read_bytes()
    saved = epochs_saved(out)
    spoil(last)
    spoilt = last.read_bytes()
    again = Job([*mpirun(2), *train(out, "--resume")], out.with_name("refused"))
    since = time.monotonic()
    seconds, code = ended(again, since)
    what = f"`--resume` refuses: {complaint(again.text())}"
    what += "" if last.read_bytes() == spoilt else "; **it was changed**"
    last.write_bytes(intact)
    return seconds, what, code, f"{resumes(out, setting, saved)}, once the file is back"


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
    if Job(train(other, "--data", data, "--epochs", 2), log).end() != 0:
        raise RuntimeError(log.read_text())
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


def _mount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", *options, str(folder)], check=True)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)
