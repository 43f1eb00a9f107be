"""Seconds to simulate the default dataset and to open it, and what of it stays in memory.

python benchmarks/simulate_and_load.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tal1_hvd.data.dataset import open_dataset

REPEATS = 3


def main() -> None:
    """Measure and print."""
    for jobs in (1, 2):
        print(f"simulate --jobs {jobs}: {min(simulate(jobs) for _ in range(REPEATS)):.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        simulate(2, folder)
        for verify in (True, False):
            took = min(load(folder, verify) for _ in range(REPEATS))
            print(f"open, checksums {'checked' if verify else 'trusted'}: {took:.3f} s")
        before = resident_mb()
        sequences = open_dataset(folder).sequences
        total = int(sequences.sum())
        print(f"resident once all is read: {resident_mb() - before:.0f} MB (sum {total:,})")


def simulate(jobs: int, folder: str | None = None) -> float:
    """Return the seconds that the command takes, start-up included."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "tal1_hvd", "simulate", "--jobs", str(jobs)]
        began = time.perf_counter()
        subprocess.run([*command, "--out", folder or f"{scratch}/data"], check=True, stdout=-3)
        return time.perf_counter() - began


def load(folder: str, verify: bool) -> float:
    """Return the seconds that opening takes."""
    began = time.perf_counter()
    open_dataset(folder, verify=verify)
    return time.perf_counter() - began


def resident_mb() -> float:
    """Return this process's resident memory in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000


if __name__ == "__main__":
    main()
