"""Feeds hostile files to everything that reads files, and counts what it does not refuse well.

python benchmarks/fuzz.py [--runs 1000000] [--seed 0] [--only READER ...] [--keep FOLDER]

Good files are mutated, by atheris (`pip install atheris==3.0.0`) guided by what they reach, or
without it at random. Checksums, gzip and zip are made anew around what was mutated, so that it is
read. A reader may take a file or raise InputError. Anything else is a failure: another exception, a
process that dies, 5 seconds, MORE_MEMORY bytes, a file changed or opened for writing outside the
reader's folder, a program or a connection started, something unpickled. Each reader has a process
of its own, which is started again after one that ends it. Exits with 1 if there were failures.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_readers import READERS, Target

from tal1_hvd.errors import InputError

SECONDS = 5
MORE_MEMORY = 1 << 29
LARGEST_INPUT = 6000
INSTRUMENTED = ["tal1_hvd", "yaml", "zipfile", "gzip", "csv", "Bio.SeqIO", "numpy.lib"]
FORBIDDEN = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect",
    "socket.bind", "pickle.find_class",
)  # fmt: skip
# What changes the files that it names.
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate")
# Failures and deaths of one reader after which it is given up.
MOST_DEATHS = 20
# Words that hostile files are likely to hold, which are put in whole.
WORDS = (
    "1000000000000", "9" * 40, "-1", "1e308", "1e999", "nan", "null", "true", "{}", "[]", "[" * 200,
    "(1000000000,)", "|O", "0x" + "f" * 4000, ":59" * 20, "&a ", "*a", "<<: ", "!!int ",
    "!!binary ", "../../x", "/x", "<script>", "\x1b[2J", "\0", '"', "\t", "\r\n", "\u2028",
    "\u00e9",
)  # fmt: skip


class Watch:
    """Calls a reader, counts, and notes failures in the folder around the working folder."""

    def __init__(self, target: Target, folder: Path, keep: Path):
        self.target, self.folder, self.keep = target, folder, keep
        self.counts = np.memmap(folder / "counts", dtype=np.int64, mode="r+", shape=(2,))
        self.forbidden = ""
        self.reading = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.reading:
            return
        changed = args[:2] if event in CHANGES else ()
        if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR):
            changed = args[:1]
        if event.startswith(FORBIDDEN):
            self.forbidden = f"{event} {args[:2]!r}"
        for name in changed:
            if isinstance(name, str) and not _is_inside(Path(name).resolve()):
                self.forbidden = f"{event} {name}"

    def __call__(self, data: bytes) -> None:
        """Read an input, whose first byte says which part it is."""
        part = data[0] % len(self.target.parts) if data else 0
        self.counts[0] += 1
        self.reading, self.forbidden, began = True, "", time.monotonic()
        try:
            self.target.read(part, bytes(data[1:]))
        except InputError as error:
            self.counts[1] += 1
            if not str(error).strip():
                self._fail("no text", data)
            if isinstance(error.__context__, MemoryError):
                self._fail("takes memory before it refuses", data)
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self._fail(f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}", data)
        self.reading = False
        if self.forbidden:
            self._fail(self.forbidden, data)
        if time.monotonic() - began > SECONDS:
            self._fail("slow", data)

    def _fail(self, text: str, data: bytes) -> None:
        self.reading = False
        with (self.folder / "failures").open("a") as handle:
            handle.write(f"{text}\n")
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        (self.keep / f"{self.folder.name}-{name}").write_bytes(data)


def _is_inside(path: Path) -> bool:
    return path.is_relative_to(Path.cwd()) or path.is_relative_to("/dev")


def escaped(word: bytes) -> str:
    """Return bytes as libFuzzer's dictionaries spell them."""
    return "".join(f"\\x{byte:02x}" for byte in word)


def mutated(seeds: list[bytes], draw: random.Random) -> Iterator[bytes]:
    """Yield seeds with some bytes changed, removed, repeated or taken from another."""
    while True:
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.randint(1, 8)):
            at, other = draw.randrange(len(data) + 1), draw.choice(seeds)
            start = draw.randrange(len(other))
            length = draw.choice((0, 1, 1, 4, 40))
            word = draw.choice(WORDS).encode()
            piece = draw.choice((b"", draw.randbytes(length), other[start : start + length], word))
            data[at : at + draw.choice((0, 1, length))] = piece * draw.choice((1, 1, 1, 50))
        yield bytes(data[:LARGEST_INPUT])


def fuzz_one(name: str, runs: int, seed: int, folder: Path, good: Path, keep: Path) -> None:
    """Feed one reader, in this process, until it has had all inputs or dies."""
    inside = folder / "inside"
    shutil.rmtree(inside, ignore_errors=True)
    inside.mkdir()
    os.chdir(inside)
    tempfile.tempdir = str(inside)
    sys.stderr.write(f"{name}: {runs} inputs\n")
    with contextlib.suppress(ImportError):
        import atheris
    guided = "atheris" in sys.modules
    with atheris.instrument_imports(INSTRUMENTED) if guided else contextlib.nullcontext():
        target = READERS[name][0](good)
    for part, content in enumerate(target.parts):
        target.read(part, content)
    seeds = [bytes([part]) + content for part, content in enumerate(target.parts)]
    watch = Watch(target, folder, keep)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, resource.RLIM_INFINITY))
    if not guided:
        inputs = mutated(seeds, random.Random(seed))  # noqa: S311 (no secret)
        for _ in range(runs):
            signal.alarm(2 * SECONDS)
            watch(next(inputs))
        return
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for part, content in enumerate(seeds):
        (corpus / str(part)).write_bytes(content)
    words = folder / "words"
    words.write_text("".join(f'"{escaped(word.encode())}"\n' for word in WORDS))
    longest = max(LARGEST_INPUT, 2 * max(map(len, seeds)))
    atheris.Setup(
        [name, f"-runs={runs}", f"-seed={seed + 1}", f"-timeout={2 * SECONDS}", "-rss_limit_mb=0",
         f"-max_len={longest}", f"-artifact_prefix={keep}/{name}-", f"-dict={words}",
         "-verbosity=0", str(corpus)],
        watch,
    )  # fmt: skip
    atheris.Fuzz()


def make_good(folder: Path) -> None:
    """Make a small dataset and a finished run of one epoch on it."""
    for command in (
        "simulate --out data --jobs 1 --positives 20 --negatives 20 --length 100 --center 80",
        "train --data data --out run --epochs 1 --batch-size 8",
    ):
        tal1 = [sys.executable, "-m", "tal1_hvd", *command.split()]
        subprocess.run(tal1, cwd=folder, check=True, capture_output=True)


def campaign(name: str, args: argparse.Namespace, scratch: Path) -> tuple[int, int, float, str]:
    """Feed one reader all of its inputs; return inputs, refused, seconds, failures by kind."""
    folder = scratch / name
    folder.mkdir()
    np.zeros(2, dtype=np.int64).tofile(folder / "counts")
    runs = max(1, round(args.runs * READERS[name][1] / 1000))
    began, deaths = time.monotonic(), 0
    done = refused = 0
    while done < runs and deaths < MOST_DEATHS:
        rest = ["--runs", str(runs - done), "--seed", str(args.seed + deaths)]
        where = ["--keep", str(args.keep), "--inside", str(scratch), "--only", name]
        command = [sys.executable, __file__, *rest, *where]
        log = (folder / "log").open("a")
        code = subprocess.run(command, check=False, stdout=log, stderr=log).returncode
        done, refused = np.fromfile(folder / "counts", dtype=np.int64).tolist()
        if code != 0:
            deaths += 1
            with (folder / "failures").open("a") as handle:
                handle.write(f"process ended with {code}\n")
    noted = folder / "failures"
    lines = noted.read_text().splitlines() if noted.exists() else []
    kinds = "; ".join(f"{lines.count(kind)} x {kind}" for kind in dict.fromkeys(lines))
    return done, refused, time.monotonic() - began, kinds


def main() -> int:
    """Feed the readers in turn and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=tuple(READERS), default=tuple(READERS))
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        (name,) = args.only
        fuzz_one(name, args.runs, args.seed, args.inside / name, args.inside / "good", args.keep)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder).resolve()
        args.keep = (args.keep or scratch / "kept").resolve()
        args.keep.mkdir(parents=True, exist_ok=True)
        (scratch / "good").mkdir()
        make_good(scratch / "good")
        print("| reader | inputs | refused | seconds | failures |\n|---|---|---|---|---|")
        failed, total = False, 0
        for name in args.only:
            done, refused, seconds, kinds = campaign(name, args, scratch)
            failed |= bool(kinds)
            total += done
            print(f"| {name} | {done:,} | {refused:,} | {seconds:,.0f} | {kinds or 'none'} |")
            sys.stdout.flush()
        print(f"| all | {total:,} | | | {'see above' if failed else 'none'} |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
