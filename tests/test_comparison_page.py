"""The page about a comparison, and why the fastest way is, from results made up here."""

from __future__ import annotations

import pytest

from tal1_hvd.comparison.matrix import Way
from tal1_hvd.comparison.reason import reason
from tal1_hvd.comparison.results import find
from tal1_hvd.report.comparison_page import comparison_page
from tal1_hvd.report.page import write_page
from tests.test_comparison import PLAN, make_plan, outcome, step


def test_reason():
    ways = [Way("slow", 2), Way("fast", 2), Way("one", 1)]
    outcomes = [
        outcome(way, seconds=(time, time)) for way, time in zip(ways, (3, 1, 5), strict=True)
    ]
    steps = {"slow-2": step(all_reduce=250, input=60), "fast-2": step(), "one-1": step()}
    assert reason(find(outcomes, ways), steps) == (
        "Fastest: fast, 2 ranks, 4.00 s. The next, slow, 2 ranks, took 12.00 s. A step took 500 µs "
        "against 710 µs; the largest part of the difference, 200 µs, is what joins the ranks."
    )
    assert reason(find(outcomes, ways[2:]), steps) == "Fastest: one, 1 rank, 20.00 s."
    # Of other batches: what counts is the time of an example.
    assert reason(find(outcomes, ways[1:]), steps).endswith(
        "A step took 500 µs for 128 examples against 500 µs for 64 examples."
    )
    steps["slow-2"] = step(all_reduce=40)
    assert reason(find(outcomes, ways), steps).endswith(
        "Steps do not explain it: taken apart alone, one took 500 µs against 490 µs."
    )


def test_page_of_large_batches(tmp_path):
    plan = make_plan(seeds=1, ranks=(2,), large_batch=True)
    accuracies = {64: 0.97, 256: 0.966, 1024: 0.9, 4096: 0.97}
    outcomes = [
        outcome(cell.way, accuracies=(0.5, accuracies.get(cell.way.global_batch, 0.9)))
        for cell in plan.matrix.cells(1)
        # A training whose loss was not finite.
        if cell.way.name != "lars-square-root-1-batch256"
    ]
    page = comparison_page(plan, outcomes, {way.name: step() for way in plan.matrix.strategies})
    (section,) = (section for section in page.sections if section.title == "Large batches")
    (table,) = section.tables
    assert list(table.head) == ["rule", "64", "256", "1,024", "4,096", "as good up to"]
    assert list(table.rows[0]) == ["Adam, linear", "0.9700", "0.9660", "0.9000", "0.9700", "256"]
    assert list(table.rows[4])[1:] == ["0.9700", "-", "0.9000", "0.9700", "64"]
    write_page(page, tmp_path / "report.html", tmp_path / "figures")
    assert (tmp_path / "figures" / "large_batch.svg").exists()


def test_names_are_escaped(tmp_path):
    nasty = "<script>alert('x')</script>"
    plan = make_plan(data=nasty, processor=nasty)
    matrix = plan.matrix
    outcomes = [outcome(cell.way, cell.seed) for cell in matrix.cells(2)]
    for one in outcomes:
        one.metrics.update(strategy=nasty, aggregation=nasty, model=nasty)
    page = comparison_page(plan, outcomes, {way.name: step() for way in matrix.strategies})
    write_page(page, tmp_path / "report.html", tmp_path / "figures")
    text = (tmp_path / "report.html").read_text()
    assert text.count("&lt;script&gt;") == 2
    assert "<script" not in text


@pytest.mark.parametrize("published", [True, False])
def test_page(tmp_path, published):
    matrix = PLAN.matrix
    outcomes = [
        outcome(cell.way, cell.seed, published=published, more=cell.way.ranks == 4)
        for cell in matrix.cells(2)
    ]
    page = comparison_page(PLAN, outcomes, {way.name: step() for way in matrix.strategies})
    write_page(page, tmp_path / "report.html", tmp_path / "figures")
    text = (tmp_path / "report.html").read_text()
    for words in (
        "Horovod, 4 ranks (oversubscribed)",
        "say nothing about scaling",
        "Abacus 1000, 2 cores",
        "Scores of the test split",
    ):
        assert words in text
    for words in ("published, TPU", "The published times are of 50 epochs, these of 2."):
        assert (words in text) == published
    _, by_time = page.sections[1].figures["accuracy_by_time"]
    drawn = by_time.axes[0].get_legend_handles_labels()[1]
    assert len(drawn) == len(matrix.strategies) - 3
    assert not any("4 ranks" in name for name in drawn)
    weak, strong = page.sections[2].tables
    # Twice the rate on two ranks; more ranks than cores have no efficiency.
    assert [list(row[3:]) for row in weak.rows] == [
        ["1.00", "100%"],
        ["2.00", "100%"],
        ["4.00", "-"],
    ]
    assert [row[1] for row in strong.rows] == ["256"] * 3
