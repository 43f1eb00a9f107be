"""The page about more ranks than there are here, from times made up by the model itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tal1_hvd.benchmark.cost_model import Constants, Network, efficiency, step_time

TRUE = Constants(fixed=40.0, per_example=8.0, overhead=150.0, parameters=1_246)
HERE = Network("here", latency=2.0, bandwidth=3_000.0)


@pytest.fixture(scope="module")
def scaling():
    path = Path(__file__).parent.parent / "benchmarks" / "scaling.py"
    spec = importlib.util.spec_from_file_location("scaling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def times(scaling):
    """Return the steps of two ranks, and their computing, as the model has them."""
    steps = {point: step_time(TRUE, point.step, 2, HERE) for point in scaling.POINTS}
    return steps, {point: step_time(TRUE, point.step, 1, HERE) for point in scaling.POINTS}


def test_constants_are_found_again(scaling):
    found = scaling.fit(*times(scaling), HERE)
    for name in ("fixed", "per_example", "overhead", "parameters"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name))


def test_page(scaling):
    steps, _ = times(scaling)
    # One point that the constants are not from is measured twice as long as the model has it.
    steps[scaling.Point(16)] *= 2
    text = scaling.document(steps, TRUE, HERE, 3)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if "| batch" in line]
    assert {row[0]: row[-1] for row in rows[:6]} == {
        "batch 64": "fitted",
        "batch 1,024": "fitted",
        "batch 16": "-50%",
        "batch 256": "+0%",
        "batch 64, 4 passes": "+0%",
        "batch 64, fp16": "+0%",
    }
    # 50, 0, 0 and 0 %.
    assert "the mean absolute error is 12 %, the largest -50 %" in text
    network = scaling.NETWORKS[0]
    two = efficiency(TRUE, scaling.Step(), 2, network)
    assert f"| {network.name}, ring | {two:.0%} |" in text
    for algorithm in ("ring", "tree", "parameter server"):
        assert f"| {network.name}, {algorithm} |" in text
