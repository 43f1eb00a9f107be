"""Planted sites as a dataset's file has them."""

from __future__ import annotations

import pytest

from tal1_hvd.data.sites import Site, read_sites
from tal1_hvd.errors import InputError


def test_sites(tmp_path):
    file = tmp_path / "sites.bed"
    file.write_text("p0\t1\t3\tTAL1\t0\t+\np 1\t0\t2\tGATA 1\t0\t-\n")
    assert read_sites(file) == [Site("p0", 1, 3, "TAL1", "+"), Site("p 1", 0, 2, "GATA 1", "-")]


@pytest.mark.parametrize(
    "line", [b"p0\n", b"p0\tx\t2\tm\t0\t+\n", b"\xff\n", b"p0\t1\t" + b"9" * 5000 + b"\tm\t0\t+\n"]
)
def test_damaged(tmp_path, line):
    file = tmp_path / "sites.bed"
    file.write_bytes(line)
    with pytest.raises(InputError) as caught:
        read_sites(file)
    assert str(caught.value).startswith(f"{file}: cannot be read")


def test_missing(tmp_path):
    with pytest.raises(InputError, match=r"sites\.bed: cannot be read: "):
        read_sites(tmp_path / "sites.bed")
