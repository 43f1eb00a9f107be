"""What a step costs each rank, and which rank is named as slow."""

from __future__ import annotations

import pytest

from tal1_hvd.training.rank_usage import RankUsage, Stragglers

MB = 1_000_000


def usages(*own_seconds, steps=100, seconds=10.0):
    """Return ranks' usages of as long an epoch, of which they need so much themselves."""
    return [
        RankUsage(rank, steps, seconds, seconds - own, 600 * MB, 0)
        for rank, own in enumerate(own_seconds)
    ]


class TestRankUsage:
    USAGE = RankUsage(1, 100, 2.0, 0.5, 600 * MB, 50 * MB)

    def test_own_part_of_a_step(self):
        assert self.USAGE.own_seconds == pytest.approx(0.015)
        assert RankUsage(0, 0, 0.0, 0.0, 0, 0).own_seconds == 0

    def test_words(self):
        assert self.USAGE.describe() == (
            "100 steps, 20.000 ms each, 25% waiting for other ranks; 600 MB, 50 MB of the GPU"
        )
        assert "GPU" not in usages(1.0)[0].describe()

    def test_event(self):
        assert RankUsage(1, 3, 1 / 3, 0.0, 5, 0).as_event() == {
            "rank": 1,
            "steps": 3,
            "seconds": 0.333333,
            "waited": 0.0,
            "memory": 5,
            "device_memory": 0,
        }

    def test_after(self):
        now = RankUsage(1, 3, 1.0, 0.25, 7, 0)
        assert now.after(self.USAGE) == RankUsage(1, 103, 3.0, 0.75, 7, 0)


class TestStragglers:
    def test_a_slow_rank_is_named_once(self):
        stragglers = Stragglers()
        assert stragglers.slow(usages(4.0, 8.0, 4.0)) == [
            "rank 1 is slow: its own part of a step takes 80.00 ms, 2.0 times as long as the "
            "median of the others, and all wait for it"
        ]
        assert stragglers.slow(usages(4.0, 8.0, 4.0)) == []
        assert stragglers.slow(usages(4.0, 4.0, 4.0)) == []
        assert len(stragglers.slow(usages(4.0, 8.0, 4.0))) == 1

    def test_short_epochs_are_added_up(self):
        """One that is slow by chance does not count, nor do less than 5 seconds."""
        stragglers = Stragglers()
        assert stragglers.slow(usages(0.5, 1.9, seconds=2.0)) == []
        assert stragglers.slow(usages(1.0, 1.0, seconds=2.0)) == []
        assert len(stragglers.slow(usages(0.5, 1.9, seconds=2.0))) == 1

    @pytest.mark.parametrize(
        "fair", [usages(4.0), usages(4.0, 5.9), usages(10.0, 10.0, 10.0), usages(5.0, 5.0, 5.0)]
    )
    def test_nobody_to_name(self, fair):
        """One rank, small differences, or no rank whose waiting is known."""
        assert Stragglers().slow(fair) == []
