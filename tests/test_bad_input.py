"""Whatever is wrong with what the user gave: one line, exit code 2, and nothing left behind."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from tal1_hvd.cli import launching
from tal1_hvd.cli.main import main
from tal1_hvd.data.dataset import create_dataset
from tal1_hvd.inference import trained_model
from tal1_hvd.training import session

LENGTH = 150
SIMULATE = (
    "simulate --out new --jobs 1 --positives 20 --negatives 20 --length 100 --center 80 --seed 1"
)
IMPORT = "import --out new --positives p.fa --negatives n.fa"
SHUFFLE = "import --out new --positives p.fa --negatives dinucleotide-shuffle"
CHROMOSOME = f"{IMPORT} --split chromosome --test-chroms chr1 --valid-chroms chr2"
EXPORT = "export --data data --out new"
TRAIN = "train --data data --out new --epochs 1"
RESUME = "train --out run --resume --epochs 2"
EVALUATE = "evaluate --run run --data data"
PREDICT = "predict --run run q.fa --out new"
LONG_NAME = "x" * 300


@pytest.fixture(scope="module", autouse=True)
def tensorflow_as_it_is():
    """Train without setting TensorFlow up, which a process can do once, before all other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "start_tensorflow", lambda threads, local_rank: "CPU")
        yield


def call(argv):
    """Run a command; return its exit code, what it printed and what it complained about."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in argv])
        except SystemExit as stopped:
            code = stopped.code
    return code, out.getvalue(), err.getvalue()


def fasta(count, length, seed, locus="s{}"):
    """Return FASTA of random sequences."""
    rng = np.random.default_rng(seed)
    return "".join(
        f">{locus.format(i)}\n{''.join(rng.choice(list('ACGT'), length))}\n" for i in range(count)
    )


def make_data(path, splits=(0,) * 28 + (1,) * 8 + (2,) * 4, length=LENGTH, task="imported"):
    """Write a dataset of random sequences."""
    rng = np.random.default_rng(1)
    with create_dataset(path, len(splits), length) as writer:
        writer.sequences[:] = rng.integers(0, 4, writer.sequences.shape, dtype=np.uint8)
        writer.finish(
            labels=np.arange(len(splits)) % 2,
            splits=np.array(splits),
            ids=[f"s{i}" for i in range(len(splits))],
            task=task,
            parameters={},
            seed=0,
        )


@pytest.fixture(scope="module")
def good(small_data, tmp_path_factory):
    """Return a folder of good inputs: data, a run of one epoch on it, and FASTA files."""
    folder = tmp_path_factory.mktemp("good")
    shutil.copytree(small_data, folder / "data")
    make_data(folder / "tiny")
    make_data(folder / "longer", length=LENGTH + 50)
    for name, content in (
        ("p.fa", fasta(20, 40, 1, "chr1:{}-9")),
        ("n.fa", fasta(20, 40, 2, "chr2:{}-9")),
        ("q.fa", fasta(3, LENGTH, 3, "q{}")),
    ):
        (folder / name).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (TRAIN.replace("new", "run"), "train --data longer --out other --epochs 1"):
            assert call(shlex.split(f"{command} --batch-size 16"))[0] == 0
    return folder


@pytest.fixture
def here(good, tmp_path, monkeypatch):
    """Stand in a copy of the good inputs; starting ranks or simulating the default data fails."""

    def never(*args, **kwargs):
        raise AssertionError("bad input was not noticed before this")

    for name in ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launching, "launch_ranks", never)
    monkeypatch.setattr(session, "cached_dataset", never)
    folder = tmp_path / "here"
    shutil.copytree(good, folder)
    monkeypatch.chdir(folder)
    return folder


def contents(folder):
    """Return everything in a folder, hidden files too, with a hash of each file's bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def require_one_line(code, out, err):
    assert code == 2, err
    assert err.startswith("tal1-hvd: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert out == ""


# Each of these returns what spoils the good inputs, in the folder where the command will run.


def write(name, content):
    data = content.encode() if isinstance(content, str) else content
    return lambda: Path(name).write_bytes(data)


def cut(name, keep=0.5):
    def prepare():
        data = Path(name).read_bytes()
        Path(name).write_bytes(data[: int(keep * len(data))])

    return prepare


def flip(name, at):
    def prepare():
        data = bytearray(Path(name).read_bytes())
        data[at] ^= 1
        Path(name).write_bytes(data)

    return prepare


def lose_data():
    """Neither where the run was told that it is, nor where it was."""
    shutil.rmtree("data")
    manifest = json.loads(Path("run/manifest.json").read_text())
    manifest["dataset"]["path"] = "nowhere"
    Path("run/manifest.json").write_text(json.dumps(manifest))


def remove(name):
    return lambda: Path(name).unlink()


def replace(name, old, new):
    def prepare():
        text = Path(name).read_text()
        assert old in text
        Path(name).write_text(text.replace(old, new, 1))

    return prepare


def edit(name, **changes):
    """Change or (with ...) remove keys of a JSON file."""

    def prepare():
        value = json.loads(Path(name).read_text()) | changes
        kept = {key: item for key, item in value.items() if item is not ...}
        Path(name).write_text(json.dumps(kept))

    return prepare


def sign(name, content):
    """Put something else in the place of a data file, with its checksum."""

    def prepare():
        if isinstance(content, bytes):
            Path("data", name).write_bytes(content)
        else:
            np.save(Path("data", name), content)
        path = Path("data/dataset.json")
        description = json.loads(path.read_text())
        digest = hashlib.sha256(Path("data", name).read_bytes()).hexdigest()
        description["sha256"][name] = digest
        path.write_text(json.dumps(description))

    return prepare


def spoil_checkpoint(**changes):
    """Change or (with ...) remove arrays of the last checkpoint; a dictionary is its note."""

    def prepare():
        path = Path("run/checkpoints/last.npz")
        arrays = dict(np.load(path))
        for name, value in changes.items():
            key = name.replace("_", "/")
            if value is ...:
                del arrays[key]
            elif isinstance(value, dict):
                note = json.loads(arrays[key].tobytes()) | value
                arrays[key] = np.frombuffer(json.dumps(note).encode(), dtype=np.uint8)
            else:
                arrays[key] = value
        np.savez(path, **arrays)

    return prepare


def compress_unheard_of():
    """Note in a checkpoint's directory a way of compression that zip files do not have."""
    path = Path("run/checkpoints/last.npz")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 10] = 99
    path.write_bytes(data)


def nothing():
    pass


def bad(name, command, *words, prepare=nothing):
    return pytest.param(command, words, prepare, id=name.replace(" ", "-"))


ZIPPED = gzip.compress(fasta(40, LENGTH, 5).encode())
NPZ = io.BytesIO()
np.savez(NPZ, a=np.zeros(3))

COMMAND_LINE = [
    bad("unknown command", "fly", "'fly'"),
    bad("unknown flag", f"{TRAIN} --fly 1", "--fly"),
    bad("abbreviated flag", f"{TRAIN} --epoch 1", "--epoch"),
    bad("missing value", "train --data data --out new --epochs", "--epochs", "one argument"),
    bad("missing option", "export --data data", "--out"),
    bad("missing input", "predict --run run", "INPUT"),
    bad("two inputs", "predict --run run q.fa p.fa", "p.fa"),
    bad("word for a number", f"{TRAIN} --epochs many", "--epochs", "'many'"),
    bad("fraction for a count", f"{TRAIN} --epochs 1.5", "--epochs", "'1.5'"),
    bad("not a choice", f"{EVALUATE} --split all-of-it", "--split", "'all-of-it'"),
    bad("config without a file", "simulate --config", "--config"),
    bad("config missing", "simulate --config nowhere.yaml", "nowhere.yaml", "No such file"),
    bad("config a folder", "simulate --config data", "--config", "directory"),
    bad("config not yaml", "simulate --config c", "not YAML", prepare=write("c", "a: b: c")),
    bad("config binary", "simulate --config c", "not YAML", prepare=write("c", b"\xff\xfe\0")),
    bad("config a list", "simulate --config c", "option: value", prepare=write("c", "- out")),
    bad("config unknown key", "train --config c", "'epoch'", prepare=write("c", "epoch: 1")),
    bad("config wrong type", f"{TRAIN} --config c", "seed", prepare=write("c", "seed: x")),
    bad("config no date", f"{TRAIN} --config c", "c", prepare=write("c", "seed: 2020-13-45")),
    bad("config bad value", f"{SIMULATE} --config c", "--gc", prepare=write("c", "gc: 2")),
]

SIMULATIONS = [
    bad("unknown motif", f"{SIMULATE} --motif TAL1_known99", "'TAL1_known99'", "did you mean"),
    bad("no motif", f"{SIMULATE} --motif", "--motif"),
    bad("too few motifs", f"{SIMULATE} --task heterodimer-grammar", "--motif", "takes 2"),
    bad("too many motifs", f"{SIMULATE} --motif TAL1_known4 TAL1_known3", "takes 1, got 2"),
    bad("motif file missing", f"{SIMULATE} --motif-file nowhere", "nowhere", "No such file"),
    bad("motif file a folder", f"{SIMULATE} --motif-file data", "data", "directory"),
    bad("motif file empty", f"{SIMULATE} --motif-file m", "m: not a MEME", prepare=write("m", "")),
    bad("motif file a fasta", f"{SIMULATE} --motif-file q.fa", "q.fa: not a MEME"),
    bad(
        "motif file binary",
        f"{SIMULATE} --motif-file m",
        "m: not a MEME",
        prepare=write("m", bytes(range(256))),
    ),
    bad(
        "motif file uneven",
        f"{SIMULATE} --motif-file m --motif a",
        "m: not a MEME",
        prepare=write("m", ">a\nA [1 2 3]\nC [1 2]\nG [1 2 3]\nT [1 2 3]\n"),
    ),
    bad(
        "motif file of zeros",
        f"{SIMULATE} --motif-file m --motif a",
        "m",
        prepare=write("m", ">a\nA [0 1]\nC [0 1]\nG [0 1]\nT [0 1]\n"),
    ),
    bad(
        "motif file with nan",
        f"{SIMULATE} --motif-file m --motif a",
        "m",
        prepare=write("m", ">a\nA [nan 1]\nC [1 1]\nG [1 1]\nT [1 1]\n"),
    ),
    bad(
        "motif file below zero",
        f"{SIMULATE} --motif-file m --motif a",
        "m",
        prepare=write("m", ">a\nA [-1 1]\nC [2 1]\nG [2 1]\nT [2 1]\n"),
    ),
    bad("sites do not fit", f"{SIMULATE} --min-sites 9 --max-sites 9", "--center", "9 sites"),
    bad("center wider than all", f"{SIMULATE} --center 101", "--center", "101", "100"),
    bad("more than most sites", f"{SIMULATE} --min-sites 3 --max-sites 2", "--min-sites"),
    bad("spacing upside down", f"{SIMULATE} --min-spacing 6", "--min-spacing", "--max-spacing"),
    bad("zero positives", f"{SIMULATE} --positives 0", "--positives", "between 1"),
    bad("zero negatives", f"{SIMULATE} --negatives 0", "--negatives", "between 1"),
    bad("too few to split", f"{SIMULATE} --positives 2", "2 positives", "too few"),
    bad("length below zero", f"{SIMULATE} --length -100", "--length", "-100"),
    bad("gc above one", f"{SIMULATE} --gc 40", "--gc", "40"),
    bad("gc nan", f"{SIMULATE} --gc nan", "--gc", "nan"),
    bad("simulate seed below zero", f"{SIMULATE} --seed -1", "--seed", "-1"),
    bad("no jobs", f"{SIMULATE} --jobs 0", "--jobs"),
    bad("simulate onto a folder", SIMULATE.replace("new", "data"), "data: exists already"),
    bad("simulate onto a file", SIMULATE.replace("new", "q.fa"), "q.fa: exists already"),
    bad("simulate below a file", SIMULATE.replace("new", "q.fa/new"), "q.fa/new: cannot"),
    bad("simulate unwritable", SIMULATE.replace("new", "/proc/new"), "/proc/new: cannot"),
    bad("simulate long name", SIMULATE.replace("new", LONG_NAME), "File name too long"),
]

IMPORTS = [
    bad("positives missing", IMPORT.replace("p.fa", "nowhere"), "nowhere: cannot be read"),
    bad("positives a folder", IMPORT.replace("p.fa", "data"), "data: cannot be read"),
    bad("positives long name", IMPORT.replace("p.fa", LONG_NAME), "File name too long"),
    bad("positives empty", IMPORT, "p.fa: holds no FASTA", prepare=write("p.fa", "")),
    bad("positives blank", IMPORT, "p.fa: holds no FASTA", prepare=write("p.fa", "\n \n")),
    bad("positives cut gzip", IMPORT, "p.fa: truncated", prepare=write("p.fa", ZIPPED[:-99])),
    bad("positives no gzip", IMPORT, "p.fa", "gzip", prepare=write("p.fa", b"\x1f\x8b\x08abc")),
    bad("positives binary", IMPORT, "p.fa: not a text", prepare=write("p.fa", b">a\n\xc1\xff")),
    bad("positives a table", IMPORT, "p.fa, line 1: not FASTA", prepare=write("p.fa", "a\t1\n")),
    bad("nameless header", IMPORT, "p.fa, line 3", prepare=write("p.fa", ">a\nAC\n>\nAC\n")),
    bad("no sequence", IMPORT, "p.fa, line 1", "'a'", prepare=write("p.fa", ">a\n>b\nACGT\n")),
    bad(
        "wrong alphabet",
        IMPORT,
        "n.fa, line 3: record 'b'",
        "'E' at position 2",
        prepare=write("n.fa", f">a\n{'A' * 40}\n>b\nMEKL\n"),
    ),
    bad("zero negative records", IMPORT, "n.fa: holds no FASTA", prepare=write("n.fa", "")),
    bad("negatives not said", "import --out new --positives p.fa", "--negatives"),
    bad("same file twice", IMPORT.replace("n.fa", "p.fa"), "'chr1:0-9'", "twice"),
    bad(
        "duplicate ids",
        IMPORT,
        "'a'",
        "twice",
        prepare=write("p.fa", f">a\n{'A' * 40}\n>a\n{'C' * 40}\n"),
    ),
    bad(
        "unequal lengths",
        IMPORT,
        "p.fa, line 3: record 'b' has 3 bp",
        "--length",
        prepare=write("p.fa", ">a\nACGT\n>b\nACG\n"),
    ),
    bad("classes unequal", IMPORT, "n.fa", "4 bp", prepare=write("n.fa", ">a\nACGT\n>b\nACGT\n")),
    bad("import too few", IMPORT, "too few", prepare=write("p.fa", f">a\n{'A' * 40}\n")),
    bad("length zero", f"{IMPORT} --length 0", "--length"),
    bad("import length below zero", f"{SHUFFLE} --length -5", "--length"),
    bad("no shuffles", f"{SHUFFLE} --negatives-per-positive 0", "--negatives-per-positive"),
    bad("shuffle seed below zero", f"{SHUFFLE} --seed -1", "--seed"),
    bad("import seed below zero", f"{IMPORT} --seed -1", "--seed"),
    bad("copies of a file", f"{IMPORT} --negatives-per-positive 2", "--negatives-per-positive"),
    bad("label of a fasta", f"{IMPORT} --label y", "--label"),
    bad("chromosomes at random", f"{IMPORT} --test-chroms chr1", "--split chromosome"),
    bad("no loci", CHROMOSOME, "'a'", "chr:start-end", prepare=write("p.fa", f">a\n{'A' * 40}\n")),
    bad("unknown chromosome", f"{CHROMOSOME} --test-chroms chr7", "--test-chroms", "chr7"),
    bad("chromosome for two", f"{CHROMOSOME} --test-chroms chr2", "both name chr2"),
    bad("nothing to train on", CHROMOSOME, "none is left to train on"),
    bad("chromosomes not said", f"{IMPORT} --split chromosome", "--test-chroms"),
    bad(
        "no simdata",
        "import --out new --positives x.simdata",
        "x.simdata, line 1",
        prepare=write("x.simdata", "a\tb\n"),
    ),
    bad(
        "simdata label",
        "import --out new --positives x.simdata",
        "x.simdata, line 2",
        "'2'",
        prepare=write("x.simdata", "seqName\tsequence\tembeddings\ty\na\tACGT\t\t2\n"),
    ),
    bad(
        "simdata embedding",
        "import --out new --positives x.simdata",
        "x.simdata, line 2",
        "'pos-x'",
        prepare=write("x.simdata", "seqName\tsequence\tembeddings\ty\na\tACGT\tpos-x\t1\n"),
    ),
    bad("import onto a folder", IMPORT.replace("new", "data"), "data: exists already"),
    bad("import below a file", IMPORT.replace("new", "q.fa/new"), "q.fa/new: cannot"),
]

DATASETS = [
    bad("data missing", EXPORT.replace("data data", "data nowhere"), "nowhere: no such dataset"),
    bad("data a file", EXPORT.replace("data data", "data q.fa"), "q.fa"),
    bad("data a run", EXPORT.replace("data data", "data run"), "run: not a dataset folder"),
    bad("data long name", EXPORT.replace("data data", f"data {LONG_NAME}"), "File name too long"),
    bad("no description", EXPORT, "no dataset.json", prepare=remove("data/dataset.json")),
    bad("description empty", EXPORT, "dataset.json", prepare=write("data/dataset.json", "")),
    bad("description cut", EXPORT, "dataset.json", prepare=cut("data/dataset.json")),
    bad("description a list", EXPORT, "dataset.json", prepare=write("data/dataset.json", "[]")),
    bad("description binary", EXPORT, "dataset.json", prepare=write("data/dataset.json", b"\xff")),
    bad(
        "description deep",
        EXPORT,
        "dataset.json",
        prepare=write("data/dataset.json", "[" * 100_000),
    ),
    bad(
        "data of another version",
        TRAIN,
        "format version 99",
        prepare=edit("data/dataset.json", format_version=99),
    ),
    bad("no count", TRAIN, "'count'", prepare=edit("data/dataset.json", count=...)),
    bad("wrong count", TRAIN, "sequences.npy", prepare=edit("data/dataset.json", count=7)),
    bad("no checksums", TRAIN, "SHA-256", prepare=edit("data/dataset.json", sha256={})),
    bad("edited labels", EVALUATE, "labels.npy: was changed", prepare=flip("data/labels.npy", -1)),
    bad(
        "edited bases", TRAIN, "sequences.npy: was changed", prepare=flip("data/sequences.npy", -1)
    ),
    bad("edited sites", EXPORT, "sites.bed: was changed", prepare=flip("data/sites.bed", 0)),
    bad("cut sequences", TRAIN, "sequences.npy: was changed", prepare=cut("data/sequences.npy")),
    bad("sequences missing", TRAIN, "sequences.npy", prepare=remove("data/sequences.npy")),
    bad("splits missing", EVALUATE, "splits.npy", prepare=remove("data/splits.npy")),
    bad("ids missing", EXPORT, "ids.txt", prepare=remove("data/ids.txt")),
    bad("labels of 7", TRAIN, "labels.npy", prepare=sign("labels.npy", np.full(800, 7, np.uint8))),
    bad(
        "labels as floats", TRAIN, "labels.npy", "float64", prepare=sign("labels.npy", np.ones(800))
    ),
    bad("labels pickled", TRAIN, "labels.npy", prepare=sign("labels.npy", np.array([None] * 800))),
    bad("labels an archive", TRAIN, "labels.npy", prepare=sign("labels.npy", NPZ.getvalue())),
    bad("labels no array", TRAIN, "labels.npy", prepare=sign("labels.npy", b"labels")),
    bad("splits of 3", TRAIN, "splits.npy", prepare=sign("splits.npy", np.full(800, 3, np.uint8))),
    bad("too few ids", EXPORT, "ids.txt", prepare=sign("ids.txt", b"one\n")),
    bad("export onto a file", EXPORT.replace("new", "q.fa"), "q.fa: exists already"),
    bad("export onto a folder", EXPORT.replace("new", "run"), "run: exists already"),
    bad("export into no folder", EXPORT.replace("new", "no/new"), "no/new: cannot be written"),
    bad("export below a file", EXPORT.replace("new", "q.fa/new"), "q.fa/new: cannot be written"),
    bad("export long name", EXPORT.replace("new", LONG_NAME), "File name too long"),
]


def no_results():
    """Leave what a run leaves that was killed before its first checkpoint."""
    for name in ("model.keras", "metrics.json", "history.csv", "checkpoints/last.npz"):
        Path("run", name).unlink()


TRAININGS = [
    bad("train data missing", "train --data nowhere --out new", "nowhere: no such dataset"),
    bad("train data empty name", "train --data '' --out new", "--data"),
    bad("train out empty name", "train --data data --out ''", "--out"),
    bad("train data long name", f"train --data {LONG_NAME} --out new", "File name too long"),
    bad("train onto data", TRAIN.replace("new", "data"), "data: exists already"),
    bad("train onto a file", TRAIN.replace("new", "q.fa"), "q.fa: exists already"),
    bad("train below a file", TRAIN.replace("new", "q.fa/new"), "q.fa/new: cannot be written"),
    bad("train unwritable", TRAIN.replace("new", "/proc/new"), "/proc/new: cannot be written"),
    bad("no epochs", f"{TRAIN} --epochs 0", "--epochs", "at least 1"),
    bad("epochs below zero", f"{TRAIN} --epochs -3", "--epochs", "-3"),
    bad("empty batch", f"{TRAIN} --batch-size 0", "--batch-size"),
    bad("batch of all and one", f"{TRAIN} --batch-size 561", "--batch-size", "560"),
    bad("passes of all", f"{TRAIN} --accumulation 9", "9 passes", "560"),
    bad("batch of a shard", f"{TRAIN} --ranks 4 --batch-size 141", "140", "4 ranks"),
    bad("more ranks than examples", "train --data tiny --out new --ranks 100", "28", "100 ranks"),
    bad("no ranks", f"{TRAIN} --ranks 0", "--ranks", "'0'"),
    bad("ranks below zero", f"{TRAIN} --ranks=-2", "--ranks", "'-2'"),
    bad("some ranks", f"{TRAIN} --ranks some", "--ranks", "auto"),
    bad("ranks on one process", f"{TRAIN} --ranks 2 --strategy single", "single", "2 ranks"),
    bad("rate nan", f"{TRAIN} --learning-rate nan", "--learning-rate", "nan"),
    bad("rate inf", f"{TRAIN} --learning-rate inf", "--learning-rate", "inf"),
    bad("rate zero", f"{TRAIN} --learning-rate 0", "--learning-rate"),
    bad("rate below zero", f"{TRAIN} --learning-rate -0.5", "--learning-rate", "-0.5"),
    bad("warmup below zero", f"{TRAIN} --warmup-examples -1", "--warmup-examples"),
    bad("train seed below zero", f"{TRAIN} --seed -1", "--seed"),
    bad("no threads", f"{TRAIN} --threads 0", "--threads"),
    bad("no patience", f"{TRAIN} --patience 0", "--patience"),
    bad("timeout below zero", f"{TRAIN} --stall-timeout -1", "--stall-timeout"),
    bad("timeout nan", f"{TRAIN} --stall-timeout nan", "--stall-timeout", "nan"),
    bad("unknown model", f"{TRAIN} --model alexnet", "--model", "'alexnet'", "paper"),
    bad("unknown strategy", f"{TRAIN} --strategy magic", "--strategy", "horovod"),
    bad(
        "sequences too short",
        "train --data short --out new --batch-size 8",
        "44 bp",
        prepare=lambda: make_data("short", length=43),
    ),
    bad(
        "nothing to train with",
        "train --data sparse --out new --batch-size 1",
        "train split is empty",
        prepare=lambda: make_data("sparse", [1, 2] * 10),
    ),
    bad(
        "nothing to validate with",
        "train --data sparse --out new --batch-size 1",
        "validation split is empty",
        prepare=lambda: make_data("sparse", [0, 2] * 10),
    ),
]

RESUMES = [
    bad("resume nameless", "train --resume", "--out"),
    bad("resume nothing", "train --out new --resume", "new: no run to resume", "start it again"),
    bad("resume a dataset", "train --out data --resume", "data: no run to resume"),
    bad("resume into a dataset", "train --data data --out data --resume", "data: no run to resume"),
    bad("resume long name", f"train --out {LONG_NAME} --resume", "File name too long"),
    bad("resume another seed", f"{RESUME} --seed 7", "--seed", "0", "7"),
    bad("resume another rate", f"{RESUME} --learning-rate 1", "--learning-rate"),
    bad("resume another precision", f"{RESUME} --precision float64", "--precision", "float32"),
    bad("resume another batch", f"{RESUME} --batch-size 8", "--batch-size", "16"),
    bad("resume with no passes", f"{RESUME} --accumulation 0", "--accumulation"),
    bad("resume with 3 passes", f"{RESUME} --accumulation 3", "global batch of 16"),
    bad("resume on 3 ranks", f"{RESUME} --ranks 3", "global batch of 16", "3 ranks"),
    bad("resume other data", f"{RESUME} --data tiny", "--data", "tiny"),
    bad("resume data gone", RESUME, "no such dataset", prepare=lose_data),
    bad("resume data changed", RESUME, "labels.npy", prepare=flip("data/labels.npy", -1)),
    bad("settings missing", RESUME, "config.yaml", prepare=remove("run/config.yaml")),
    bad("settings empty", RESUME, "config.yaml", prepare=write("run/config.yaml", "")),
    bad("settings not yaml", RESUME, "config.yaml", prepare=write("run/config.yaml", "a: b: c")),
    bad("settings unknown", RESUME, "'fly'", prepare=replace("run/config.yaml", "seed", "fly")),
    bad(
        "settings a word", RESUME, "yaml", prepare=replace("run/config.yaml", "seed: 0", "seed: a")
    ),
    bad(
        "settings no date",
        RESUME,
        "config.yaml",
        prepare=replace("run/config.yaml", "seed: 0", "seed: 2020-13-45"),
    ),
    bad(
        "settings half an epoch",
        "train --out run --resume",
        "config.yaml",
        prepare=replace("run/config.yaml", "epochs: 1", "epochs: 1.5"),
    ),
    bad(
        "settings data a number",
        RESUME,
        "config.yaml",
        prepare=replace("run/config.yaml", "data: data", "data: 5"),
    ),
    bad("manifest missing", RESUME, "manifest.json", prepare=remove("run/manifest.json")),
    bad("manifest cut", RESUME, "manifest.json", prepare=cut("run/manifest.json")),
    bad("manifest a list", RESUME, "manifest.json", prepare=write("run/manifest.json", "[]")),
    bad(
        "manifest batch a word",
        RESUME,
        "manifest.json",
        prepare=edit("run/manifest.json", global_batch_size="64"),
    ),
    bad("checkpoint empty", RESUME, "last.npz", prepare=write("run/checkpoints/last.npz", "")),
    bad("checkpoint cut", RESUME, "last.npz", prepare=cut("run/checkpoints/last.npz", 0.9)),
    bad("checkpoint flipped", RESUME, "last.npz", prepare=flip("run/checkpoints/last.npz", 2000)),
    bad("checkpoint text", RESUME, "last.npz", prepare=write("run/checkpoints/last.npz", "text")),
    bad(
        "checkpoint of something else",
        RESUME,
        "last.npz",
        prepare=write("run/checkpoints/last.npz", NPZ.getvalue()),
    ),
    bad(
        "checkpoint of another version",
        RESUME,
        "last.npz",
        "format version 99",
        prepare=spoil_checkpoint(note={"format_version": 99}),
    ),
    bad(
        "checkpoint without progress",
        RESUME,
        "last.npz",
        prepare=spoil_checkpoint(note={"progress": 5}),
    ),
    bad(
        "checkpoint epoch a word",
        RESUME,
        "last.npz",
        prepare=spoil_checkpoint(note={"progress": {"epoch": "one"}}),
    ),
    bad("checkpoint compressed oddly", RESUME, "last.npz", prepare=compress_unheard_of),
    bad("checkpoint short", RESUME, "last.npz", prepare=spoil_checkpoint(model_3=...)),
    bad("checkpoint best short", RESUME, "last.npz", prepare=spoil_checkpoint(best_3=...)),
    bad("checkpoint shape", RESUME, "last.npz", prepare=spoil_checkpoint(model_0=np.zeros(2))),
    bad(
        "checkpoint of another model",
        RESUME,
        "last.npz",
        prepare=lambda: shutil.copy("other/checkpoints/last.npz", "run/checkpoints/last.npz"),
    ),
]

MODELS = [
    bad("evaluate no run", EVALUATE.replace("run run", "run nowhere"), "nowhere: no such run"),
    bad("evaluate a dataset", EVALUATE.replace("run run", "run data"), "model.keras: no such file"),
    bad("evaluate unfinished", EVALUATE, "model.keras", "finished", prepare=no_results),
    bad(
        "evaluate long name", EVALUATE.replace("run run", f"run {LONG_NAME}"), "File name too long"
    ),
    bad("evaluate seed below zero", f"{EVALUATE} --seed -1", "--seed"),
    bad("evaluate other length", EVALUATE.replace("data data", "data longer"), "200 bp", "150"),
    bad("evaluate model cut", EVALUATE, "model.keras", prepare=cut("run/model.keras")),
    bad("predict no run", PREDICT.replace("run run", "run nowhere"), "nowhere: no such run"),
    bad("predict unfinished", PREDICT, "model.keras", "finished", prepare=no_results),
    bad("predict model empty", PREDICT, "model.keras", prepare=write("run/model.keras", "")),
    bad("predict model cut", PREDICT, "model.keras", prepare=cut("run/model.keras", 0.99)),
    bad("predict model text", PREDICT, "model.keras", prepare=write("run/model.keras", "text")),
    bad("reads missing", PREDICT.replace("q.fa", "nowhere"), "nowhere: cannot be read"),
    bad("reads a folder", PREDICT.replace("q.fa", "data"), "data: cannot be read"),
    bad("reads empty", PREDICT, "q.fa: holds no FASTA", prepare=write("q.fa", "")),
    bad("reads binary", PREDICT, "q.fa: not a text", prepare=write("q.fa", b"\xff\xd8")),
    bad("reads cut gzip", PREDICT, "q.fa: truncated", prepare=write("q.fa", ZIPPED[:-5])),
    bad("reads nameless", PREDICT, "q.fa, line 1", prepare=write("q.fa", "> a\nACGT\n")),
    bad("reads no fasta", PREDICT, "q.fa, line 1", prepare=write("q.fa", "ACGT\n")),
    bad(
        "reads too short",
        PREDICT,
        "q.fa, line 7: record 'late' has 4 bp",
        "150",
        prepare=write("q.fa", fasta(3, LENGTH, 3) + ">late\nACGT\n"),
    ),
    bad(
        "reads too long to pad",
        f"{PREDICT} --on-length pad",
        "q.fa, line 1: record 's0' has 151 bp",
        prepare=write("q.fa", fasta(1, LENGTH + 1, 3)),
    ),
    bad(
        "reads too short to crop",
        f"{PREDICT} --on-length center-crop",
        "q.fa, line 1: record 's0' has 149 bp",
        prepare=write("q.fa", fasta(1, LENGTH - 1, 3)),
    ),
    bad(
        "reads of protein",
        PREDICT,
        "q.fa, line 1: record 's0'",
        "'E' at position 1",
        prepare=write("q.fa", f">s0\n{'E' * LENGTH}\n"),
    ),
    bad("predict onto a file", PREDICT.replace("new", "p.fa"), "p.fa: exists already"),
    bad("predict onto its input", PREDICT.replace("new", "q.fa"), "q.fa: exists already"),
    bad("predict onto a folder", PREDICT.replace("new", "data"), "data: exists already"),
    bad("predict into no folder", PREDICT.replace("new", "no/new"), "no/new: cannot be written"),
    bad("predict below a file", PREDICT.replace("new", "p.fa/new"), "p.fa/new: cannot"),
    bad("predict long name", PREDICT.replace("new", LONG_NAME), "File name too long"),
    bad("predict how", f"{PREDICT} --on-length squeeze", "--on-length", "'squeeze'"),
]

CASES = [*COMMAND_LINE, *SIMULATIONS, *IMPORTS, *DATASETS, *TRAININGS, *RESUMES, *MODELS]


def test_good_inputs_are_good(here):
    """What the bad inputs below are made from works as it is."""
    commands = [SIMULATE, IMPORT, SHUFFLE, EXPORT, TRAIN, RESUME, EVALUATE, PREDICT]
    commands.append("train --data tiny --out new --epochs 1 --batch-size 8")
    for command in commands:
        code, _, err = call(shlex.split(command))
        assert code == 0, err
        if Path("new").is_dir():
            shutil.rmtree("new")
        Path("new").unlink(missing_ok=True)
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize(("command", "words", "prepare"), CASES)
def test_bad_input(here, command, words, prepare):
    prepare()
    before = contents(here.parent)
    code, out, err = call(shlex.split(command))
    require_one_line(code, out, err)
    for word in words:
        assert word in err
    assert contents(here.parent) == before


def test_run_that_another_process_trains(here):
    with FileLock(here / "run" / ".lock"):
        code, out, err = call(shlex.split(RESUME))
    require_one_line(code, out, err)
    assert "another process is training" in err


@pytest.mark.parametrize("name", ["no-horovod", "within-a-launcher"])
def test_ranks_that_cannot_be_started(here, monkeypatch, name):
    if name == "no-horovod":
        monkeypatch.undo()
        monkeypatch.chdir(here)
        monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
        words = ["--ranks", "Horovod"]
    else:
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
        words = ["--ranks", "launcher", "3"]
    before = contents(here)
    code, out, err = call(shlex.split(f"{TRAIN} --ranks 2"))
    require_one_line(code, out, err)
    assert all(word in err for word in words)
    assert contents(here) == before


PROCESSES = (
    "unknown-command",
    "config-without-a-file",
    "unknown-motif",
    "positives-cut-gzip",
    "edited-labels",
    "more-ranks-than-examples",
    "resume-another-seed",
)


@pytest.mark.parametrize(
    ("command", "words", "prepare"), [case for case in CASES if case.id in PROCESSES]
)
def test_bad_input_of_a_process(here, command, words, prepare):
    prepare()
    before = contents(here.parent)
    command = [sys.executable, "-m", "tal1_hvd", *shlex.split(command)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    require_one_line(ended.returncode, ended.stdout, ended.stderr)
    assert all(word in ended.stderr for word in words)
    assert contents(here.parent) == before


# Random inputs: the command either takes them or refuses them in one line.

fuzz = settings(derandomize=True, deadline=None, max_examples=60)


@pytest.fixture(scope="module")
def scratch(good, tmp_path_factory):
    """Return a copy of the good inputs that random ones are put into."""
    folder = tmp_path_factory.mktemp("fuzz") / "here"
    shutil.copytree(good, folder)
    return folder


@pytest.fixture(scope="module")
def model(good):
    return trained_model.load(good / "run")


def take_or_refuse(folder, command):
    """Run a command in a folder; if it refuses, nothing of its output may be there."""
    out = folder / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code, printed, err = call(shlex.split(command))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    if code == 0:
        assert "error" not in err
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    else:
        require_one_line(code, printed, err)
        assert not out.exists()


def near(text, alphabet):
    """Return random bytes, and random text in which the words of a format are common."""
    return st.binary(max_size=60) | st.lists(st.sampled_from(alphabet.split(" ")), max_size=12).map(
        lambda parts: text + "".join(parts)
    )


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@fuzz
@given(near(">a\nACGT", "> \n >a\n >b\n ACGT acgu N - * \t \r\n ; 12 é \0 \x0b"), st.booleans())
def test_any_fasta_to_import(scratch, content, zipped):
    put(scratch / "p.fa", content)
    if zipped:
        put(scratch / "p.fa", gzip.compress((scratch / "p.fa").read_bytes()))
    take_or_refuse(scratch, SHUFFLE)


@fuzz
@given(content=near(">a\n", "> \n >a\n >b\n ACGT acgu N - * \t \r\n ; 12 é \0 \x0b"))
def test_any_fasta_to_predict(scratch, model, content):
    put(scratch / "q.fa", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained_model, "load", lambda run: model)
        take_or_refuse(scratch, f"{PREDICT} --on-length pad")


@fuzz
@given(
    near(
        "seqName\tsequence\tembeddings\ty\n",
        "a b \t ACGT \n 0 1 pos-1_x-ACG pos-0_revComp-x-AC pos- , x \t\t \r\n \0 -Gap",
    )
)
def test_any_simdata(scratch, content):
    put(scratch / "x.simdata", content)
    take_or_refuse(scratch, "import --out new --positives x.simdata")


@fuzz
@given(
    near(">a\n", ">a\n A C G T [ ] 1 0 -1 2.5 nan inf 1e400 \n x")
    | near(
        "MEME version 4\nALPHABET= ACGT\nBackground letter frequencies\n"
        "A 0.25 C 0.25 G 0.25 T 0.25\nMOTIF a\n"
        "letter-probability matrix: alength= 4 w= 2 nsites= 20 E= 0\n",
        "0.25\t 0.25\t0.25\t0.25\t0.25\n 1 0 -1 nan \n MOTIF \t x",
    )
    | st.lists(st.text("0123.-eina ", max_size=6), min_size=4, max_size=4).map(
        lambda rows: ">a\n" + "".join(f"{b} [{r}]\n" for b, r in zip("ACGT", rows, strict=True))
    )
)
def test_any_motif_file(scratch, content):
    put(scratch / "m", content)
    take_or_refuse(scratch, f"{SIMULATE} --motif-file m --motif a")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@fuzz
@given(
    st.binary(max_size=40)
    | json_values.map(json.dumps)
    | st.dictionaries(
        st.sampled_from(["format_version", "count", "length", "sha256", "task", "splits"]),
        json_values,
        min_size=1,
    )
)
def test_any_description_of_a_dataset(scratch, good, content):
    if isinstance(content, dict):
        whole = json.loads((good / "data" / "dataset.json").read_text())
        content = json.dumps(whole | content)
    put(scratch / "data" / "dataset.json", content)
    try:
        take_or_refuse(scratch, EXPORT)
    finally:
        shutil.copy(good / "data" / "dataset.json", scratch / "data" / "dataset.json")


@fuzz
@given(near("", "split data : - \n x 1 0.5 [ ] { } ' \" ! & * # ,\t true train test null"))
def test_any_configuration(scratch, content):
    put(scratch / "c.yaml", content)
    take_or_refuse(scratch, f"{EXPORT} --config c.yaml")


@st.composite
def damages(draw, content):
    """Draw damaged versions of a file: cut short, some bits flipped, or other bytes."""
    kind = draw(st.sampled_from(["cut", "flip", "flip", "flip", "other"]))
    if kind == "other":
        return draw(st.binary(max_size=60))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    damaged = bytearray(content)
    # A zip file's directory is at its end, and is read first.
    places = st.integers(0, len(content) - 1) | st.integers(len(content) - 2500, len(content) - 1)
    for at in draw(st.lists(places, min_size=1, max_size=3)):
        damaged[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(damaged)


@fuzz
@given(data=st.data())
def test_any_damaged_checkpoint(scratch, good, data):
    last = Path("run", "checkpoints", "last.npz")
    (scratch / last).write_bytes(data.draw(damages((good / last).read_bytes())))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(scratch)
        # The run is finished: a checkpoint that is taken is not trained on.
        code, out, err = call(["train", "--out", "run", "--resume"])
    if code == 0:
        assert err.endswith("already finished; nothing to do\n")
    else:
        require_one_line(code, out, err)


@settings(fuzz, max_examples=25)
@given(data=st.data())
def test_any_damaged_model(scratch, good, data):
    content = (good / "run" / "model.keras").read_bytes()
    (scratch / "other" / "model.keras").write_bytes(data.draw(damages(content)))
    put(scratch / "q.fa", fasta(1, LENGTH, 3))
    take_or_refuse(scratch, PREDICT.replace("run run", "run other"))
