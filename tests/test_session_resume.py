"""Sessions that go on with a run: the unbroken run's results, to the bit, or a refusal."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from tal1_hvd.distributed.agreement import AgreedError
from tal1_hvd.errors import InputError
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.simulation.simulate import simulate
from tal1_hvd.training.begin import Request
from tal1_hvd.training.checkpoint import load_checkpoint
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.session import run_session
from tal1_hvd.training.settings import read_settings
from tests.sessions import (
    DEFAULTS,
    EPOCHS,
    assert_same_results,
    copied,
    files,
    history,
    in_short_calls,
    timeless,
)


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
    def test_is_the_unbroken_run_bit_by_bit(
        self, train_run, trained, begun, tmp_path, done, settings
    ):
        unbroken = train_run(**settings) if settings else trained
        part = begun if done == 1 else train_run(**settings | {"epochs": done})
        assert len(history(part)) == done
        folder = copied(part, tmp_path / "copy")
        train_run(folder.path, resume=True, epochs=EPOCHS)
        assert_same_results(folder, unbroken)
        assert folder.config.read_text() == unbroken.config.read_text()
        assert folder.read_metrics()["train_seconds"] > part.read_metrics()["train_seconds"]

    @pytest.mark.parametrize("begun", [True, False], ids=["begun", "settings only"])
    def test_before_the_first_checkpoint(self, train_run, trained, tmp_path, begun):
        folder = RunFolder.create(tmp_path / "run", *read_settings(trained.config))
        if begun:
            shutil.copy(trained.manifest, folder.manifest)
        train_run(folder.path, resume=True, epochs=2)
        assert [timeless(row) for row in history(folder)] == [
            timeless(row) for row in history(trained)[:2]
        ]
        assert read_settings(folder.config)[0].epochs == 2

    def test_killed_before_the_results(self, train_run, trained, tmp_path):
        """All epochs are in the checkpoint; the last history line and the results are missing."""
        folder = copied(trained, tmp_path / "copy")
        for path in (folder.metrics, folder.model, folder.path / "predictions.tsv"):
            path.unlink()
        lines = (folder.path / "history.csv").read_text().splitlines(keepends=True)
        (folder.path / "history.csv").write_text("".join(lines[:-1]))
        train_run(folder.path, resume=True)
        assert_same_results(folder, trained)

    def test_killed_between_its_checkpoints(self, train_run, trained, begun, tmp_path):
        """The best checkpoint is ahead of the last one, of which a half-written one is left."""
        folder = copied(begun, tmp_path / "copy")
        shutil.copy(trained.best, folder.best)
        half = folder.path / "checkpoints" / ".last.npz.x.tmp"
        half.write_bytes(trained.last.read_bytes()[:100])
        train_run(folder.path, resume=True, epochs=EPOCHS)
        assert_same_results(folder, trained)
        assert not half.exists()

    @pytest.mark.parametrize("changes", [{}, {"epochs": 2}, {"epochs": 1, "patience": EPOCHS}])
    def test_finished_run_is_left_as_it_is(self, train_run, tmp_path, trained, changes):
        folder = copied(trained, tmp_path / "copy")
        before = files(folder)
        train_run(folder.path, resume=True, **changes)
        assert files(folder) == before

    def test_other_number_of_passes(self, train_run, begun, tmp_path, trained):
        """The global batch stays, and so do the results but for rounding."""
        folder = copied(begun, tmp_path / "copy")
        train_run(folder.path, resume=True, epochs=2, accumulation=2)
        assert read_settings(folder.config)[0].batch_size == 16
        assert folder.read_metrics()["global_batch_size"] == 32
        found, expected = (float(history(f)[1]["train_loss"]) for f in (folder, trained))
        assert found == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize("content", [b"", b"PK not a checkpoint", None])
    def test_damaged_checkpoint(self, train_run, tmp_path, trained, content):
        folder = copied(trained, tmp_path / "copy")
        whole = folder.last.read_bytes()
        folder.last.write_bytes(whole[: len(whole) // 2] if content is None else content)
        before = files(folder)
        with pytest.raises(AgreedError, match=r"last\.npz: not a checkpoint, or damaged"):
            train_run(folder.path, resume=True, epochs=9)
        assert files(folder) == before

    def test_another_models_checkpoint(self, train_run, tmp_path, trained):
        folder = copied(trained, tmp_path / "copy")
        arrays = dict(np.load(folder.last))
        arrays["model/2"] = arrays["model/2"][:-1]
        np.savez(folder.last, **arrays)
        with pytest.raises(InputError, match="holds other variables than this run's model"):
            train_run(folder.path, resume=True, epochs=9)

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
    def test_refused(self, train_run, trained, changes, text):
        before = files(trained)
        with pytest.raises(AgreedError) as caught:
            train_run(trained.path, resume=True, **changes)
        assert str(caught.value).startswith(text)
        assert files(trained) == before

    def test_other_data(self, train_run, trained, tmp_path):
        settings = SimulationSettings(
            length=120, center=40, min_sites=1, max_sites=1, positives=150, negatives=150, seed=5
        )
        other = simulate(settings, tmp_path / "other")
        with pytest.raises(AgreedError, match="is not the dataset that the run was started with"):
            train_run(trained.path, resume=True, data=str(other))

    def test_moved_data(self, train_run, trained, begun, learnable_data, tmp_path):
        shutil.copytree(learnable_data, tmp_path / "moved")
        folder = copied(begun, tmp_path / "copy")
        train_run(folder.path, resume=True, epochs=2, data=str(tmp_path / "moved"))
        assert timeless(history(folder)[1]) == timeless(history(trained)[1])

    def test_from_another_folder(self, train_run, trained, begun, tmp_path):
        folder = copied(begun, tmp_path / "copy")
        settings = read_settings(folder.config)[0]
        folder.write_settings(replace(settings, data="relative/data"), 1)
        train_run(folder.path, resume=True, epochs=2)
        assert timeless(history(folder)[1]) == timeless(history(trained)[1])

    @pytest.mark.parametrize("text", ["{}", "{", "[]"])
    def test_damaged_metrics_are_made_again(self, train_run, trained, tmp_path, text):
        folder = copied(trained, tmp_path / "copy")
        folder.metrics.write_text(text)
        train_run(folder.path, resume=True)
        assert timeless(folder.read_metrics()) == timeless(trained.read_metrics())

    @pytest.mark.parametrize("changes", [{}, {"epochs": 2}])
    def test_nothing_to_resume(self, tmp_path, changes):
        """A mistyped name would train on the default dataset."""
        with pytest.raises(InputError, match=r"no run to resume here.*--data"):
            run_session(Request(changes, tmp_path / "nothing", resume=True))
        assert not (tmp_path / "nothing").exists()

    @pytest.mark.parametrize("empty", [True, False], ids=["empty", "missing"])
    def test_not_begun_starts(self, train_run, trained, learnable_data, tmp_path, empty):
        """As where a run was killed before it had a folder."""
        if empty:
            (tmp_path / "run").mkdir()
        changes = {**DEFAULTS, "data": str(learnable_data)}
        folder = train_run(tmp_path / "run", resume=True, **changes)
        assert timeless(folder.read_metrics()) == timeless(trained.read_metrics())

    def test_run_in_use(self, train_run, trained, tmp_path):
        folder = copied(trained, tmp_path / "copy")
        with folder.lock(), pytest.raises(AgreedError, match="another process is training into it"):
            train_run(folder.path, resume=True, epochs=9)


@pytest.fixture(scope="module")
def run_calls(train_run, learnable_data):
    def run(out, calls, resume=False, **changes):
        if not resume:
            changes = {**DEFAULTS, "data": str(learnable_data), **changes}
        future = train_run.process.submit(in_short_calls, changes, out, resume, calls)
        return future.result(timeout=120)

    return run


@pytest.fixture(scope="module")
def unbroken(run_calls, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_calls(out, -1)[0] is None
    return RunFolder(out)


class TestStopped:
    """By a signal, after so many of the four graph calls of an epoch."""

    @pytest.mark.parametrize(
        ("calls", "done"),
        [(1, "epoch 0 and 64 examples of the next"), (4, "epoch 1"), (10, "epoch 2 and 128 ex")],
        ids=["first call", "end of an epoch", "third epoch"],
    )
    def test_goes_on_bit_by_bit(self, run_calls, unbroken, tmp_path, calls, done):
        folder = RunFolder(tmp_path / "run")
        said, messages = run_calls(folder.path, calls)
        assert said == f"tal1-hvd train --out {folder.path} --resume"
        assert messages[-1].startswith(f"stopped by a signal after {done}")
        assert messages[-1].endswith("a checkpoint holds all of it")
        progress = load_checkpoint(folder.last).progress
        assert len(history(folder)) == progress.epoch
        assert not folder.metrics.exists()
        said, messages = run_calls(folder.path, -1, resume=True)
        assert said is None
        assert f"going on after {progress.describe()}" in messages
        assert_same_results(folder, unbroken)

    def test_again_and_again(self, run_calls, unbroken, tmp_path):
        folder, sessions = RunFolder(tmp_path / "run"), 1
        run_calls(folder.path, 3)
        while run_calls(folder.path, 3, resume=True)[0] is not None:
            sessions += 1
        assert sessions > EPOCHS
        assert_same_results(folder, unbroken)

    def test_in_the_last_epoch_it_finishes(self, run_calls, unbroken, tmp_path):
        assert run_calls(tmp_path / "run", 16)[0] is None
        assert_same_results(RunFolder(tmp_path / "run"), unbroken)
