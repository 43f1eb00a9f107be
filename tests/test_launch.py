"""How many ranks to start, and what is missing to start them."""

from __future__ import annotations

import sys

import pytest

from tal1_hvd.distributed import launch
from tal1_hvd.distributed.launch import find_launcher, ranks_from
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
