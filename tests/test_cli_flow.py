"""The command line from end to end: every command once, on small data."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.encoding import decode
from tal1_hvd.models.compiled import why_not_compiled
from tests.commands import MODULE, call, environment_of_users, start

pytestmark = pytest.mark.usefixtures("tensorflow_as_it_is")


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """Simulate, and train as a process of its own; return the folder and the ended process."""
    folder = tmp_path_factory.mktemp("flow")
    size = ["--positives", 200, "--negatives", 200, "--length", 120, "--center", 80]
    assert call("simulate", "--out", folder / "data", "--jobs", 1, *size) == 0
    train = ["train", "--data", "data", "--out", "run", "--epochs", 2]
    ended = start([*MODULE, *train], cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder, ended


@pytest.fixture
def here(flow, monkeypatch):
    """Stand in that folder."""
    monkeypatch.chdir(flow[0])


def test_train_says_what_it_does(flow):
    ended = flow[1]
    # These lines alone: whatever TensorFlow itself has to say stays away.
    first, *epochs = ended.stderr.splitlines()
    if why_not_compiled() is not None:
        assert why_not_compiled() in epochs.pop(0)
    assert re.fullmatch(
        r"tal1-hvd: training paper on 280 sequences of 120 bp in data: 1 rank, .+, "
        r"global batch 64; run folder run",
        first,
    )
    assert [line.split("  ")[0] for line in epochs] == [
        "tal1-hvd: epoch 1/2",
        "tal1-hvd: epoch 2/2",
    ]
    assert ended.stdout.endswith("run folder: run\n")
    assert "test accuracy" in ended.stdout
    assert "\x1b" not in ended.stdout + ended.stderr


@pytest.mark.usefixtures("here")
def test_files_of_a_run():
    assert {path.name for path in Path("run").iterdir() if not path.name.startswith(".")} == {
        "checkpoints",
        "config.yaml",
        "events.jsonl",
        "history.csv",
        "logs",
        "manifest.json",
        "metrics.json",
        "model.keras",
        "predictions.tsv",
        "tensorboard",
    }
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert set(metrics) >= {
        "train",
        "validation",
        "test",
        "train_seconds",
        "epochs",
        "examples_per_second",
        "world_size",
        "global_batch_size",
        "strategy",
        "model",
    }
    assert [metrics[split]["n"] for split in ("train", "validation", "test")] == [280, 80, 40]
    with Path("run/history.csv").open() as handle:
        assert [row["epoch"] for row in csv.DictReader(handle)] == ["1", "2"]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_configuration_of_a_run_repeats_it(tmp_path):
    again = tmp_path / "again"
    ended = start([*MODULE, "train", "--config", "run/config.yaml", "--out", again])
    assert ended.returncode == 0
    assert f"run folder: {again}\n" in ended.stdout
    for name in ("predictions.tsv", "config.yaml"):
        assert (again / name).read_bytes() == Path("run", name).read_bytes()


@pytest.mark.usefixtures("here")
def test_training_is_named_after_itself_by_default(tmp_path, monkeypatch, capsys):
    data = Path("data").resolve()
    monkeypatch.chdir(tmp_path)
    assert call("train", "--data", data, "--epochs", 1, "--seed", 3, "--ranks", 1) == 0
    (run,) = Path("runs").iterdir()
    assert re.fullmatch(r"paper-seed3-\d{8}-\d{6}", run.name)
    assert f"run folder: {run}" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_resuming_a_finished_run_changes_no_result(capsys):
    files = [Path("run") / name for name in ("metrics.json", "model.keras", "history.csv")]
    before = [path.read_bytes() for path in files]
    assert call("train", "--out", "run", "--resume") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert [path.read_bytes() for path in files] == before


@pytest.mark.usefixtures("here")
def test_import_of_an_export_has_the_same_sequences(tmp_path, capsys):
    dataset = open_dataset("data")
    for name, label in (("p", 1), ("n", 0)):
        rows = np.flatnonzero(dataset.labels == label)
        records = [f">{name}{row}\n{decode(dataset.sequences[row])}\n" for row in rows]
        (tmp_path / f"{name}.fa").write_text("".join(records))
    out = tmp_path / "imported"
    files = ["--positives", tmp_path / "p.fa", "--negatives", tmp_path / "n.fa"]
    assert call("import", "--out", out, *files) == 0
    assert capsys.readouterr().out == (
        f"{out}: 200 positives and 200 negatives of 120 bp (280 train, 80 validation, 40 test)\n"
    )
    np.testing.assert_array_equal(open_dataset(out).sequences, dataset.sequences)
    assert call("export", "--data", out, "--split", "test", "--out", tmp_path / "t.fa") == 0
    assert capsys.readouterr().out == f"{tmp_path / 't.fa'}: 40 sequences\n"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("seed", [2**32, 2**64])
def test_large_seeds(tmp_path, seed):
    few = ["--positives", 20, "--negatives", 20, "--length", 100, "--center", 80, "--jobs", 1]
    (tmp_path / "p.fa").write_text("".join(f">p{i}\n{'ACGT' * 5}\n" for i in range(10)))
    shuffle = ["--positives", tmp_path / "p.fa", "--negatives", "dinucleotide-shuffle"]
    for name, *words in (
        ["simulate", "--out", tmp_path / "simulated", *few],
        ["import", "--out", tmp_path / "imported", *shuffle],
        ["train", "--data", "data", "--out", tmp_path / "run", "--epochs", 1],
        ["evaluate", "--data", "data", "--run", tmp_path / "run"],
    ):
        assert call(name, *words, "--seed", seed) == 0


@pytest.mark.usefixtures("here")
def test_training_that_diverges_is_no_traceback(tmp_path, capsys):
    run = tmp_path / "run"
    code = call("train", "--data", "data", "--out", run, "--epochs", 2, "--learning-rate", "1e30")
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if code == 0:
        text = (run / "metrics.json").read_text()
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    else:
        assert err.splitlines()[-1].startswith("tal1-hvd: error: ")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_reader_of_predictions_goes_away(tmp_path):
    """``predict ... | head -1`` shows one line, and no traceback."""
    record = f">a\n{'ACGT' * 30}\n"
    (tmp_path / "many.fa").write_text(record * 20_000)
    command = [*MODULE, "predict", "--run", "run", str(tmp_path / "many.fa")]
    environment = environment_of_users()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as job:
        assert job.stdout.readline() == "id\tstart\tend\tstrand\tscore\n"
        job.stdout.close()
        assert job.stderr.read() == ""
    assert job.returncode in (0, 1)
