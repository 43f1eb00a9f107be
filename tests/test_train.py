"""Whole sessions on a small dataset: what they leave behind, repeat, go on with and refuse.

Sessions run one after another in a process of their own, because each sets TensorFlow up as a
fresh process does. All that several tests look at is trained once.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from tal1_hvd._version import __version__
from tal1_hvd.data.dataset import create_dataset, open_dataset
from tal1_hvd.data.splits import stratified_split
from tal1_hvd.distributed.agreement import AgreedError
from tal1_hvd.distributed.communicator import SingleProcess
from tal1_hvd.errors import InputError
from tal1_hvd.evaluation.metrics import summary
from tal1_hvd.evaluation.summary import full_summary
from tal1_hvd.models.paper import paper
from tal1_hvd.models.scoring import Scorer
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.simulation.simulate import simulate
from tal1_hvd.training import train as train_module
from tal1_hvd.training.checkpoint import load_checkpoint
from tal1_hvd.training.plan import plan_batches
from tal1_hvd.training.reporters import Silent
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.session import Request, make_plan, new_run_path, run_session
from tal1_hvd.training.settings import TrainSettings
from tal1_hvd.training.step import Totals
from tal1_hvd.training.train import Trainer, train

LAUNCHERS = ("HOROVOD_", "OMPI_", "PMI_", "SLURM_")
EPOCHS = 4
DEFAULTS = {"epochs": EPOCHS, "batch_size": 32, "learning_rate": 0.01, "threads": 2}


def session(changes, out, resume=False):
    """Run a session; in the process of the sessions."""
    for name in [name for name in os.environ if name.startswith(LAUNCHERS)]:
        del os.environ[name]
    return run_session(Request(changes, out, resume))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return 210 training, 60 validation and 30 test sequences that are learnt in no time."""
    settings = SimulationSettings(
        length=120, center=40, min_sites=1, max_sites=1, positives=150, negatives=150, seed=4
    )
    return simulate(settings, tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def process():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(scope="module")
def run(process, data, tmp_path_factory):
    """Train with some settings other than the defaults above; return the run folder."""

    def run(out=None, resume=False, **changes):
        if not resume:
            changes = {**DEFAULTS, "data": str(data), **changes}
        out = tmp_path_factory.mktemp("runs") / "run" if out is None else out
        result = process.submit(session, changes, out, resume).result(timeout=120)
        assert (result.folder, result.rank) == (out, 0)
        assert result.metrics == RunFolder(out).read_metrics()
        return RunFolder(out)

    return run


@pytest.fixture(scope="module")
def trained(run):
    """Return a run of 4 epochs; to be read only."""
    return run()


@pytest.fixture(scope="module")
def begun(run):
    """Return the first epoch of the same run; to be read only."""
    return run(epochs=1)


def copied(folder, target):
    shutil.copytree(folder.path, target)
    return RunFolder(target)


def history(folder):
    with (folder.path / "history.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def predictions(folder):
    lines = (folder.path / "predictions.tsv").read_text().splitlines()
    return [line.split("\t") for line in lines]


def state(folder, name="last"):
    """Return all that a checkpoint restores, bit by bit."""
    loaded = load_checkpoint(getattr(folder, name))
    arrays = [*loaded.model, *loaded.optimizer, *loaded.best]
    return [array.tobytes() for array in arrays]


def timeless(values):
    """Return a row or metrics without what depends on the clock."""
    timed = ("train_seconds", "seconds", "examples_per_second")
    return {name: value for name, value in values.items() if name not in timed}


def assert_same_results(found, expected):
    assert state(found) == state(expected)
    assert state(found, "best") == state(expected, "best")
    assert [timeless(r) for r in history(found)] == [timeless(r) for r in history(expected)]
    assert timeless(found.read_metrics()) == timeless(expected.read_metrics())
    assert predictions(found) == predictions(expected)


def files(folder):
    """Return the bytes of every file of a run."""
    paths = [path for path in folder.path.rglob("*") if path.is_file()]
    return {path.relative_to(folder.path): path.read_bytes() for path in paths}


class TestRunFolder:
    def test_is_complete(self, trained):
        names = {path.name for path in trained.path.iterdir() if path.name != ".lock"}
        assert names == {
            "config.yaml",
            "manifest.json",
            "history.csv",
            "metrics.json",
            "model.keras",
            "checkpoints",
            "predictions.tsv",
            "tensorboard",
        }
        assert {path.name for path in (trained.path / "checkpoints").iterdir()} == {
            "last.npz",
            "best.npz",
        }

    def test_config_runs_it_again(self, trained, data):
        settings = TrainSettings.from_yaml(trained.config)
        assert settings == TrainSettings(**DEFAULTS, data=str(data))
        assert yaml.safe_load(trained.config.read_text())["batch-size"] == 32

    def test_manifest(self, trained, data):
        manifest = json.loads(trained.manifest.read_text())
        assert manifest["tool_version"] == __version__
        assert manifest["versions"]["tensorflow"] == tf.__version__
        assert manifest["versions"].keys() >= {"python", "tensorflow", "keras", "numpy"}
        assert manifest["dataset"]["path"] == str(data.resolve())
        assert manifest["dataset"]["task"] == "density-localization"
        assert manifest["dataset"]["fingerprint"] == open_dataset(data).fingerprint
        assert (manifest["strategy"], manifest["world_size"]) == ("single", 1)
        assert manifest["global_batch_size"] == 32
        (rank,) = manifest["ranks"]
        assert rank.keys() == {"rank", "host", "process", "device", "first_layer", "seed"}
        assert (rank["rank"], rank["seed"]) == (0, 0)
        assert rank["device"] == "CPU (2 threads)" or rank["device"].startswith("GPU")
        started = datetime.fromisoformat(manifest["started"])
        assert started.utcoffset().total_seconds() == 0
        assert started <= datetime.now(timezone.utc)

    def test_history(self, trained):
        rows = history(trained)
        assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
        assert list(rows[0]) == [
            "epoch",
            "train_loss",
            "train_accuracy",
            "validation_loss",
            "validation_accuracy",
            "validation_auroc",
            "validation_auprc",
            "learning_rate",
            "examples_per_second",
            "seconds",
        ]
        for row in rows:
            values = {name: float(value) for name, value in row.items()}
            assert 0 < values["train_loss"] < 2
            assert 0 <= values["validation_auroc"] <= 1
            # Of the training rows, less than all of which fit into the epoch's seconds.
            assert values["examples_per_second"] * values["seconds"] >= 210
        losses = [float(row["train_loss"]) for row in rows]
        assert losses == sorted(losses, reverse=True)
        # Halved by the global batch of 32, over the whole of the warm-up.
        assert 0.0099 < float(rows[0]["learning_rate"]) < 0.01

    def test_metrics(self, trained):
        metrics = trained.read_metrics()
        of_a_split = {"n", "accuracy", "loss", "auroc", "auprc"}
        intervals = {"auroc_ci95", "auprc_ci95", "accuracy_ci95"}
        assert metrics.keys() >= {
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
        assert metrics["train"].keys() == metrics["validation"].keys() == of_a_split
        assert metrics["test"].keys() >= of_a_split | intervals | {"brier", "ece"}
        assert [metrics[split]["n"] for split in ("train", "validation", "test")] == [210, 60, 30]
        for name in intervals:
            low, high = metrics["test"][name]
            assert low <= metrics["test"][name.removesuffix("_ci95")] <= high
        assert (metrics["strategy"], metrics["model"]) == ("single", "paper")
        assert (metrics["world_size"], metrics["global_batch_size"]) == (1, 32)
        assert metrics["epochs"] == EPOCHS
        seconds = metrics["train_seconds"]
        assert seconds >= sum(float(row["seconds"]) for row in history(trained))
        assert metrics["examples_per_second"] == pytest.approx(EPOCHS * 210 / seconds)

    def test_it_has_learnt(self, trained):
        assert trained.read_metrics()["train"]["auroc"] > 0.8

    def test_predictions_are_the_test_splits(self, trained, data):
        header, *rows = predictions(trained)
        assert header == ["id", "label", "score"]
        dataset = open_dataset(data)
        test = dataset.rows("test")
        ids = dataset.ids()
        assert [row[0] for row in rows] == [ids[i] for i in test]
        assert [int(row[1]) for row in rows] == dataset.labels[test].tolist()

    def test_metrics_are_those_of_the_scores(self, trained, data):
        metrics, dataset = trained.read_metrics(), open_dataset(data)
        model = paper(120)
        model.set_weights(load_checkpoint(trained.best).model)
        for split in ("train", "validation", "test"):
            rows = dataset.rows(split)
            scores, labels = Scorer(model)(dataset.sequences, rows), dataset.labels[rows]
            expected = full_summary(labels, scores) if split == "test" else None
            expected = expected or summary(labels, scores)
            for name, value in expected.items():
                assert metrics[split][name] == pytest.approx(value, abs=1e-5), (split, name)
            if split == "test":
                written = [float(row[2]) for row in predictions(trained)[1:]]
                np.testing.assert_allclose(written, scores, atol=1e-6)

    def test_best_is_that_of_the_lowest_validation_loss(self, trained):
        losses = [float(row["validation_loss"]) for row in history(trained)]
        best = int(np.argmin(losses))
        metrics = trained.read_metrics()
        assert metrics["best_epoch"] == best + 1
        assert metrics["validation"]["loss"] == losses[best]
        loaded = load_checkpoint(trained.best)
        assert loaded.progress.epoch == loaded.progress.best_epoch == best + 1
        weights = [array.tobytes() for array in loaded.model]
        assert [array.tobytes() for array in load_checkpoint(trained.last).best] == weights
        assert [
            array.tobytes() for array in keras.saving.load_model(trained.model).get_weights()
        ] == weights

    def test_last_checkpoint(self, trained):
        progress = load_checkpoint(trained.last).progress
        assert progress.epoch == EPOCHS
        assert [str(row["train_loss"]) for row in progress.history] == [
            row["train_loss"] for row in history(trained)
        ]

    def test_tensorboard(self, trained):
        (events,) = trained.tensorboard.iterdir()
        found = {}
        for event in tf.compat.v1.train.summary_iterator(str(events)):
            for value in event.summary.value:
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
        rows = history(trained)
        assert len(found) == len(rows) * (len(rows[0]) - 1)
        for row in rows:
            for name in ("train_loss", "validation_auroc"):
                assert found[name, int(row["epoch"])] == pytest.approx(float(row[name]))

    def test_model_opens_in_plain_keras(self, trained, data, tmp_path):
        """In a process that cannot import this package, and gives the same scores."""
        dataset = open_dataset(data)
        np.save(tmp_path / "codes.npy", dataset.sequences[dataset.rows("test")])
        code = (
            "import sys; sys.modules['tal1_hvd'] = None\n"
            "import keras, numpy as np\n"
            "model = keras.saving.load_model(sys.argv[1])\n"
            "np.save('scores.npy', model.predict(np.load('codes.npy'), verbose=0))\n"
            "assert not [name for name in sys.modules if name.startswith('tal1_hvd.')]\n"
        )
        command = [sys.executable, "-c", code, str(trained.model)]
        subprocess.run(command, cwd=tmp_path, check=True)
        scores = np.load(tmp_path / "scores.npy")
        written = [float(row[2]) for row in predictions(trained)[1:]]
        assert scores.shape == (30, 1)
        np.testing.assert_allclose(scores[:, 0], written, atol=1e-6)


class TestSeed:
    def test_same_seed_same_bits(self, run, trained):
        assert_same_results(run(), trained)

    def test_other_seed(self, run, trained):
        other = run(seed=1, epochs=1)
        assert state(other)[0] != state(trained)[0]
        assert history(other)[0]["train_loss"] != history(trained)[0]["train_loss"]


class TestSettings:
    def test_patience(self, run):
        """A rate too small to change a weight: no epoch is better than the first."""
        folder = run(patience=2, learning_rate=1e-30, epochs=50)
        metrics = folder.read_metrics()
        assert (metrics["epochs"], metrics["best_epoch"]) == (3, 1)
        assert len(history(folder)) == 3
        assert TrainSettings.from_yaml(folder.config).epochs == 50

    def test_two_passes_of_16_are_a_batch_of_32(self, run):
        whole = run(precision="float64", epochs=2)
        passes = run(precision="float64", epochs=2, batch_size=16, accumulation=2)
        weights = load_checkpoint(passes.last).model
        for ours, theirs in zip(weights, load_checkpoint(whole.last).model, strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)
        assert passes.read_metrics()["global_batch_size"] == 32

    @pytest.mark.parametrize(
        "settings",
        [
            {"precision": "mixed"},
            {"shuffle": "shard"},
            {"batch_size": 210, "warmup_examples": 0},
            {"batch_size": 9, "accumulation": 4},
        ],
        ids=str,
    )
    def test_others(self, run, begun, settings):
        folder = run(epochs=1, **settings)
        (row,), (usual,) = history(folder), history(begun)
        assert 0.3 < float(row["train_loss"]) < 1.0
        assert row["train_loss"] != usual["train_loss"]
        assert {array.dtype for array in load_checkpoint(folder.last).model} == {np.dtype("f4")}

    def test_diverged(self, run, tmp_path):
        with pytest.raises(InputError, match="--learning-rate: the loss is not finite any more"):
            run(tmp_path / "run", learning_rate=1e38)
        assert not (tmp_path / "run" / "metrics.json").exists()

    def test_no_test_split(self, run, tmp_path):
        rng = np.random.default_rng(0)
        labels = np.arange(40) % 2
        with create_dataset(tmp_path / "data", 40, 60) as writer:
            writer.sequences[:] = rng.integers(0, 5, (40, 60))
            writer.finish(
                labels=labels,
                splits=np.minimum(stratified_split(labels, 0), 1),
                ids=[f"s{i}" for i in range(40)],
                task="imported",
                parameters={},
                seed=0,
            )
        folder = run(data=str(tmp_path / "data"), epochs=1, batch_size=8)
        assert folder.read_metrics()["test"] is None
        assert predictions(folder) == [["id", "label", "score"]]


class TestResume:
    @pytest.mark.parametrize(
        ("done", "settings"),
        [
            (1, {}),
            (3, {}),
            (2, {"precision": "float64", "batch_size": 8, "accumulation": 3, "shuffle": "shard"}),
        ],
        ids=["1 of 4", "3 of 4", "other settings"],
    )
    def test_is_the_unbroken_run_bit_by_bit(self, run, trained, begun, tmp_path, done, settings):
        unbroken = run(**settings) if settings else trained
        part = begun if done == 1 else run(**settings | {"epochs": done})
        assert len(history(part)) == done
        folder = copied(part, tmp_path / "copy")
        run(folder.path, resume=True, epochs=EPOCHS)
        assert_same_results(folder, unbroken)
        assert folder.config.read_text() == unbroken.config.read_text()
        assert folder.read_metrics()["train_seconds"] > part.read_metrics()["train_seconds"]

    def test_before_the_first_checkpoint(self, run, trained, tmp_path):
        folder = RunFolder(tmp_path / "run")
        RunFolder.create(
            folder.path,
            TrainSettings.from_yaml(trained.config),
            json.loads(trained.manifest.read_text()),
        )
        run(folder.path, resume=True, epochs=2)
        assert [timeless(row) for row in history(folder)] == [
            timeless(row) for row in history(trained)[:2]
        ]
        assert TrainSettings.from_yaml(folder.config).epochs == 2

    def test_killed_before_the_results(self, run, trained, tmp_path):
        """All epochs are in the checkpoint; the last history line and the results are missing."""
        folder = copied(trained, tmp_path / "copy")
        for path in (folder.metrics, folder.model, folder.path / "predictions.tsv"):
            path.unlink()
        lines = (folder.path / "history.csv").read_text().splitlines(keepends=True)
        (folder.path / "history.csv").write_text("".join(lines[:-1]))
        run(folder.path, resume=True)
        assert_same_results(folder, trained)

    def test_killed_between_its_checkpoints(self, run, trained, begun, tmp_path):
        """The best checkpoint is ahead of the last one, of which a half-written one is left."""
        folder = copied(begun, tmp_path / "copy")
        shutil.copy(trained.best, folder.best)
        half = folder.path / "checkpoints" / ".last.npz.x.tmp"
        half.write_bytes(trained.last.read_bytes()[:100])
        run(folder.path, resume=True, epochs=EPOCHS)
        assert_same_results(folder, trained)
        assert not half.exists()

    @pytest.mark.parametrize("changes", [{}, {"epochs": 2}, {"epochs": 1, "patience": EPOCHS}])
    def test_finished_run_is_left_as_it_is(self, run, tmp_path, trained, changes):
        folder = copied(trained, tmp_path / "copy")
        before = files(folder)
        run(folder.path, resume=True, **changes)
        assert files(folder) == before

    def test_other_number_of_passes(self, run, begun, tmp_path, trained):
        """The global batch stays, and so do the results but for rounding."""
        folder = copied(begun, tmp_path / "copy")
        run(folder.path, resume=True, epochs=2, accumulation=2)
        assert TrainSettings.from_yaml(folder.config).batch_size == 16
        assert folder.read_metrics()["global_batch_size"] == 32
        found, expected = (float(history(f)[1]["train_loss"]) for f in (folder, trained))
        assert found == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize("content", [b"", b"PK not a checkpoint", None])
    def test_damaged_checkpoint(self, run, tmp_path, trained, content):
        folder = copied(trained, tmp_path / "copy")
        whole = folder.last.read_bytes()
        folder.last.write_bytes(whole[: len(whole) // 2] if content is None else content)
        before = files(folder)
        with pytest.raises(AgreedError, match=r"last\.npz: not a checkpoint, or damaged"):
            run(folder.path, resume=True, epochs=9)
        assert files(folder) == before

    def test_another_models_checkpoint(self, run, tmp_path, trained):
        folder = copied(trained, tmp_path / "copy")
        arrays = dict(np.load(folder.last))
        arrays["model/2"] = arrays["model/2"][:-1]
        np.savez(folder.last, **arrays)
        with pytest.raises(InputError, match="holds other variables than this run's model"):
            run(folder.path, resume=True, epochs=9)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"seed": 1}, "--seed: the run was made with 0, which --resume cannot change to 1"),
            ({"precision": "float64"}, "--precision: "),
            ({"batch_size": 64}, "--batch-size: the run's global batch of 32 is 32 on each"),
            ({"accumulation": 3}, "--resume: the run's global batch of 32 cannot be shared"),
            ({"epochs": 0}, "--epochs: must be at least 1"),
            ({"data": "nowhere"}, "nowhere: no such dataset folder"),
        ],
    )
    def test_refused(self, run, trained, changes, text):
        before = files(trained)
        with pytest.raises(AgreedError) as caught:
            run(trained.path, resume=True, **changes)
        assert str(caught.value).startswith(text)
        assert files(trained) == before

    def test_other_data(self, run, trained, tmp_path):
        settings = SimulationSettings(
            length=120, center=40, min_sites=1, max_sites=1, positives=150, negatives=150, seed=5
        )
        other = simulate(settings, tmp_path / "other")
        with pytest.raises(AgreedError, match="is not the dataset that the run was started with"):
            run(trained.path, resume=True, data=str(other))

    def test_moved_data(self, run, trained, begun, data, tmp_path):
        shutil.copytree(data, tmp_path / "moved")
        folder = copied(begun, tmp_path / "copy")
        run(folder.path, resume=True, epochs=2, data=str(tmp_path / "moved"))
        assert timeless(history(folder)[1]) == timeless(history(trained)[1])

    def test_from_another_folder(self, run, trained, begun, tmp_path):
        folder = copied(begun, tmp_path / "copy")
        settings = TrainSettings.from_yaml(folder.config)
        folder.write_settings(replace(settings, data="relative/data"), 1)
        run(folder.path, resume=True, epochs=2)
        assert timeless(history(folder)[1]) == timeless(history(trained)[1])

    @pytest.mark.parametrize("text", ["{}", "{", "[]"])
    def test_damaged_metrics_are_made_again(self, run, trained, tmp_path, text):
        folder = copied(trained, tmp_path / "copy")
        folder.metrics.write_text(text)
        run(folder.path, resume=True)
        assert timeless(folder.read_metrics()) == timeless(trained.read_metrics())

    def test_nothing_to_resume(self, tmp_path):
        with pytest.raises(AgreedError, match="no run to resume here"):
            run_session(Request({}, tmp_path / "nothing", resume=True))
        assert not (tmp_path / "nothing").exists()

    @pytest.mark.parametrize("empty", [True, False], ids=["empty", "missing"])
    def test_not_begun_starts(self, run, trained, data, tmp_path, empty):
        """As where a run was killed before it had a folder."""
        if empty:
            (tmp_path / "run").mkdir()
        changes = {**DEFAULTS, "data": str(data)}
        folder = run(tmp_path / "run", resume=True, **changes)
        assert timeless(folder.read_metrics()) == timeless(trained.read_metrics())

    def test_without_a_name(self):
        with pytest.raises(InputError, match="--resume: name the run to go on with in --out"):
            make_plan(Request({}, None, resume=True), 0, 1, Silent())

    def test_run_in_use(self, run, trained, tmp_path):
        folder = copied(trained, tmp_path / "copy")
        with folder.lock(), pytest.raises(AgreedError, match="another process is training into it"):
            run(folder.path, resume=True, epochs=9)


class TestRequest:
    def test_run_folder_exists(self, run, trained):
        before = files(trained)
        with pytest.raises(AgreedError, match="exists already"):
            run(trained.path)
        assert files(trained) == before

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"data": "nowhere"}, "nowhere: no such dataset folder"),
            ({"model": "papper"}, "--model: 'papper' is none of"),
            ({"strategy": "mpi"}, "--strategy: 'mpi' is none of"),
            ({"batch_size": 211}, "--batch-size: 211 x 1 passes is more than"),
        ],
    )
    def test_refused(self, run, tmp_path, changes, text):
        with pytest.raises(AgreedError) as caught:
            run(tmp_path / "run", **changes)
        assert str(caught.value).startswith(text)
        assert not (tmp_path / "run").exists()

    def test_edited_data(self, run, data, tmp_path):
        shutil.copytree(data, tmp_path / "edited")
        labels = np.load(tmp_path / "edited" / "labels.npy")
        np.save(tmp_path / "edited" / "labels.npy", 1 - labels)
        with pytest.raises(AgreedError, match=r"labels\.npy: was changed after it was made"):
            run(tmp_path / "run", data=str(tmp_path / "edited"))

    def test_default_data_is_the_cached_one(self, data, monkeypatch):
        asked = []

        def cached(settings, say):
            asked.append(settings)
            return data

        monkeypatch.setattr("tal1_hvd.training.session.cached_dataset", cached)
        plan = make_plan(Request({}), 0, 1, Silent())
        assert asked == [SimulationSettings()]
        assert plan.settings.data is None
        assert plan.dataset.path == data

    def test_new_run_path(self):
        path = new_run_path(TrainSettings(seed=7))
        assert path.parent == Path("runs")
        assert path.name.startswith("paper-seed7-2")


class Recorder(Silent):
    """Notes a run's course."""

    def __init__(self):
        self.started, self.advanced, self.rows, self.finished = None, [[]], [], 0

    def start(self, epochs, done, examples):
        self.started = (epochs, done, examples)

    def advance(self, examples):
        self.advanced[-1].append(examples)

    def epoch(self, row):
        self.rows.append(row)
        self.advanced.append([])

    def finish(self):
        self.finished += 1


class Rank(SingleProcess):
    """A rank that is a thread of this process."""

    name = "threads"

    def __init__(self, rank, size, slots, barrier):
        self.rank, self.size, self._slots, self._barrier = rank, size, slots, barrier

    def _exchange(self, value):
        self._slots[self.rank] = value
        self._barrier.wait()
        values = list(self._slots)
        self._barrier.wait()
        return values

    def all_reduce_sum(self, tensor):
        return tf.add_n(self._exchange(tensor))

    def all_gather(self, array):
        return np.concatenate(self._exchange(array))

    def broadcast_variables(self, variables):
        first = self._exchange([np.array(variable) for variable in variables])[0]
        for variable, value in zip(variables, first, strict=True):
            variable.assign(value)

    def all_gather_json(self, value):
        return [json.loads(text) for text in self._exchange(json.dumps(value))]

    def broadcast_json(self, value):
        return self.all_gather_json(value if self.rank == 0 else None)[0]

    def close(self):
        self._exchange(None)


class Eager:
    """Stands in for `tf.function`: a graph's threads might wait for each other in vain."""

    def __init__(self, function=None, **options):
        self._function = function

    def __call__(self, *given, **named):
        return Eager(*given) if self._function is None else self._function(*given, **named)

    def get_concrete_function(self):
        return self._function


def train_on_threads(data, path, size, settings):
    """Return the run folder and each rank's reporter, metrics and final weights."""
    dataset, folder = open_dataset(data), RunFolder.create(path, settings, {"world_size": size})
    slots, barrier = [None] * size, threading.Barrier(size, timeout=60)

    def work(rank):
        communicator, reporter = Rank(rank, size, slots, barrier), Recorder()
        try:
            batching = plan_batches(settings, dataset, rank, size)
            trainer = Trainer.build(settings, dataset, batching, communicator)
            metrics = train(trainer, folder, reporter)
            return reporter, metrics, [np.array(v) for v in trainer.model.variables]
        except BaseException:
            barrier.abort()
            raise

    with mock.patch.object(tf, "function", Eager), ThreadPoolExecutor(size) as pool:
        return folder, *zip(*pool.map(work, range(size)), strict=True)


THREADED = {
    "epochs": 2,
    "learning_rate": 0.01,
    "warmup_examples": 300,
    "precision": "float64",
}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "run"
    return train_on_threads(data, path, 1, TrainSettings(**THREADED, batch_size=48))


@pytest.fixture(scope="module")
def shared(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "run"
    return train_on_threads(data, path, 3, TrainSettings(**THREADED, batch_size=16))


class TestRanks:
    """The loop over epochs on several ranks; real ones are launched elsewhere."""

    def test_three_ranks_are_one(self, whole, shared):
        expected = whole[3][0]
        for weights in shared[3]:
            for ours, theirs in zip(weights, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)
        for ours, theirs in zip(history(shared[0]), history(whole[0]), strict=True):
            for name, value in timeless(theirs).items():
                assert float(ours[name]) == pytest.approx(float(value), abs=1e-9), name
        ours, theirs = (timeless(folder.read_metrics()) for folder in (shared[0], whole[0]))
        assert (ours.pop("world_size"), theirs.pop("world_size")) == (3, 1)
        assert ours["global_batch_size"] == theirs["global_batch_size"] == 48
        assert ours["test"]["loss"] == pytest.approx(theirs["test"]["loss"], abs=1e-9)

    def test_rows_of_all_ranks_come_in_order(self, whole, shared):
        ours, theirs = predictions(shared[0]), predictions(whole[0])
        assert [row[:2] for row in ours] == [row[:2] for row in theirs]
        scores = ([float(row[2]) for row in rows[1:]] for rows in (ours, theirs))
        np.testing.assert_allclose(*scores, atol=1e-9)

    def test_all_ranks_leave_with_the_best_model(self, shared):
        best = load_checkpoint(shared[0].best).model
        for weights in shared[3]:
            assert [w.tobytes() for w in weights] == [w.tobytes() for w in best]

    def test_metrics_are_rank_0s(self, shared):
        first, *others = shared[2]
        assert first == shared[0].read_metrics()
        assert others == [{}, {}]

    def test_only_one_writes(self, shared):
        assert len(list(shared[0].tensorboard.iterdir())) == 1

    def test_every_rank_is_told_the_same_course(self, whole, shared):
        for reporter in (*whole[1], *shared[1]):
            assert reporter.started == (2, 0, 210)
            assert [sum(counts) for counts in reporter.advanced] == [210, 210, 0]
            assert [row["epoch"] for row in reporter.rows] == [1, 2]
            assert reporter.finished == 1
        assert shared[1][0].rows == shared[1][2].rows

    def test_advance_counts_every_example_once(self, data, monkeypatch):
        """Also where calls of the graph end between the passes of a step."""
        monkeypatch.setattr(train_module, "_MOST_PASSES_A_CALL", 16)
        settings, dataset = TrainSettings(batch_size=20, accumulation=9), open_dataset(data)
        batching, alone = plan_batches(settings, dataset, 0, 1), SingleProcess()
        totals = Totals(np.float64(105.0), np.int64(70))
        trainer = Trainer(
            settings, dataset, batching, alone, None, None, lambda *passes: totals, None
        )
        advanced = []
        means = trainer.train_epoch(0, advanced.append)
        # 18 passes are two calls, each of which gave the same totals.
        assert means == {"train_loss": 1.0, "train_accuracy": 140 / 210}
        assert sum(advanced) == 210
