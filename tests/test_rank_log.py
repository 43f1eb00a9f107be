"""Each rank's log file."""

from __future__ import annotations

import logging
import os
import re

import pytest

from tal1_hvd.distributed.rank_log import LOG, rank_log
from tal1_hvd.errors import InputError


def test_every_line_says_who_and_when(tmp_path):
    folder = tmp_path / "made" / "logs"
    with rank_log(folder, 2, 4):
        LOG.info("epoch %d", 1)
        LOG.error("lost")
    with rank_log(folder, 2, 3):
        LOG.info("again")
    lines = (folder / "rank-2.log").read_text().splitlines()
    who = rf"{re.escape(os.uname().nodename)} {os.getpid()}"
    when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    for line, end in zip(
        lines,
        [
            f"rank 2/4 {who} INFO epoch 1",
            f"rank 2/4 {who} ERROR lost",
            f"rank 2/3 {who} INFO again",
        ],
        strict=True,
    ):
        assert re.fullmatch(f"{when} {end}", line)


def test_nothing_is_said_without_a_file(tmp_path, capsys):
    LOG.error("before")
    with rank_log(tmp_path, 0, 1):
        pass
    LOG.error("after")
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "rank-0.log").read_text() == ""
    assert LOG.level == logging.NOTSET


def test_a_full_disk_does_not_end_training(tmp_path, capsys):
    (tmp_path / "rank-0.log").symlink_to("/dev/full")
    with rank_log(tmp_path, 0, 1):
        LOG.info("lost")
    assert capsys.readouterr() == ("", "")


def test_cannot_be_made(tmp_path):
    (tmp_path / "logs").touch()
    refused = pytest.raises(InputError, match=r"logs/rank-0\.log: cannot be written: ")
    with refused, rank_log(tmp_path / "logs", 0, 1):
        pass
