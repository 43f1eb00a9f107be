"""Settings of a simulation: the published defaults, and what is refused and how."""

import dataclasses
import math

import pytest

from tal1_hvd.errors import InputError
from tal1_hvd.simulation.settings import TASK_SUMMARIES, SimulationSettings


def test_defaults_are_the_published_experiment():
    assert dataclasses.asdict(SimulationSettings()) == {
        "task": "density-localization",
        "motifs": ("TAL1_known4",),
        "motif_file": None,
        "length": 1500,
        "center": 150,
        "min_sites": 2,
        "max_sites": 4,
        "min_spacing": 2,
        "max_spacing": 5,
        "gc": 0.4,
        "positives": 10_000,
        "negatives": 10_000,
        "seed": 0,
    }


def test_settings_cannot_be_changed_after_their_check():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SimulationSettings().length = 0


@pytest.mark.parametrize("task", TASK_SUMMARIES)
def test_every_task_is_accepted(task):
    assert SimulationSettings(task=task).task == task


@pytest.mark.parametrize(
    "settings",
    [
        {"gc": 0.0},
        {"gc": 1.0},
        {"seed": 0},
        {"min_sites": 1, "max_sites": 1},
        {"min_spacing": 0, "max_spacing": 0},
        {"length": 150, "center": 150},
        {"positives": 1, "negatives": 1},
    ],
)
def test_limits_are_accepted(settings):
    SimulationSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task": "density"}, ["--task", "'density'", *TASK_SUMMARIES]),
        ({"length": 0}, ["--length", "between 1 and 1,000,000,000", "got 0"]),
        ({"center": 0}, ["--center", "between 1 and 1,000,000,000", "got 0"]),
        ({"center": -3}, ["--center", "between 1 and 1,000,000,000", "got -3"]),
        ({"min_sites": 0}, ["--min-sites", "between 1 and 1,000,000,000", "got 0"]),
        ({"positives": 0}, ["--positives", "between 1 and 1,000,000,000", "got 0"]),
        ({"negatives": -1}, ["--negatives", "between 1 and 1,000,000,000", "got -1"]),
        ({"min_spacing": -1}, ["--min-spacing", "not be negative", "got -1"]),
        ({"seed": -1}, ["--seed", "not be negative", "got -1"]),
        ({"min_sites": 5}, ["--min-sites", "5 is more than", "--max-sites, 4"]),
        ({"max_sites": 1}, ["--min-sites", "2 is more than", "--max-sites, 1"]),
        ({"min_spacing": 6}, ["--min-spacing", "6 is more than", "--max-spacing, 5"]),
        ({"gc": -0.1}, ["--gc", "between 0 and 1", "-0.1"]),
        ({"gc": 1.1}, ["--gc", "between 0 and 1", "1.1"]),
        ({"gc": math.nan}, ["--gc", "between 0 and 1", "nan"]),
        ({"length": 149}, ["--center", "150 bp", "--length", "149 bp"]),
    ],
)
def test_refusals_name_the_option_what_is_wanted_and_what_was_given(settings, words):
    with pytest.raises(InputError) as refusal:
        SimulationSettings(**settings)
    assert [word for word in words if word not in str(refusal.value)] == []


@pytest.mark.parametrize("task", sorted(set(TASK_SUMMARIES) - {"density-localization"}))
def test_center_is_not_asked_for_where_no_task_uses_it(task):
    # The default centre of 150 bp means nothing to these tasks.
    assert SimulationSettings(task=task, length=100).length == 100
