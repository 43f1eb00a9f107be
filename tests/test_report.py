"""The page about a run, from a real one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tal1_hvd.report.run_page import read_run, run_page
from tests.commands import call
from tests.helpers import make_data, names
from tests.sessions import copied


@pytest.fixture
def run(trained, tmp_path):
    """Return a copy of a finished run, which may be changed."""
    return copied(trained, tmp_path / "run")


def test_command(run, capsys):
    assert call("report", "--run", run.path) == 0
    assert capsys.readouterr().out.strip() == str(run.report)
    text = run.report.read_text()
    metrics = run.read_metrics()
    for value in (
        f"{metrics['test']['auroc']:.4f}",
        f"{metrics['test']['accuracy']:.2%}",
        f"{metrics['train_seconds']:.2f} s",
        "batch-size",
        "Training run run",
    ):
        assert value in text
    assert names(run.path / "figures") == sorted(
        f"{name}.{suffix}"
        for name in (
            "roc",
            "precision_recall",
            "calibration",
            "learning_loss",
            "learning_accuracy",
            "throughput",
        )
        for suffix in ("png", "svg")
    )


def test_made_again(run, capsys):
    assert call("report", "--run", run.path) == 0
    before = run.report.read_bytes()
    assert call("report", "--run", run.path) == 0
    assert run.report.read_bytes() == before


def test_curves_are_the_runs(run):
    page = run_page(read_run(run))
    learning = page.sections[1].figures["learning_loss"][1]
    (axes,) = learning.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    history = read_run(run).history
    assert drawn["training"] == list(history["train_loss"])
    assert drawn["validation"] == list(history["validation_loss"])
    assert f"epoch {run.read_metrics()['best_epoch']}, kept" in drawn


NASTY = "<script>alert('x')</script><img src=x onerror=alert(1)>"


def test_names_of_all_files_are_escaped(run, capsys):
    """Whoever wrote them: sequence ids, paths, hosts, commands, versions, motifs."""
    metrics, manifest = run.read_metrics(), json.loads(run.manifest.read_text())
    metrics |= {"strategy": NASTY, "aggregation": NASTY, "model": NASTY}
    manifest |= {"command": [NASTY], "platform": NASTY, "started": NASTY, "tool_version": NASTY}
    manifest["versions"][NASTY] = NASTY
    manifest["dataset"] |= {"path": NASTY, "task": NASTY, "fingerprint": NASTY}
    manifest["dataset"]["parameters"]["motifs"] = [NASTY]
    for rank in manifest["ranks"]:
        rank |= {"host": NASTY, "device": NASTY, "first_layer": NASTY}
    run.metrics.write_text(json.dumps(metrics))
    run.manifest.write_text(json.dumps(manifest))
    head, first, *rest = run.predictions.read_text().splitlines()
    first = "\t".join([NASTY.replace(" ", "/"), *first.split("\t")[1:]])
    run.predictions.write_text("\n".join([head, first, *rest]) + "\n")
    settings = run.config.read_text().replace("data: ", f'data: "{NASTY}" #')
    run.config.write_text(settings)
    assert call("report", "--run", run.path) == 0
    text = run.report.read_text()
    assert text.count("&lt;script&gt;") > 10
    assert "<script" not in text
    assert "<img" not in text


def test_published_columns_stand_beside_the_same_experiment_only(run):
    found = read_run(run)
    assert not found.published
    head = run_page(found).sections[0].tables[0].head
    assert not any("published" in cell for cell in head)
    table = run_page(replace(found, published=True)).sections[0].tables[0]
    assert table.head[3] == "published, 1 GPU"
    assert ["0.9382", "0.9454", "0.9592", "0.9532"] in [list(row[3:]) for row in table.rows]


def test_no_test_split(train_run, tmp_path):
    data = make_data(tmp_path / "data", [0] * 100 + [1] * 30)
    folder = train_run(data=str(data), epochs=1, batch_size=8)
    page = run_page(read_run(folder))
    assert page.sections[0].text == ["The dataset has no test sequences."]
    assert page.highlights["test accuracy"] == "-"


def test_one_class(train_run, tmp_path):
    splits = [0] * 100 + [1] * 30 + [2] * 10
    labels = [0, 1] * 65 + [1] * 10
    data = make_data(tmp_path / "data", splits, labels)
    folder = train_run(data=str(data), epochs=1, batch_size=8)
    page = run_page(read_run(folder))
    assert list(page.sections[0].figures) == ["calibration"]


def refused(run, capsys):
    assert call("report", "--run", run) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_not_finished(begun, tmp_path, capsys):
    run = copied(begun, tmp_path / "run")
    run.model.unlink()
    assert "train --resume goes on with it" in refused(run.path, capsys)
    assert not run.report.exists()


def test_no_run(tmp_path, capsys):
    assert "no such run folder" in refused(tmp_path / "nowhere", capsys)


def test_figures_cannot_be_written(run, capsys):
    (run.path / "figures").touch()
    assert "figures: cannot be written" in refused(run.path, capsys)


@pytest.mark.parametrize(
    ("file", "words"),
    [("history.csv", "1 rows, the run's metrics are of 4"), ("predictions.tsv", "1 rows")],
)
def test_table_cut_short(run, capsys, file, words):
    lines = (run.path / file).read_text().splitlines(keepends=True)
    (run.path / file).write_text("".join(lines[:2]))
    assert words in refused(run.path, capsys)


@pytest.mark.parametrize(
    ("old", "new"),
    [("\t1\t", "\t7\t"), ("\t0\t", "\t0.5\t"), ("\t0.", "\t9."), ("\t0.", "\t-0.")],
)
def test_impossible_predictions(run, capsys, old, new):
    text = (run.path / "predictions.tsv").read_text()
    (run.path / "predictions.tsv").write_text(text.replace(old, new, 1))
    assert "expected labels of 0 and 1, and scores from 0 to 1" in refused(run.path, capsys)


def test_short_interval(run, capsys):
    metrics = run.read_metrics()
    metrics["test"]["accuracy_ci95"] = [0.1]
    run.metrics.write_text(json.dumps(metrics))
    assert "changed, or are of another version" in refused(run.path, capsys)


@pytest.mark.parametrize(
    "file", ["metrics.json", "manifest.json", "history.csv", "config.yaml", "predictions.tsv"]
)
@pytest.mark.parametrize("content", ["", "{}", "a,b\n1,2\n", '{"test": 3, "dataset": []}'])
def test_damaged_run(run, capsys, file, content):
    (run.path / file).write_text(content)
    assert "run" in refused(run.path, capsys)
    assert not run.report.exists()
