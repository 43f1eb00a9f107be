"""The comparison of Keras's backends, of TensorFlow with itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[1]


def compare(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROJECT / "benchmarks" / "keras_backend.py", *map(str, arguments)],
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "KERAS_BACKEND": "tensorflow",
            "PYTHONPATH": str(PROJECT),
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_same_backend(tmp_path: Path) -> None:
    reference = tmp_path / "reference.npz"
    assert compare("write", reference).returncode == 0
    same = compare("compare", reference)
    assert same.returncode == 0, same.stderr
    assert "tensorflow: cpu:0" in same.stdout
    assert "largest difference: scores " in same.stdout
    with np.load(reference) as arrays:
        spoilt = {name: arrays[name] + (2e-4 if name == "after" else 0) for name in arrays.files}
    np.savez(reference, **spoilt)
    other = compare("compare", reference)
    assert other.returncode == 1, other.stderr
    assert "after a step 2.0e-04" in other.stdout
