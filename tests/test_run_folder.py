"""The files of a run: their formats, and that they are whole."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from tal1_hvd.errors import InputError
from tal1_hvd.training.run_folder import RunFolder, read_columns
from tal1_hvd.training.settings import TrainSettings, read_settings
from tests.helpers import names

SETTINGS = TrainSettings(epochs=3, data="/some/data")


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a run that has begun."""
    folder = RunFolder.create(tmp_path / "runs" / "first", SETTINGS, 2)
    folder.write_manifest({"started": "now"})
    return folder


class TestCreate:
    def test_contents(self, folder):
        assert names(folder.path) == ["checkpoints", "config.yaml", "manifest.json"]
        assert names(folder.path.parent) == ["first"]
        assert read_settings(folder.config) == (SETTINGS, 2)
        assert json.loads(folder.manifest.read_text()) == {"started": "now"}
        assert not names(folder.path / "checkpoints")

    def test_begins_with_its_manifest(self, tmp_path):
        folder = RunFolder.create(tmp_path / "run", SETTINGS, 1)
        assert names(folder.path) == ["config.yaml"]
        assert not folder.has_begun()
        folder.write_manifest({})
        assert folder.has_begun()
        # Its manifest may get lost, as files do.
        folder.manifest.unlink()
        assert folder.has_begun()

    def test_empty_folder_is_taken(self, tmp_path):
        (tmp_path / "run").mkdir()
        RunFolder.create(tmp_path / "run", SETTINGS, 1)
        assert (tmp_path / "run" / "config.yaml").exists()

    def test_nothing_is_overwritten(self, folder):
        with pytest.raises(InputError, match="exists already"):
            RunFolder.create(folder.path, TrainSettings(), 1)
        assert read_settings(folder.config)[0] == SETTINGS

    def test_below_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="cannot be written"):
            RunFolder.create(tmp_path / "file" / "run", SETTINGS, 1)

    def test_paths(self, folder):
        below = {
            name: getattr(folder, name).relative_to(folder.path).as_posix()
            for name in ("config", "manifest", "last", "best", "model", "metrics", "tensorboard")
        }
        assert below == {
            "config": "config.yaml",
            "manifest": "manifest.json",
            "last": "checkpoints/last.npz",
            "best": "checkpoints/best.npz",
            "model": "model.keras",
            "metrics": "metrics.json",
            "tensorboard": "tensorboard",
        }
        assert folder.heartbeats.parent == folder.path


class TestLock:
    def test_one_at_a_time(self, folder):
        with folder.lock(), pytest.raises(InputError, match="another process is training into it"):
            folder.lock()

    def test_released_at_the_end_of_the_block(self, folder):
        # Kept on purpose: that nobody holds the object any more must not be what releases it.
        lock = folder.lock()
        with lock:
            pass
        with folder.lock():
            pass

    def test_released_after_an_error(self, folder):
        with pytest.raises(ZeroDivisionError), folder.lock():
            raise ZeroDivisionError
        with folder.lock():
            pass

    def test_another_run_is_free(self, folder, tmp_path):
        other = RunFolder.create(tmp_path / "other", SETTINGS, 1)
        with folder.lock(), other.lock():
            pass


class TestWrite:
    def test_no_room_for_the_model(self, folder):
        class Model:
            def save(self, path: Path) -> None:
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(InputError, match=r"model\.keras: cannot be written: No space left"):
            folder.write_model(Model())
        assert names(folder.path) == ["checkpoints", "config.yaml", "manifest.json"]

    def test_settings_and_manifest_are_replaced(self, folder):
        folder.write_settings(TrainSettings(epochs=9), 1)
        folder.write_manifest({"started": "later"})
        assert yaml.safe_load(folder.config.read_text())["epochs"] == 9
        assert json.loads(folder.manifest.read_text()) == {"started": "later"}
        assert names(folder.path) == ["checkpoints", "config.yaml", "manifest.json"]

    def test_history(self, folder):
        rows = [
            {"epoch": 1, "train_loss": 0.1 + 0.2, "validation_auroc": None},
            {"epoch": 2, "train_loss": 1e-17, "validation_auroc": 0.5},
        ]
        for count in (1, 2, 1):
            folder.write_history(rows[:count])
            with (folder.path / "history.csv").open(newline="") as handle:
                found = list(csv.DictReader(handle))
            assert len(found) == count
            assert found[0] == {
                "epoch": "1",
                "train_loss": "0.30000000000000004",
                "validation_auroc": "",
            }
        assert len((folder.path / "history.csv").read_text().splitlines()) == 2

    def test_predictions(self, folder):
        folder.write_predictions([("a", 1, 0.1), ("b", 0, 1 / 3), ("c", 1, 1e-12)])
        assert (folder.path / "predictions.tsv").read_text() == (
            "id\tlabel\tscore\na\t1\t0.1\nb\t0\t0.333333333\nc\t1\t1e-12\n"
        )

    def test_predictions_tell_float32_scores_apart(self, folder):
        scores = np.float32(0.7) + np.arange(5, dtype=np.float32) * np.float32(2**-24)
        folder.write_predictions(("x", 1, float(score)) for score in scores)
        lines = (folder.path / "predictions.tsv").read_text().splitlines()[1:]
        assert [np.float32(line.split("\t")[2]) for line in lines] == scores.tolist()

    def test_metrics(self, folder):
        metrics = {"test": None, "train": {"n": 3, "auroc": 0.1 + 0.2}, "model": "ü"}
        folder.write_metrics(metrics)
        assert folder.read_metrics() == json.loads(folder.metrics.read_text()) == metrics

    def test_failed_write_keeps_what_was_there(self, folder):
        folder.write_predictions([("a", 1, 0.1)])

        def rows():
            yield "b", 0, 0.2
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            folder.write_predictions(rows())
        assert "a\t1\t0.1" in (folder.path / "predictions.tsv").read_text()
        assert not [name for name in names(folder.path) if name.endswith(".tmp")]

    def test_model(self, folder):
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        for factor in (1.0, 2.0):
            model.set_weights([np.full((2, 1), factor), np.zeros(1)])
            folder.write_model(model)
            loaded = keras.saving.load_model(folder.model)
            assert loaded.get_weights()[0].tolist() == [[factor], [factor]]
        assert [name for name in names(folder.path) if "model" in name] == ["model.keras"]


class TestReadColumns:
    def test_predictions(self, folder):
        ids = ['"quoted', "'", "x" * 100_000, *"abc"]
        folder.write_predictions([(name, 1, 0.5) for name in ids])
        found = read_columns(folder.predictions, "\t", words=("id",))
        assert list(found["id"]) == ids
        # An array of text would take 100,000 letters for each.
        assert found["id"].nbytes == 8 * len(ids)

    def test_no_rows(self, folder):
        folder.write_predictions([])
        found = read_columns(folder.predictions, "\t", words=("id",))
        assert [(name, len(column)) for name, column in found.items()] == [
            ("id", 0),
            ("label", 0),
            ("score", 0),
        ]

    @pytest.mark.parametrize("text", ["", "a,b\n1\n", "a,b\n1,2,3\n", "a,b\n1,x\n"])
    def test_damaged(self, folder, text):
        folder.history.write_text(text)
        with pytest.raises(InputError, match=r"history\.csv: cannot be read"):
            read_columns(folder.history)


class TestReadMetrics:
    def test_missing(self, folder):
        with pytest.raises(InputError, match=r"metrics\.json: cannot be read"):
            folder.read_metrics()

    @pytest.mark.parametrize("content", [b"", b'{"test": ', b"\xff\xfe"])
    def test_damaged(self, folder, content):
        folder.metrics.write_bytes(content)
        with pytest.raises(InputError, match=r"metrics\.json: cannot be read"):
            folder.read_metrics()


def test_leftovers_of_a_killed_session_are_removed(folder):
    kept = names(folder.path)
    (folder.path / ".mine.tmp").mkdir()
    kept.insert(0, ".mine.tmp")
    for left in (".model.tmp.keras", ".metrics.json.x1.tmp", "checkpoints/.last.npz.x2.tmp"):
        (folder.path / left).write_text("half")
    folder.last.write_text("whole")
    folder.remove_leftovers()
    assert names(folder.path) == kept
    assert names(folder.path / "checkpoints") == ["last.npz"]
