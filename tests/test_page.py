"""Pages: self-contained, escaped, the same each time."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tal1_hvd.report import figures
from tal1_hvd.report.page import Page, Section, Table, write_page
from tests.helpers import names

NASTY = "<script>alert('x')</script>&\"$\\frac$"


def make_page(word="plain"):
    drawn = {
        "one": (word, figures.lines({word: ([1, 2], [3, 4])}, word, "up")),
        "two": ("other", figures.bars({"a": 1.0, "b": 2.0}, "seconds", {"a": [0.9, 1.1]})),
    }
    tables = [Table(["", word], [[word, "1"]]), Table([], [[word, word]])]
    return Page(word, word, {word: word}, [Section(word, [word], tables, drawn)])


class Reader(HTMLParser):
    """Notes elements, and what would be loaded."""

    def __init__(self):
        super().__init__()
        self.tags, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [v for k, v in attrs if k in ("src", "href", "xlink:href")]


def read(path):
    reader = Reader()
    reader.feed(path.read_text())
    return reader


@pytest.fixture
def written(tmp_path):
    write_page(make_page(), tmp_path / "report.html", tmp_path / "figures")
    return tmp_path


def test_files(written):
    assert names(written) == ["figures", "report.html"]
    assert names(written / "figures") == ["one.png", "one.svg", "two.png", "two.svg"]
    assert (written / "figures" / "one.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_loaded(written):
    reader = read(written / "report.html")
    assert reader.tags.count("svg") == 2
    assert not {"script", "link", "img", "iframe", "object"} & set(reader.tags)
    # Within the page.
    assert all(load.startswith("#") for load in reader.loads)
    assert "@import" not in (written / "report.html").read_text()


def test_identifiers_that_are_referred_to_are_one_figures(written):
    text = (written / "report.html").read_text()
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert referred
    for name in referred:
        assert text.count(f'id="{name}"') == 1, name


def test_names_are_escaped(tmp_path):
    write_page(make_page(NASTY), tmp_path / "report.html", tmp_path / "figures")
    reader = read(tmp_path / "report.html")
    assert "script" not in reader.tags
    assert "&lt;script&gt;alert" in (tmp_path / "report.html").read_text()


def test_same_page_twice(written, tmp_path):
    before = {path: path.read_bytes() for path in written.rglob("*.*") if path.is_file()}
    write_page(make_page(), tmp_path / "report.html", tmp_path / "figures")
    assert {path: path.read_bytes() for path in before} == before
