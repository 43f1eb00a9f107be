"""Signals are noted, and ranks look for interruptions as seldom as their cost asks for."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tal1_hvd.training import interruptions
from tal1_hvd.training.interruptions import Rhythm, Signals


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
    def test_noted_within_the_block_alone(self, number):
        before = signal.getsignal(number)
        with Signals() as signals:
            assert signals.received == 0
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            assert signals.received == number
        assert signal.getsignal(number) is before

    def test_left_alone_in_other_threads(self):
        def block():
            with Signals() as signals:
                handlers.append(signal.getsignal(signal.SIGTERM))
                assert signals.received == 0

        handlers = []
        thread = threading.Thread(target=block)
        thread.start()
        thread.join()
        assert handlers == [signal.getsignal(signal.SIGTERM)]


class TestRhythm:
    @pytest.fixture
    def clock(self, monkeypatch):
        class Clock:
            now = 0.0

        monkeypatch.setattr(interruptions.time, "perf_counter", lambda: Clock.now)
        return Clock

    def test_costs_two_per_cent(self, clock):
        rhythm = Rhythm()
        assert rhythm.proposal == 1
        clock.now = 1.0
        assert rhythm.due()
        clock.now = 1.1
        rhythm.looked(1)
        # A call took 1 s and looking 0.1 s: 5 calls make it 2 %.
        assert rhythm.proposal == 5
        assert rhythm.due()
        rhythm.looked(3)
        assert [rhythm.due() for _ in range(3)] == [False, False, True]

    def test_slow_calls_look_each_time(self, clock):
        rhythm = Rhythm()
        clock.now = 100.0
        assert rhythm.due()
        clock.now = 100.001
        rhythm.looked(1)
        assert rhythm.proposal == 1
