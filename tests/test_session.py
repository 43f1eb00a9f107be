"""Whole sessions on a small dataset: what they leave behind, repeat and refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from tal1_hvd._version import __version__
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.dataset_writer import create_dataset
from tal1_hvd.data.splits import stratified_split
from tal1_hvd.distributed.agreement import AgreedError
from tal1_hvd.errors import InputError
from tal1_hvd.evaluation.metrics import summary
from tal1_hvd.evaluation.summary import full_summary
from tal1_hvd.models.paper import paper
from tal1_hvd.models.scoring import Scorer
from tal1_hvd.training.checkpoint import load_checkpoint
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.session import how_to_go_on
from tal1_hvd.training.settings import TrainSettings, read_settings
from tests.sessions import DEFAULTS, EPOCHS, assert_same_results, files, history, predictions, state


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
            "events.jsonl",
            "logs",
        }
        assert {path.name for path in (trained.path / "checkpoints").iterdir()} == {
            "last.npz",
            "best.npz",
        }

    def test_config_runs_it_again(self, trained, learnable_data):
        settings = read_settings(trained.config)[0]
        assert settings == TrainSettings(**DEFAULTS, data=str(learnable_data))
        assert yaml.safe_load(trained.config.read_text())["batch-size"] == 32

    def test_manifest(self, trained, learnable_data):
        manifest = json.loads(trained.manifest.read_text())
        assert manifest["tool_version"] == __version__
        assert manifest["versions"]["tensorflow"] == tf.__version__
        assert manifest["versions"].keys() >= {"python", "tensorflow", "keras", "numpy"}
        assert manifest["dataset"]["path"] == str(learnable_data.resolve())
        assert manifest["dataset"]["task"] == "density-localization"
        assert manifest["dataset"]["fingerprint"] == open_dataset(learnable_data).fingerprint
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

    def test_predictions_are_the_test_splits(self, trained, learnable_data):
        header, *rows = predictions(trained)
        assert header == ["id", "label", "score"]
        dataset = open_dataset(learnable_data)
        test = dataset.rows("test")
        ids = dataset.ids()
        assert [row[0] for row in rows] == [ids[i] for i in test]
        assert [int(row[1]) for row in rows] == dataset.labels[test].tolist()

    def test_metrics_are_those_of_the_scores(self, trained, learnable_data):
        metrics, dataset = trained.read_metrics(), open_dataset(learnable_data)
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

    def test_model_opens_in_plain_keras(self, trained, learnable_data, tmp_path):
        """In a process that cannot import this package, and gives the same scores."""
        dataset = open_dataset(learnable_data)
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
    def test_same_seed_same_bits(self, train_run, trained):
        assert_same_results(train_run(), trained)

    def test_other_seed(self, train_run, trained):
        other = train_run(seed=1, epochs=1)
        assert state(other)[0] != state(trained)[0]
        assert history(other)[0]["train_loss"] != history(trained)[0]["train_loss"]


class TestSettings:
    def test_patience(self, train_run):
        """A rate too small to change a weight: no epoch is better than the first."""
        folder = train_run(patience=2, learning_rate=1e-30, epochs=50)
        metrics = folder.read_metrics()
        assert (metrics["epochs"], metrics["best_epoch"]) == (3, 1)
        assert len(history(folder)) == 3
        assert read_settings(folder.config)[0].epochs == 50

    def test_two_passes_of_16_are_a_batch_of_32(self, train_run):
        whole = train_run(precision="float64", epochs=2)
        passes = train_run(precision="float64", epochs=2, batch_size=16, accumulation=2)
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
    def test_others(self, train_run, begun, settings):
        folder = train_run(epochs=1, **settings)
        (row,), (usual,) = history(folder), history(begun)
        assert 0.3 < float(row["train_loss"]) < 1.0
        assert row["train_loss"] != usual["train_loss"]
        assert {array.dtype for array in load_checkpoint(folder.last).model} == {np.dtype("f4")}

    def test_diverged(self, train_run, tmp_path):
        with pytest.raises(InputError, match="--learning-rate: the loss is not finite any more"):
            train_run(tmp_path / "run", learning_rate=1e30)
        assert not (tmp_path / "run" / "metrics.json").exists()

    def test_shards_and_the_cache_change_no_bit(self, train_run, learnable_data, tmp_path):
        dataset = open_dataset(learnable_data)
        length = dataset.length
        with create_dataset(tmp_path / "data", len(dataset), length, 70 * length) as writer:
            writer.put(0, dataset.sequences)
            writer.finish(
                labels=dataset.labels,
                splits=dataset.splits,
                ids=dataset.ids(),
                task="imported",
                parameters={},
                seed=0,
            )
        whole = train_run(epochs=2)
        for cache_mb in (0, 1):
            data = str(tmp_path / "data")
            assert_same_results(train_run(data=data, cache_mb=cache_mb, epochs=2), whole)

    def test_no_test_split(self, train_run, tmp_path):
        rng = np.random.default_rng(0)
        labels = np.arange(40) % 2
        with create_dataset(tmp_path / "data", 40, 60) as writer:
            writer.put(0, rng.integers(0, 5, (40, 60)))
            writer.finish(
                labels=labels,
                splits=np.minimum(stratified_split(labels, 0), 1),
                ids=[f"s{i}" for i in range(40)],
                task="imported",
                parameters={},
                seed=0,
            )
        folder = train_run(data=str(tmp_path / "data"), epochs=1, batch_size=8)
        assert folder.read_metrics()["test"] is None
        assert predictions(folder) == [["id", "label", "score"]]


class TestRequest:
    def test_run_folder_exists(self, train_run, trained):
        before = files(trained)
        with pytest.raises(InputError, match="exists already"):
            train_run(trained.path)
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
    def test_refused(self, train_run, tmp_path, changes, text):
        with pytest.raises(InputError) as caught:
            train_run(tmp_path / "deep" / "run", **changes)
        assert str(caught.value).startswith(text)
        assert not (tmp_path / "deep").exists()

    def test_edited_data(self, train_run, learnable_data, tmp_path):
        shutil.copytree(learnable_data, tmp_path / "edited")
        labels = np.load(tmp_path / "edited" / "labels.npy")
        np.save(tmp_path / "edited" / "labels.npy", 1 - labels)
        with pytest.raises(AgreedError, match=r"labels\.npy: was changed after it was made"):
            train_run(tmp_path / "run", data=str(tmp_path / "edited"))


@pytest.mark.parametrize(
    ("elastic", "hosts", "command"),
    [
        (False, ["a"], "tal1-hvd train --out run --resume"),
        (False, ["a", "a"], "tal1-hvd train --out run --resume --ranks 2"),
        (False, ["a", "b", "b"], "tal1-hvd train --out run --resume"),
        # Otherwise it would start two.
        (True, ["a"], "launch/elastic --out run --resume --ranks 1"),
        (True, ["a", "b"], "launch/elastic --out run --resume"),
        (True, [], "launch/elastic --out run --resume"),
    ],
)
def test_how_to_go_on(elastic, hosts, command):
    assert how_to_go_on(RunFolder(Path("run")), elastic, hosts) == command
