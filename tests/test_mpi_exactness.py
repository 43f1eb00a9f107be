"""N ranks compute what one rank computes, and the same again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.jobs import PROGRAMS, mpirun, run, train_flags

pytestmark = pytest.mark.mpi

GLOBAL_BATCH = 64


def train(data: Path, out: Path, size: int, *more: str) -> Path:
    flags = train_flags(data, out, "--batch-size", str(GLOBAL_BATCH // size), *more)
    job = run([*mpirun(size), *flags])
    assert job.returncode == 0, job.stderr
    return out


def variables(run_folder: Path) -> dict[str, np.ndarray]:
    with np.load(run_folder / "checkpoints" / "last.npz") as archive:
        return {name: archive[name] for name in archive.files if name != "note"}


@pytest.fixture(scope="module", params=["float64", "float32"])
def runs(request, small_data: Path, tmp_path_factory) -> tuple[str, dict[int, Path]]:
    folder = tmp_path_factory.mktemp("runs")
    flags = ("--epochs", "1", "--precision", request.param)
    return request.param, {
        size: train(small_data, folder / str(size), size, *flags) for size in (1, 2, 4)
    }


@pytest.mark.parametrize("size", [2, 4])
def test_an_epoch_on_n_ranks_is_that_of_one(runs, size: int) -> None:
    precision, folders = runs
    one, several = variables(folders[1]), variables(folders[size])
    metrics = [json.loads((folders[n] / "metrics.json").read_text()) for n in (1, size)]
    if precision == "float64":
        for name, array in one.items():
            np.testing.assert_allclose(several[name], array, rtol=0, atol=1e-9, err_msg=name)
    for split in ("train", "validation", "test"):
        a, b = (m[split] for m in metrics)
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-3)
        assert a["auroc"] == pytest.approx(b["auroc"], abs=2e-3)


@pytest.mark.parametrize("cache_mb", ["512", "0"], ids=["in memory", "from disk"])
def test_same_world_size_twice_is_bitwise_equal(
    runs, cache_mb: str, small_data: Path, tmp_path: Path
) -> None:
    precision, folders = runs
    flags = ("--epochs", "1", "--precision", precision, "--cache-mb", cache_mb)
    again = train(small_data, tmp_path / "run", 2, *flags)
    first, second = variables(folders[2]), variables(again)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    found, expected = ((folder / "predictions.tsv").read_bytes() for folder in (again, folders[2]))
    assert found == expected


def test_one_step_gradient_in_float32(small_data: Path, tmp_path: Path) -> None:
    gradients = []
    for size in (1, 2, 4):
        out = tmp_path / f"{size}.npy"
        job = run([*mpirun(size), PROGRAMS / "gradient.py", small_data, out])
        assert job.returncode == 0, job.stderr
        gradients.append(np.load(out).astype(np.float64))
    scale = np.linalg.norm(gradients[0])
    for several in gradients[1:]:
        assert np.linalg.norm(several - gradients[0]) <= 1e-6 * scale


def test_resume_on_other_world_sizes(small_data: Path, tmp_path: Path) -> None:
    flags = ("--precision", "float64")
    whole = train(small_data, tmp_path / "whole", 1, "--epochs", "3", *flags)
    parts = tmp_path / "parts"
    train(small_data, parts, 2, "--epochs", "1", *flags)
    for size, epochs in ((4, "2"), (1, "3")):
        resume = ["-m", "tal1_hvd.train", "--out", parts, "--resume", "--epochs", epochs]
        job = run([*mpirun(size), *resume])
        assert job.returncode == 0, job.stderr
    expected, found = variables(whole), variables(parts)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-8, err_msg=name)
    refused = run([*mpirun(3), "-m", "tal1_hvd.train", "--out", parts, "--resume"])
    assert refused.returncode == 2
    assert "global batch of 64 cannot be shared by 3 ranks" in refused.stderr
