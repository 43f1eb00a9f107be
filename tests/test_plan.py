"""What a run will do, and which changes a resumed one refuses."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from tal1_hvd.data.dataset import Dataset
from tal1_hvd.errors import InputError
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.training.begin import Request
from tal1_hvd.training.plan import Goal, make_plan, plan_batches, plan_resume, read_goal
from tal1_hvd.training.reporters import Silent
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import CHANGEABLE, TrainSettings
from tests.helpers import refused


def make_dataset(path, train=100, validation=10, test=5):
    splits = np.repeat(np.uint8([0, 1, 2]), [train, validation, test])
    count = len(splits)
    return Dataset(path, {}, (path,), np.zeros((count, 50), np.uint8), splits % 2, splits)


class TestBatches:
    @pytest.fixture
    def dataset(self, tmp_path):
        return make_dataset(tmp_path)

    @pytest.mark.parametrize(("rank", "size"), [(0, 1), (1, 2), (3, 4)])
    def test_settings_are_dealt_out(self, dataset, rank, size):
        settings = TrainSettings(batch_size=5, accumulation=2, shuffle="shard", seed=7)
        batching = plan_batches(settings, dataset, rank, size)
        assert (batching.examples, batching.rank, batching.size) == (100, rank, size)
        assert (batching.batch, batching.accumulation) == (5, 2)
        assert (batching.shuffle, batching.seed) == ("shard", 7)
        assert batching.global_batch == 10 * size

    def test_every_rank_of_a_split_model_takes_all(self, dataset):
        settings = TrainSettings(batch_size=5, accumulation=2, aggregation="model-parallel")
        batching = plan_batches(settings, dataset, 3, 4)
        assert (batching.rank, batching.size) == (0, 1)
        assert (batching.batch, batching.accumulation, batching.global_batch) == (20, 2, 40)

    def test_more_ranks_than_filters(self, dataset):
        settings = TrainSettings(batch_size=1, aggregation="model-parallel")
        with refused("--aggregation model-parallel: the 15 filters of paper", "over 16 ranks"):
            plan_batches(settings, dataset, 0, 16)

    @pytest.mark.parametrize(
        ("batch", "accumulation", "size"), [(100, 1, 1), (50, 2, 1), (25, 1, 4), (33, 1, 3)]
    )
    def test_batch_as_large_as_a_ranks_share(self, dataset, batch, accumulation, size):
        settings = TrainSettings(batch_size=batch, accumulation=accumulation)
        assert plan_batches(settings, dataset, 0, size).steps in (1, 2)

    @pytest.mark.parametrize(
        ("batch", "accumulation", "size", "text"),
        [
            (101, 1, 1, "101 x 1 passes is more than a rank's 100 of 100 training "),
            (51, 2, 1, "51 x 2 passes is more than a rank's 100 "),
            (34, 1, 3, "34 x 1 passes is more than a rank's 33 of 100 training examples"),
        ],
    )
    def test_batch_too_large(self, dataset, batch, accumulation, size, text):
        settings = TrainSettings(batch_size=batch, accumulation=accumulation)
        with pytest.raises(InputError) as caught:
            plan_batches(settings, dataset, 0, size)
        assert str(caught.value).startswith(f"--batch-size: {text}")

    def test_more_ranks_than_examples(self, tmp_path):
        dataset = make_dataset(tmp_path, train=3)
        with pytest.raises(InputError, match="3 training examples are fewer than 4 ranks"):
            plan_batches(TrainSettings(batch_size=1), dataset, 0, 4)

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_empty_split(self, tmp_path, split):
        dataset = make_dataset(tmp_path, **{split: 0})
        with pytest.raises(InputError, match=f"the {split} split is empty"):
            plan_batches(TrainSettings(batch_size=1), dataset, 0, 1)

    def test_too_short_for_the_model(self, tmp_path):
        dataset = make_dataset(tmp_path)
        short = dataclasses.replace(dataset, sequences=dataset.sequences[:, :43])
        with pytest.raises(InputError, match="--model: paper needs sequences of at least 44 bp"):
            plan_batches(TrainSettings(), short, 0, 1)

    def test_test_split_may_be_empty(self, tmp_path):
        assert plan_batches(TrainSettings(), make_dataset(tmp_path, test=0), 0, 1).examples == 100


class TestResume:
    before = TrainSettings(data="/some/data", batch_size=16, accumulation=2, epochs=5, seed=3)

    @pytest.fixture
    def run(self, tmp_path):
        """Return a run of 2 ranks x 16 examples x 2 passes."""
        return RunFolder.create(tmp_path / "run", self.before, 2)

    def test_as_it_was(self, run):
        assert plan_resume(run, {}, 2) == self.before

    @pytest.mark.parametrize(("size", "batch"), [(1, 32), (2, 16), (4, 8), (32, 1)])
    def test_global_batch_is_kept(self, run, size, batch):
        after = plan_resume(run, {}, size)
        assert after == dataclasses.replace(self.before, batch_size=batch)
        assert plan_resume(run, {"batch_size": batch}, size) == after

    @pytest.mark.parametrize(("size", "accumulation"), [(3, 2), (5, 1), (64, 2), (1, 7), (1, 128)])
    def test_global_batch_that_cannot_be_shared(self, run, size, accumulation):
        with pytest.raises(InputError, match="--resume: the run's global batch of 64 cannot be"):
            plan_resume(run, {"accumulation": accumulation}, size)

    @pytest.mark.parametrize(("accumulation", "batch"), [(1, 32), (4, 8), (32, 1)])
    def test_passes_may_change(self, run, accumulation, batch):
        after = plan_resume(run, {"accumulation": accumulation}, 2)
        assert (after.accumulation, after.batch_size) == (accumulation, batch)

    @pytest.mark.parametrize("accumulation", [0, -1])
    def test_no_passes(self, run, accumulation):
        with pytest.raises(InputError, match="--accumulation: must be at least 1"):
            plan_resume(run, {"accumulation": accumulation}, 2)

    def test_other_batch(self, run):
        with pytest.raises(InputError, match="global batch of 64 is 16 on each of 2 ranks, got 32"):
            plan_resume(run, {"batch_size": 32}, 2)

    @pytest.mark.parametrize(
        "changes",
        [
            {"epochs": 9},
            {"epochs": 2, "patience": 1},
            {"threads": 2, "stall_timeout": 0.0, "cache_mb": 0},
            {"strategy": "horovod"},
            {"data": "moved/data"},
            {"seed": 3, "model": "paper"},
        ],
    )
    def test_allowed(self, run, changes):
        assert plan_resume(run, changes, 2) == dataclasses.replace(self.before, **changes)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"seed": 4}, "--seed: the run was made with 3, which --resume cannot change to 4"),
            ({"learning_rate": 0.1}, "--learning-rate: the run was made with 0.001, "),
            ({"warmup_examples": 0}, "--warmup-examples: the run was made with 70000, "),
            ({"optimizer": "lars"}, "--optimizer: the run was made with 'adam', "),
            ({"rate_scaling": "sqrt"}, "--rate-scaling: the run was made with 'linear', "),
            ({"precision": "float64"}, "--precision: the run was made with 'float32', "),
            ({"shuffle": "shard"}, "--shuffle: the run was made with 'global', "),
            ({"compression": "fp16"}, "--compression: the run was made with 'none', "),
            ({"aggregation": "gossip"}, "--aggregation: the run was made with 'allreduce', "),
            ({"epochs": 9, "seed": 4}, "--seed: "),
        ],
    )
    def test_refused(self, run, changes, text):
        with pytest.raises(InputError) as caught:
            plan_resume(run, changes, 2)
        assert str(caught.value).startswith(text)

    def test_every_setting_is_either_changeable_or_refused(self):
        tested = {"seed", "learning_rate", "warmup_examples", "precision", "shuffle", "compression"}
        tested |= {"optimizer", "rate_scaling"}
        names = {field.name for field in dataclasses.fields(TrainSettings)} - {"aggregation"}
        others = {"model", "batch_size", "accumulation", "staleness"}
        assert names - CHANGEABLE - tested == others

    def test_staleness(self, tmp_path):
        settings = TrainSettings(aggregation="parameter-server", staleness=2)
        run = RunFolder.create(tmp_path / "run", settings, 2)
        with pytest.raises(InputError, match="--staleness: the run was made with 2, which"):
            plan_resume(run, {"staleness": 3}, 2)

    def test_refused_values(self, run):
        with pytest.raises(InputError, match="--epochs: must be at least 1"):
            plan_resume(run, {"epochs": 0}, 2)

    @pytest.mark.parametrize(
        ("setting", "what"),
        [
            ({"shuffle": "shard"}, "examples"),
            ({"aggregation": "gossip"}, "weights"),
            ({"aggregation": "model-parallel"}, "weights"),
        ],
    )
    def test_of_their_own(self, tmp_path, setting, what):
        run = RunFolder.create(tmp_path / "run", TrainSettings(**setting), 2)
        assert plan_resume(run, {}, 2) == TrainSettings(**setting)
        with pytest.raises(InputError, match=rf"each of 2 ranks has {what} of its own.*with 1"):
            plan_resume(run, {}, 1)


class TestElastic:
    """Where ranks come and go, a rank keeps its batch, or all of them the global one."""

    SETTINGS = TrainSettings(batch_size=10, elastic=True)

    @pytest.fixture(autouse=True)
    def launched(self, monkeypatch):
        monkeypatch.setenv("HOROVOD_ELASTIC", "1")

    def test_a_rank_keeps_its_batch(self, tmp_path):
        run = RunFolder.create(tmp_path / "run", self.SETTINGS, 3)
        assert plan_resume(run, {"epochs": 7}, 7) == replace(self.SETTINGS, epochs=7)
        with pytest.raises(InputError, match="--batch-size: the run was made with 10"):
            plan_resume(run, {"batch_size": 20}, 3)

    @pytest.mark.parametrize(("size", "batch"), [(1, 30), (2, 15), (4, 8)])
    def test_all_keep_the_global_batch(self, tmp_path, learnable_data, size, batch):
        settings = replace(self.SETTINGS, fixed_global_batch=True)
        run = RunFolder.create(tmp_path / "run", settings, 3)
        goal = read_goal(Request({"data": str(learnable_data)}, run.path, resume=True), size)
        assert goal.ranks == 3
        batching = make_plan(goal, 0, size, Silent()).batching
        assert (batching.batch, batching.global_batch, batching.size) == (batch, 30, size)

    def test_by_another_launcher_it_is_a_run_like_others(self, tmp_path, monkeypatch):
        monkeypatch.delenv("HOROVOD_ELASTIC")
        settings = replace(self.SETTINGS, fixed_global_batch=True)
        run = RunFolder.create(tmp_path / "run", settings, 3)
        goal = read_goal(Request({}, run.path, resume=True), 2)
        assert (goal.settings.batch_size, goal.ranks) == (15, 2)
        with refused("cannot be shared by 4 ranks"):
            plan_resume(run, {}, 4)


class TestGoal:
    manifest: ClassVar = {"dataset": {"path": "where/it/was", "fingerprint": "abc"}, "more": [1]}

    @pytest.fixture
    def run(self, tmp_path):
        return RunFolder.create(tmp_path / "run", TrainSettings(epochs=3), 1)

    def test_of_a_new_run(self):
        goal = read_goal(Request({"data": "x", "seed": 2}), 1)
        assert goal == Goal(TrainSettings(data="x", seed=2), "x", None, 1)

    def test_of_a_run_that_has_not_begun(self, run):
        goal = read_goal(Request({}, run.path, resume=True), 1)
        assert goal == Goal(TrainSettings(epochs=3), None, None, 1)

    def test_of_a_run_that_has(self, tmp_path):
        settings = TrainSettings(epochs=3, data=str(tmp_path))
        run = RunFolder.create(tmp_path / "run", settings, 1)
        run.write_manifest(self.manifest)
        goal = read_goal(Request({}, run.path, resume=True), 1)
        assert goal == Goal(settings, "where/it/was", self.manifest, 1)

    def test_data_is_where_it_was_or_where_the_user_says(self, tmp_path):
        run = RunFolder.create(tmp_path / "run", TrainSettings(data="elsewhere"), 1)
        run.write_manifest(self.manifest)
        found = [
            read_goal(Request(changes, run.path, resume=True), 1).data
            for changes in ({}, {"data": "anew"})
        ]
        assert found == ["where/it/was", "anew"]

    @pytest.mark.parametrize("there", [True, False])
    def test_default_data_may_be_gone_from_the_cache(self, tmp_path, run, there):
        path = str(tmp_path if there else tmp_path / "gone")
        run.write_manifest({"dataset": {"path": path, "fingerprint": "abc"}})
        goal = read_goal(Request({}, run.path, resume=True), 1)
        assert goal.data == (path if there else None)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "null",
            "{}",
            '{"dataset": {"fingerprint": "abc"}}',
            '{"dataset": {"fingerprint": 1, "path": "x"}}',
            '{"dataset": {"fingerprint": "abc", "path": null}}',
            '{"dataset": "abc"}',
            '{"dataset": {}}',
        ],
    )
    def test_damaged_manifest(self, run, text):
        run.manifest.write_text(text)
        with pytest.raises(InputError, match=r"manifest\.json: not a run's manifest"):
            read_goal(Request({}, run.path, resume=True), 1)

    def test_missing_manifest(self, run):
        run.write_manifest(self.manifest)
        run.manifest.unlink()
        with pytest.raises(InputError, match=r"manifest\.json: not a run's manifest"):
            read_goal(Request({}, run.path, resume=True), 1)


class TestPlan:
    def test_default_data_is_the_cached_one(self, learnable_data, monkeypatch):
        asked = []

        def cached(settings, say):
            asked.append(settings)
            return learnable_data

        monkeypatch.setattr("tal1_hvd.training.plan.cached_dataset", cached)
        plan = make_plan(Goal(TrainSettings(), None, None, 1), 0, 1, Silent())
        assert asked == [SimulationSettings()]
        assert plan.goal.settings.data is None
        assert plan.dataset.path == learnable_data

    def test_other_data(self, learnable_data):
        manifest = {"dataset": {"path": "x", "fingerprint": "abc"}}
        goal = Goal(TrainSettings(), str(learnable_data), manifest, 1)
        with pytest.raises(InputError, match="is not the dataset that the run was started with"):
            make_plan(goal, 0, 1, Silent())
