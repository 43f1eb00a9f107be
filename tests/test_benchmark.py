"""The benchmark's arithmetic by hand, and the command for real on little data."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest

from tal1_hvd.benchmark import contest
from tal1_hvd.benchmark.breakdown import PARTS, parts_of
from tal1_hvd.benchmark.contest import BASELINE, Plan, Timing
from tal1_hvd.benchmark.results import summarise, write_results
from tal1_hvd.data.dataset_writer import create_dataset
from tal1_hvd.errors import InputError
from tests.jobs import BIN, run


def plan(**changes):
    return Plan("data", 1000, **{"epochs": 6, "less": 1, "repeats": 2, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"less": 0}, "--less"),
        ({"less": 6}, "--less"),
        ({"epochs": 1}, "--less"),
        ({"repeats": 0}, "--repeats"),
    ],
)
def test_plan_that_measures_nothing(changes, words):
    with pytest.raises(InputError, match=words):
        plan(**changes)


def test_time_of_epochs_alone(monkeypatch):
    """5 epochs of 1,000 sequences more: 10 s by the baseline, 0.5 s and 0.25 s by ours."""
    told = []
    rates = {BASELINE: 2.0, "1 rank": 0.1, "2 ranks": 0.05}

    def train(name):
        def timing(epochs):
            accuracy = [0.5, 0.96] if name == "1 rank" else [0.5, 0.6]
            elapsed = [rates[name] * (epoch + 1) for epoch in range(epochs)]
            return Timing(7.0 + rates[name] * epochs, 100.0 * epochs, accuracy, elapsed)

        return timing

    monkeypatch.setattr(contest, "contestants", lambda plan: {n: train(n) for n in rates})
    rows = contest.run(plan(), told.append)
    assert len(told) == 2 * len(rows) == 12
    assert [row["contestant"] for row in rows[:3]] == list(rates)
    assert [row["repeat"] for row in rows] == [1, 1, 1, 2, 2, 2]
    assert rows[0]["microseconds"] == pytest.approx(2000)
    assert rows[2]["examples_per_second"] == pytest.approx(20_000)
    assert rows[1]["seconds"] == pytest.approx(7.6)
    assert [row["seconds_to_target"] for row in rows[:3]] == [None, pytest.approx(0.2), None]
    assert rows[0]["peak_mb"] == 600
    found = summarise(rows, (1, 2))
    assert found[BASELINE]["efficiency"] is None
    assert found["1 rank"]["efficiency"] == pytest.approx(1)
    assert found["2 ranks"]["efficiency"] == pytest.approx(1)
    assert found[BASELINE]["ratio"] == pytest.approx(1)
    assert found["1 rank"]["ratio"] == pytest.approx(20)
    assert found["2 ranks"]["ratio_high"] == pytest.approx(40)
    assert found["2 ranks"]["seconds_to_target"] is None


@pytest.mark.parametrize(
    "seconds", [{1: 3.0, 6: 3.0}, {1: 4.0, 6: 3.0}, {1: 1.0, 6: 3.0}, {1: 0.0, 6: 3.0 + 8.0}]
)
def test_too_little_to_measure(monkeypatch, seconds):
    """Noise as large as the epochs' time costs that figure, not the whole benchmark."""

    def train(epochs):
        return Timing(seconds[epochs], 100.0, [0.5], [float(epoch + 1) for epoch in range(epochs)])

    monkeypatch.setattr(contest, "contestants", lambda plan: {BASELINE: train})
    told = []
    rows = contest.run(plan(repeats=1), told.append)
    assert "does not count: 5 epochs more took" in told[2]
    assert "5.0 s by its own" in told[2]
    assert rows[0]["microseconds"] is None
    found = summarise(rows, ())[BASELINE]
    assert found["microseconds"] is found["ratio"] is found["ratio_low"] is None
    assert found["seconds"] == seconds[6]


def test_what_was_not_measured_is_left_out():
    figures = dict.fromkeys(("examples_per_second", "seconds", "peak_mb"), 1.0)
    rows = [
        {"contestant": name, "microseconds": time, "seconds_to_target": None, **figures}
        for name, time in ((BASELINE, 100.0), ("1 rank", None), (BASELINE, 90.0), ("1 rank", 9.0))
    ]
    found = summarise(rows, (1,))["1 rank"]
    assert (found["ratio_low"], found["ratio"], found["ratio_high"]) == (10, 10, 10)
    assert found["microseconds"] == 9


def test_ratios_are_those_of_the_same_turn():
    """A machine that becomes twice as slow in the second turn leaves them as they are."""
    figures = dict.fromkeys(("examples_per_second", "seconds", "peak_mb"), 1.0)
    rows = [
        {"contestant": name, "microseconds": time * slow, "seconds_to_target": None, **figures}
        for slow in (1, 2)
        for name, time in ((BASELINE, 100.0), ("1 rank", 10.0))
    ]
    found = summarise(rows, (1,))["1 rank"]
    assert (found["ratio_low"], found["ratio"], found["ratio_high"]) == (10, 10, 10)
    assert found["microseconds"] == 15


def test_efficiency_is_that_of_the_same_turn():
    """2 ranks that are 1.5 times as fast as 1 rank use 75 % of what they could."""
    figures = dict.fromkeys(("examples_per_second", "seconds", "peak_mb"), 1.0)
    times = {BASELINE: 100.0, "1 rank": 12.0, "2 ranks": 8.0}
    rows = [
        {"contestant": name, "microseconds": time * slow, "seconds_to_target": None, **figures}
        for slow in (1, 3)
        for name, time in times.items()
    ]
    found = summarise(rows, (1, 2))
    assert found["2 ranks"]["efficiency"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("ranks", "alone", "expected"),
    [
        (1, 390, [500, 300, 175, 0, 25]),
        (2, 400, [500, 300, 100, 75, 25]),
        (2, 290, [500, 300, 0, 185, 25]),
    ],
)
def test_parts_of_a_step(ranks, alone, expected):
    """One rank reduces nothing; noise that makes a part negative makes it 0."""
    times = {"whole": 475, "alone": alone, "first_layer": 300, "input": 25}
    assert list(parts_of(times, ranks).values()) == expected


def test_results_without_a_measured_time(tmp_path):
    """Everything was written and drawn although noise hid the times."""
    row = {
        "repeat": 1,
        "contestant": "1 rank",
        "microseconds": None,
        "examples_per_second": None,
        "seconds": 3.0,
        "seconds_to_target": None,
        "peak_mb": 100.0,
    }
    rows = [{**row, "contestant": BASELINE}, row]
    parts = {"1 rank": {"step": 400.0, **dict.fromkeys(PARTS, 100.0)}}
    write_results(tmp_path, plan(), rows, summarise(rows, (1,)), parts)
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert report["summary"]["1 rank"]["ratio"] is None
    assert report["step"] == parts


@pytest.mark.slow
@pytest.mark.parametrize("module", ["plain_keras", "plain_pytorch"])
def test_plain_training(tmp_path, module):
    """It tells poly-A from poly-T; the clock begins at the end of the first step."""
    if module == "plain_pytorch":
        pytest.importorskip("torch", reason="PyTorch is not installed; it is no requirement")
    labels, splits = np.arange(512) % 2, np.repeat([0, 1], [384, 128])
    with create_dataset(tmp_path / "data", 512, 100) as writer:
        writer.put(0, np.repeat(3 * labels[:, None], 100, axis=1).astype(np.uint8))
        writer.finish(
            labels=labels,
            splits=splits,
            ids=[f"s{i}" for i in range(512)],
            task="imported",
            parameters={},
            seed=0,
        )
    out = tmp_path / "course.json"
    flags = ["--data", tmp_path / "data", "--epochs", "30", "--seed", "1", "--out", out]
    ended = run([sys.executable, "-m", f"tal1_hvd.benchmark.{module}", *flags])
    assert ended.returncode == 0, ended.stderr
    course = json.loads(out.read_text())
    assert len(course["accuracy"]) == len(course["seconds"]) == 30
    assert course["accuracy"][-1] == 1
    assert 0 < course["seconds"][0] < course["seconds"][-1]


@pytest.mark.parametrize("installed", [False, True])
def test_pytorch_takes_part_where_it_is_installed(monkeypatch, installed):
    monkeypatch.setattr(contest, "find_spec", lambda name: name if installed else None)
    names = [BASELINE, *["pytorch"] * installed, "1 rank", "2 ranks"]
    assert list(contest.contestants(plan())) == names


@pytest.mark.mpi
@pytest.mark.slow
def test_command(small_data, tmp_path):
    out = tmp_path / "out"
    flags = ["--data", small_data, "--epochs", 3, "--less", 1, "--repeats", 1, "--ranks", 2]
    ended = run([BIN / "tal1-hvd", "benchmark", *map(str, flags), "--out", out])
    assert ended.returncode == 0, ended.stderr
    for name in ("keras", "1 rank", "2 ranks"):
        assert name in ended.stdout
    report = json.loads((out / "benchmark.json").read_text())
    assert report["plan"]["epochs"] == 3
    assert set(report["summary"]) == {"keras", "1 rank", "2 ranks"}
    for name in ("1 rank", "2 ranks"):
        assert set(report["step"][name]) == {"step", *PARTS}
    assert report["step"]["1 rank"]["all_reduce"] == 0
    assert (out / "benchmark.png").stat().st_size > 0
    with (out / "benchmark.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == 3


def test_output_that_exists(small_data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    command = [BIN / "python", "-m", "tal1_hvd", "benchmark", "--ranks", "1"]
    ended = run([*command, "--data", small_data, "--out", tmp_path / "out"])
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "exists already" in ended.stderr


@pytest.mark.parametrize("flags", [["--seed", "-1"], ["--less", "60"], ["--ranks", "x"]])
def test_bad_flags_cost_no_time(small_data, flags):
    command = [BIN / "python", "-m", "tal1_hvd", "benchmark", "--data", small_data]
    ended = run([*command, "--ranks", "1", *flags])
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert flags[0] in ended.stderr
