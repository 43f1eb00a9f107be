"""Good inputs for all commands, what spoils them, and what is expected of the refusal."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import call, tensorflow_as_it_is
from tests.helpers import make_data

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
COMPARE = "compare --out new --quick"
LONG_NAME = "x" * 300

Spoiler = Callable[[], object]


def run_line(command: str) -> tuple[int | str | None, str, str]:
    """Run a command line; return its exit code, what it printed and what it complained about."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = call(*shlex.split(command))
    return code, out.getvalue(), err.getvalue()


def fasta(count: int, length: int, seed: int, locus: str = "s{}") -> str:
    """Return FASTA of random sequences."""
    rng = np.random.default_rng(seed)
    return "".join(
        f">{locus.format(i)}\n{''.join(rng.choice(list('ACGT'), length))}\n" for i in range(count)
    )


def make_good_inputs(folder: Path, data: Path) -> Path:
    """Put data, a run of one epoch on it, and FASTA files into a folder; return it."""
    shutil.copytree(data, folder / "data")
    make_data(folder / "tiny")
    make_data(folder / "longer", length=LENGTH + 50)
    for name, content in (
        ("p.fa", fasta(20, 40, 1, "chr1:{}-9")),
        ("n.fa", fasta(20, 40, 2, "chr2:{}-9")),
        ("q.fa", fasta(3, LENGTH, 3, "q{}")),
    ):
        (folder / name).write_text(content)
    with pytest.MonkeyPatch.context() as patch, tensorflow_as_it_is():
        patch.chdir(folder)
        for command in (TRAIN.replace("new", "run"), "train --data longer --out other --epochs 1"):
            assert run_line(f"{command} --batch-size 16")[0] == 0
    return folder


def contents(folder: Path) -> dict[str, str | None]:
    """Return everything in a folder, hidden files too, with a hash of each file's bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def require_one_line(code: int | str | None, out: str, err: str) -> None:
    """Expect what a command says that refuses its input."""
    assert code == 2, err
    assert err.startswith("tal1-hvd: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert out == ""


ZIPPED = gzip.compress(fasta(40, LENGTH, 5).encode())
NPZ = io.BytesIO()
np.savez(NPZ, a=np.zeros(3))


# Each of these spoils the good inputs, in the folder where the command will run, or returns what
# does.


def write(name: str, content: str | bytes) -> Spoiler:
    """Put something else in the place of a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda: Path(name).write_bytes(data)


def cut(name: str, keep: float = 0.5) -> Spoiler:
    """Leave a share of a file."""

    def prepare() -> None:
        data = Path(name).read_bytes()
        Path(name).write_bytes(data[: int(keep * len(data))])

    return prepare


def flip(name: str, at: int) -> Spoiler:
    """Change a bit of a file."""

    def prepare() -> None:
        data = bytearray(Path(name).read_bytes())
        data[at] ^= 1
        Path(name).write_bytes(data)

    return prepare


def lose_data() -> None:
    """Leave no data where the run was told that it is, nor where it was."""
    shutil.rmtree("data")
    manifest = json.loads(Path("run/manifest.json").read_text())
    manifest["dataset"]["path"] = "nowhere"
    Path("run/manifest.json").write_text(json.dumps(manifest))


def remove(name: str) -> Spoiler:
    """Remove a file."""
    return lambda: Path(name).unlink()


def lead_out() -> None:
    """Have a file to which the run writes lead elsewhere."""
    Path("run/events.jsonl").unlink()
    Path("run/events.jsonl").symlink_to("../p.fa")


def pipe(name: str) -> Spoiler:
    """Put a pipe in the place of a file: it never ends."""

    def prepare() -> None:
        Path(name).unlink()
        os.mkfifo(name)

    return prepare


def replace(name: str, old: str, new: str) -> Spoiler:
    """Change a word of a file."""

    def prepare() -> None:
        text = Path(name).read_text()
        assert old in text
        Path(name).write_text(text.replace(old, new, 1))

    return prepare


def edit(name: str, **changes: Any) -> Spoiler:
    """Change or (with ...) remove keys of a JSON file."""

    def prepare() -> None:
        value = json.loads(Path(name).read_text()) | changes
        kept = {key: item for key, item in value.items() if item is not ...}
        Path(name).write_text(json.dumps(kept))

    return prepare


def sign(name: str, content: bytes | np.ndarray) -> Spoiler:
    """Put something else in the place of a data file, with its checksum."""

    def prepare() -> None:
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


def spoil_checkpoint(**changes: Any) -> Spoiler:
    """Change or (with ...) remove arrays of the last checkpoint; a dictionary is its note."""

    def prepare() -> None:
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


def compress_unheard_of() -> None:
    """Note in a checkpoint's directory a way of compression that zip files do not have."""
    path = Path("run/checkpoints/last.npz")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 10] = 99
    path.write_bytes(data)


def no_results() -> None:
    """Leave what a run leaves that was killed before its first checkpoint."""
    for name in ("model.keras", "metrics.json", "history.csv", "checkpoints/last.npz"):
        Path("run", name).unlink()


def nothing() -> None:
    """Leave the good inputs as they are."""


def bad(name: str, command: str, *words: str, prepare: Spoiler = nothing) -> Any:
    """Return a case: a command, the words of its refusal, and what spoils its input."""
    return pytest.param(command, words, prepare, id=name.replace(" ", "-"))
