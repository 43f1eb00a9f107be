"""The first thing done for a run: its folder, and that a refused request leaves none."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from tal1_hvd.errors import InputError
from tal1_hvd.training import begin as module
from tal1_hvd.training.begin import Begun, Request, begin
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.settings import TrainSettings, read_settings
from tests.helpers import names


class TestBegin:
    def test_notes_the_settings(self, tmp_path):
        begun = begin(Request({"epochs": 3}, tmp_path / "a" / "run"), 4)
        made = (tmp_path / "a" / "run", tmp_path / "a")
        assert begun == Begun(RunFolder(tmp_path / "a" / "run"), True, made)
        assert read_settings(begun.folder.config) == (TrainSettings(epochs=3), 4)
        assert not begun.folder.has_begun()

    def test_without_a_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        begun = begin(Request({"seed": 5}), 1)
        assert names(tmp_path / "runs") == [begun.folder.path.name]
        assert begun.folder.path.name.startswith("paper-seed5-")
        begun.take_back()
        assert not names(tmp_path)

    def test_two_runs_in_a_second(self, tmp_path, monkeypatch):
        class Noon(datetime):
            @classmethod
            def now(cls, zone):
                return cls(2026, 1, 2, 12, tzinfo=zone)

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(module, "datetime", Noon)
        folders = [begin(Request({}), 1).folder.path for _ in range(2)]
        name = "paper-seed0-20260102-120000"
        assert folders == [Path("runs", name), Path("runs", f"{name}-{os.getpid()}")]

    def test_data_is_noted_by_its_absolute_path(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        begun = begin(Request({"data": "d"}, Path("run")), 1)
        assert read_settings(begun.folder.config)[0].data == str(tmp_path / "d")

    def test_resume_takes_the_run_that_is_there(self, tmp_path):
        begin(Request({"epochs": 3}, tmp_path / "run"), 2)
        begun = begin(Request({"epochs": 5}, tmp_path / "run", resume=True), 1)
        assert begun == Begun(RunFolder(tmp_path / "run"))
        assert read_settings(begun.folder.config) == (TrainSettings(epochs=3), 2)

    @pytest.mark.parametrize("there", [True, False])
    def test_resume_starts_a_run_whose_data_is_named(self, tmp_path, there):
        if there:
            (tmp_path / "run").mkdir()
        begun = begin(Request({"data": "x"}, tmp_path / "run", resume=True), 1)
        assert begun.new
        assert read_settings(begun.folder.config)[0].data == str(Path("x").absolute())

    def test_resume_starts_a_run_on_ranks_of_a_job(self, tmp_path):
        assert begin(Request({}, tmp_path / "run", resume=True), 2, job=True).new
        assert read_settings(tmp_path / "run" / "config.yaml") == (TrainSettings(), 2)

    @pytest.mark.parametrize("changes", [{}, {"epochs": 2}])
    def test_resume_of_nothing(self, tmp_path, changes):
        with pytest.raises(InputError, match=r"no run to resume here.*give --data, or leave"):
            begin(Request(changes, tmp_path / "run", resume=True), 1)
        assert not names(tmp_path)

    @pytest.mark.parametrize("job", [False, True])
    @pytest.mark.parametrize("changes", [{}, {"data": "x"}])
    def test_resume_of_something_else(self, tmp_path, changes, job):
        (tmp_path / "file").touch()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "labels.npy").touch()
        for name in ("file", "run"):
            with pytest.raises(InputError, match=r"no run to resume here.*choose another --out"):
                begin(Request(changes, tmp_path / name, resume=True), 1, job)
        assert names(tmp_path / "run") == ["labels.npy"]

    def test_resume_without_a_name(self):
        with pytest.raises(InputError, match="--resume: name the run to go on with in --out"):
            begin(Request({}, None, resume=True), 1)

    def test_run_is_there_already(self, tmp_path):
        begin(Request({"epochs": 3}, tmp_path / "run"), 1)
        with pytest.raises(InputError, match="run: exists already and holds a run; go on with it"):
            begin(Request({"epochs": 4}, tmp_path / "run"), 1)
        assert read_settings(tmp_path / "run" / "config.yaml")[0].epochs == 3

    def test_folder_with_other_files(self, tmp_path):
        (tmp_path / "precious").touch()
        with pytest.raises(InputError, match="exists already; choose another name"):
            begin(Request({}, tmp_path), 1)
        assert names(tmp_path) == ["precious"]

    def test_refused_settings(self, tmp_path):
        with pytest.raises(InputError, match="--epochs: must be at least 1"):
            begin(Request({"epochs": 0}, tmp_path / "a" / "run"), 1)
        assert not names(tmp_path)


class TestTakeBack:
    def test_leaves_nothing(self, tmp_path):
        (tmp_path / "a").mkdir()
        begin(Request({}, tmp_path / "a" / "b" / "c" / "run"), 1).take_back()
        assert not names(tmp_path / "a")

    def test_leaves_what_else_is_there(self, tmp_path):
        begun = begin(Request({}, tmp_path / "a" / "run"), 1)
        (tmp_path / "a" / "other").touch()
        begun.take_back()
        assert names(tmp_path / "a") == ["other"]

    def test_keeps_a_folder_that_was_there(self, tmp_path):
        (tmp_path / "empty").mkdir(mode=0o750)
        (tmp_path / "link").symlink_to("empty")
        for name in ("empty", "link"):
            begin(Request({}, tmp_path / name), 1).take_back()
            assert names(tmp_path) == ["empty", "link"]
            assert not names(tmp_path / "empty")
        assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o750

    def test_keeps_what_somebody_put_there(self, tmp_path):
        begun = begin(Request({}, tmp_path / "run"), 1)
        (tmp_path / "run" / "notes.txt").touch()
        begun.take_back()
        assert names(tmp_path / "run") == ["notes.txt"]

    def test_keeps_a_run_that_has_begun(self, tmp_path):
        begun = begin(Request({}, tmp_path / "run"), 1)
        begun.folder.write_manifest({})
        begun.take_back()
        assert begun.folder.config.exists()

    def test_keeps_a_run_that_another_process_trains(self, tmp_path):
        begun = begin(Request({}, tmp_path / "run"), 1)
        with begun.folder.lock():
            begun.take_back()
        assert begun.folder.config.exists()

    def test_keeps_a_run_that_was_there_before(self, tmp_path):
        begin(Request({}, tmp_path / "run"), 1)
        begin(Request({}, tmp_path / "run", resume=True), 1).take_back()
        assert names(tmp_path / "run") == ["config.yaml"]


class TestExpected:
    def test_default(self):
        assert Request({}).expected() == (TrainSettings(), None)

    def test_given(self, tmp_path):
        expected = TrainSettings(stall_timeout=0.0), None
        assert Request({"stall_timeout": 0.0}, tmp_path, resume=True).expected() == expected

    def test_of_a_resumed_run(self, tmp_path):
        begin(Request({"stall_timeout": 7.0, "seed": 3}, tmp_path / "run"), 2)
        request = Request({"seed": 4}, tmp_path / "run", resume=True)
        assert request.expected() == (TrainSettings(stall_timeout=7.0, seed=4), 2)

    def test_damaged_run(self, tmp_path):
        (tmp_path / "config.yaml").write_text("ranks: many")
        assert Request({}, tmp_path, resume=True).expected() == (TrainSettings(), None)

    def test_wrong_settings(self):
        assert Request({"epochs": 0, "seed": 2}).expected() == (TrainSettings(), None)
