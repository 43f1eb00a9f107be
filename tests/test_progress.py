"""How far a run has come, by hand."""

from __future__ import annotations

import math

import pytest

from tal1_hvd.training.checkpoint import Progress


class TestProgress:
    def after(self, *losses):
        progress = Progress()
        for i, loss in enumerate(losses):
            progress = progress.after_epoch({"validation_loss": loss}, float(i + 1))
        return progress

    @pytest.mark.parametrize(
        ("losses", "best"),
        [
            ([], (0, None)),
            ([0.5], (1, 0.5)),
            ([0.5, 0.4, 0.6], (2, 0.4)),
            ([0.5, 0.5], (1, 0.5)),
            ([0.5, 0.4, 0.4, 0.3], (4, 0.3)),
            ([0.5, math.nan], (1, 0.5)),
            ([math.inf, 0.7], (2, 0.7)),
        ],
    )
    def test_best_epoch(self, losses, best):
        progress = self.after(*losses)
        assert (progress.best_epoch, progress.best_loss) == best
        assert progress.epoch == len(progress.history) == len(losses)
        assert progress.train_seconds == len(losses)

    def test_history_grows_in_a_copy(self):
        first = self.after(0.5)
        second = first.after_epoch({"validation_loss": 0.4}, 2.0)
        assert first.history == [{"validation_loss": 0.5}]
        assert second.history == [{"validation_loss": 0.5}, {"validation_loss": 0.4}]

    @pytest.mark.parametrize(
        ("losses", "epochs", "patience", "finished"),
        [
            ([], 1, None, False),
            ([], 1, 1, False),
            ([0.5], 1, None, True),
            ([0.5], 2, None, False),
            ([0.5] * 9, 10, None, False),
            ([0.5, 0.4], 10, 1, False),
            ([0.5, 0.5], 10, 1, True),
            ([0.5, 0.6], 10, 2, False),
            ([0.5, 0.6, 0.7], 10, 2, True),
            ([0.5, 0.6, 0.4, 0.5], 10, 2, False),
            ([0.5, 0.4, 0.3], 2, None, True),
        ],
    )
    def test_finished(self, losses, epochs, patience, finished):
        assert self.after(*losses).finished(epochs, patience) is finished

    def test_sums_go_on_where_they_were(self):
        progress = Progress(sums=[[1.5, 3.0], [2.0, 4.0]])
        assert [progress.sums_of(process, 2) for process in (0, 1)] == [(1.5, 3), (2.0, 4)]
        # Of other processes, the first takes all.
        assert [progress.sums_of(process, 3) for process in (0, 1, 2)] == [(3.5, 7), (0, 0), (0, 0)]
        assert progress.sums_of(0, 1) == (3.5, 7)
        assert Progress().sums_of(0, 1) == Progress().sums_of(1, 2) == (0, 0)

    def test_ahead_of_another_global_batch(self):
        # 10 steps of 192 examples and 5 of 128, then steps of 128: as if 640 more had been seen.
        progress = Progress(steps=15, seen=10 * 192 + 5 * 128)
        assert progress.ahead(128) == 640
        assert progress.ahead(192) == -320

    def test_words(self):
        assert Progress(epoch=3).describe() == "epoch 3"
        assert Progress(epoch=3, examples=1280).describe() == (
            "epoch 3 and 1,280 examples of the next"
        )
