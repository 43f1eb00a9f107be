"""The program that feeds readers with hostile files: what it begins with is good to them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_no_reader_fails() -> None:
    readers = ["fasta", "simdata", "motifs", "dataset", "checkpoint", "config", "run", "events"]
    command = [sys.executable, ROOT / "benchmarks/fuzz.py", "--runs", "300", "--only", *readers]
    fuzzed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert fuzzed.returncode == 0, fuzzed.stdout + fuzzed.stderr
    rows = [line.split(" | ") for line in fuzzed.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == [f"| {name}" for name in [*readers, "all"]]
    assert all(row[-1] == "none |" for row in rows)
