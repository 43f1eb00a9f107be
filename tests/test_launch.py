"""How many ranks to start, and what is missing to start them."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tal1_hvd.distributed import launch
from tal1_hvd.distributed.launch import find_launcher, launch_ranks, ranks_from
from tal1_hvd.errors import InputError


@pytest.mark.parametrize(("text", "ranks"), [("1", 1), ("2", 2), ("16", 16), ("007", 7)])
def test_number(text, ranks):
    assert ranks_from(text) == ranks


@pytest.mark.parametrize(("cores", "ranks"), [(1, 1), (2, 2), (4, 4), (5, 4), (128, 4)])
def test_auto_is_a_rank_a_core_and_at_most_4(monkeypatch, cores, ranks):
    monkeypatch.setattr(launch, "usable_cores", lambda: cores)
    assert ranks_from("auto") == ranks


@pytest.mark.parametrize(
    "text", ["0", "00", "-1", "+2", "2.0", "1e1", "", " 2", "2 ", "Auto", "all", "²", "٢", "0x2"]
)
def test_neither(text):
    with pytest.raises(InputError) as caught:
        ranks_from(text)
    assert str(caught.value) == f"--ranks: expected a number above 0 or auto, got {text!r}"


def test_horovod_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    with pytest.raises(InputError, match="--ranks: several ranks need Horovod; launch/setup"):
        find_launcher(2)


def test_no_launcher_is_installed(monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(launch, "_program", lambda name: None)
    with pytest.raises(InputError, match="--ranks: found neither mpirun nor horovodrun"):
        find_launcher(2)


@pytest.fixture
def interrupts():
    """As in a terminal, wherever the tests run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def program(usr1: str, term: str) -> list[str]:
    """Return what says two lines, and does something upon signals."""
    text = f"import os, signal; signal.signal(10, {usr1}); signal.signal(15, {term})"
    text += "; print('connected'); print('training', flush=True)"
    return [sys.executable, "-I", "-S", "-c", f"{text}\nwhile True: signal.pause()"]


def test_ranks_are_asked_to_stop_upon_an_interrupt(interrupts):
    """The program ends with 0, so the request reached it, and it was not ended."""

    def handle(line: str) -> bool:
        if line == "training\n":
            interrupts()
        return True

    asked = program("lambda *_: os._exit(0)", "signal.SIG_DFL")
    assert launch_ranks(asked, {}, handle, lambda: None) == 0
    asked = program("lambda *_: os._exit(75)", "signal.SIG_DFL")
    with pytest.raises(KeyboardInterrupt):
        launch_ranks(asked, {}, handle, lambda: None)


@pytest.mark.timeout(60)
def test_a_second_interrupt_ends_what_does_not_end(interrupts, monkeypatch):
    monkeypatch.setattr(launch, "_LET_IT_END", 0.1)

    def handle(line: str) -> bool:
        if line == "training\n":
            interrupts()
            interrupts()
        return True

    stays = program("signal.SIG_IGN", "signal.SIG_IGN")
    with pytest.raises(KeyboardInterrupt):
        launch_ranks(stays, {}, handle, lambda: None)
