"""Exact metrics of a trained model: the run's own again, on every split, as table and as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.evaluation.metrics import summary
from tal1_hvd.evaluation.summary import full_summary
from tal1_hvd.inference.trained_model import load
from tests.commands import call
from tests.helpers import make_data

pytestmark = pytest.mark.usefixtures("tensorflow_as_it_is")

SEED = 5
KEYS = {
    "n",
    "accuracy",
    "loss",
    "auroc",
    "auprc",
    "auroc_ci95",
    "auprc_ci95",
    "accuracy_ci95",
    "brier",
    "ece",
    "recall_at_fdr05",
    "recall_at_fdr10",
    "recall_at_fdr20",
}


@pytest.fixture(scope="module")
def run(small_data, tmp_path_factory):
    """Return a run of two epochs with a seed of its own."""
    out = tmp_path_factory.mktemp("evaluate") / "run"
    assert call("train", "--data", small_data, "--out", out, "--epochs", 2, "--seed", SEED) == 0
    return out


@pytest.fixture
def evaluate(run, capsys):
    """Return a function that evaluates and returns the JSON, and nothing but it, from stdout."""

    def evaluated(data, *flags):
        capsys.readouterr()
        assert call("evaluate", "--run", run, "--data", data, "--json", *flags) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return evaluated


def test_keys(evaluate, small_data):
    found = evaluate(small_data)
    assert set(found) == KEYS
    assert found["n"] == 80
    for key in ("auroc", "auprc", "accuracy"):
        low, high = found[f"{key}_ci95"]
        assert 0 <= low <= found[key] <= high <= 1


def test_the_runs_own_metrics_again(evaluate, run, small_data):
    metrics = json.loads((run / "metrics.json").read_text())
    # The run's intervals come from its own seed.
    assert evaluate(small_data, "--seed", SEED) == metrics["test"]
    for split in ("train", "validation"):
        found = evaluate(small_data, "--split", split)
        assert {key: found[key] for key in metrics[split]} == metrics[split]


@pytest.mark.parametrize("strands", [[], ["--both-strands"]], ids=["one-strand", "both-strands"])
@pytest.mark.parametrize(
    ("split", "count"), [("train", 560), ("validation", 160), ("test", 80), ("all", 800)]
)
def test_splits(evaluate, run, small_data, split, count, strands):
    dataset = open_dataset(small_data)
    rows = dataset.rows(split)
    scores = load(run).predict(np.asarray(dataset.sequences)[rows], both_strands=bool(strands))
    found = evaluate(small_data, "--split", split, *strands)
    assert found["n"] == count
    assert found == full_summary(dataset.labels[rows], scores)


def test_seed_draws_the_intervals_and_nothing_else(evaluate, small_data):
    first, other = evaluate(small_data), evaluate(small_data, "--seed", 1)
    assert evaluate(small_data, "--seed", 0) == first
    changed = {key for key in KEYS if first[key] != other[key]}
    assert changed
    assert all(key.endswith("_ci95") for key in changed)


@pytest.mark.parametrize("label", [0, 1])
def test_single_class(evaluate, run, tmp_path, label):
    data = make_data(tmp_path / "data", [2] * 30, [label] * 30)
    found = evaluate(data)
    dataset = open_dataset(data)
    assert set(found) == KEYS
    ranking = {key for key in KEYS if key.startswith(("au", "recall"))}
    assert len(ranking) == 7
    assert {key for key in KEYS if found[key] is None} == ranking
    assert found["loss"] == summary(dataset.labels, load(run).predict(dataset.sequences))["loss"]


def test_single_class_as_a_table(run, tmp_path, capsys):
    data = make_data(tmp_path / "data", [2] * 30, [0] * 30)
    assert call("evaluate", "--run", run, "--data", data) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["auROC", "-", "-"] in rows


def test_one_sequence(evaluate, tmp_path):
    found = evaluate(make_data(tmp_path / "data", [2, 0], [1, 0]))
    assert found["n"] == 1
    assert found["accuracy"] in (0.0, 1.0)
    assert found["accuracy_ci95"] == [found["accuracy"]] * 2


@pytest.mark.parametrize(
    ("split", "code", "others"),
    [("train", 0, [1, 2]), ("validation", 1, [0, 2]), ("test", 2, [0, 1])],
)
def test_empty_split(evaluate, run, tmp_path, capsys, split, code, others):
    data = make_data(tmp_path / "data", others * 10, [0, 1] * 10)
    assert call("evaluate", "--run", run, "--data", data, "--split", split) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"tal1-hvd: error: --split: the {split} split of {data} is empty\n"
    assert evaluate(data, "--split", "all")["n"] == 20


def test_table(evaluate, run, small_data, capsys):
    found = evaluate(small_data, "--split", "validation")
    assert call("evaluate", "--run", run, "--data", small_data, "--split", "validation") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "validation, 160 sequences" in out
    low, high = found["auroc_ci95"]
    rows = [line.split() for line in out.splitlines()]
    assert ["auROC", f"{found['auroc']:.4f}", f"{low:.3f}-{high:.3f}"] in rows
    assert ["loss", f"{found['loss']:.4f}", "-"] in rows


def test_configuration_file(evaluate, run, small_data, tmp_path, capsys):
    expected = evaluate(small_data, "--split", "train", "--both-strands")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"run: {run}\ndata: {small_data}\nsplit: test\njson: true\nboth-strands: true\n"
    )
    assert call("evaluate", "--config", config, "--split", "train") == 0
    assert json.loads(capsys.readouterr().out) == expected


def test_nothing_is_written(evaluate, run, small_data):
    def stamps():
        return {
            path: path.stat().st_mtime_ns
            for folder in (run, small_data)
            for path in [folder, *folder.rglob("*")]
        }

    before = stamps()
    evaluate(small_data)
    assert stamps() == before
