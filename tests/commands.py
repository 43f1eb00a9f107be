"""Runs the command line, in this process and in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tal1_hvd.cli.main import main
from tal1_hvd.training import meeting

MODULE = [sys.executable, "-m", "tal1_hvd"]


def call(*words: object) -> int | str | None:
    """Run a command in this process; exits asked for by argparse count as its return value."""
    try:
        return main([str(word) for word in words])
    except SystemExit as stopped:
        return stopped.code


@contextmanager
def tensorflow_as_it_is() -> Iterator[None]:
    """Train without setting TensorFlow up, which a process can do once, before all other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meeting, "start_tensorflow", lambda threads, local_rank, graphs: "CPU")
        yield


def environment_of_users() -> dict[str, str]:
    """Return an environment in which output is buffered, and 80 columns wide."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    environment["COLUMNS"] = "80"
    return environment


def start(command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own, buffered as for users, in 80 columns."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        [str(word) for word in command],
        text=True,
        check=False,
        timeout=120,
        env=environment_of_users(),
        **options,
    )
