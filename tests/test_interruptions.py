"""Signals are noted, and ranks look for interruptions as seldom as their cost asks for."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tal1_hvd.training import interruptions
from tal1_hvd.training.interruptions import Rhythm, Signals, Stopped


@pytest.fixture
def restored():
    """Leave signals as they are."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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

    def test_one_noted_around_the_block_counts_in_it(self):
        before = signal.getsignal(signal.SIGUSR1)
        with Signals([signal.SIGUSR1]):
            os.kill(os.getpid(), signal.SIGUSR1)
            with Signals() as signals:
                assert signals.received == signal.SIGUSR1
        assert signal.getsignal(signal.SIGUSR1) is before

    @pytest.mark.usefixtures("restored")
    def test_once_stopped_a_process_that_only_trains_ignores_them(self):
        # SIGTERM as well, which would have ended the process before training.
        with pytest.raises(Stopped), Signals([signal.SIGUSR1]), Signals():
            raise Stopped
        for number in (signal.SIGTERM, signal.SIGUSR1):
            assert signal.getsignal(number) is signal.SIG_IGN

    def test_once_stopped_other_processes_are_as_before(self):
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
        with pytest.raises(Stopped), Signals():
            raise Stopped
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before

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
