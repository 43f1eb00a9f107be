"""Reading FASTA as it comes in practice, and telling what is wrong with it."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal1_hvd.data.fasta import Record, open_text, read_fasta, write_fasta
from tests.helpers import refused

properties = settings(derandomize=True, deadline=None, max_examples=80)
REAL = Path(__file__).parents[2] / "shared" / "data"

TWO = b">a first one\nACGT\nAC\n>b\nNN\n"
TWO_RECORDS = [Record("a", "a first one", "ACGTAC", 1), Record("b", "b", "NN", 4)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fasta") / "input"


def stand_in_for_stdin(monkeypatch, content):
    raw = io.BufferedReader(io.BytesIO(content))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))


def read_bytes(path, content):
    path.write_bytes(content)
    return list(read_fasta(path))


words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)
headers = st.lists(words, min_size=1, max_size=3).map(" ".join)
sequences = st.text("ACGTNacgtnRYK*-", min_size=1, max_size=30)
blank_lines = st.lists(st.sampled_from(["", " ", "\t"]), max_size=2)


@st.composite
def layouts(draw):
    """Draw records, and lines that hold them in some legal layout."""
    lines, records = [], []
    for header, sequence in draw(
        st.lists(st.tuples(headers, sequences), min_size=1, max_size=4, unique_by=lambda r: r[0])
    ):
        lines += draw(blank_lines)
        lines.append(f">{header}")
        records.append(Record(header.split()[0], header, sequence, len(lines)))
        width = draw(st.integers(1, 31))
        for start in range(0, len(sequence), width):
            lines += draw(blank_lines)
            lines.append(sequence[start : start + width])
    return lines + draw(blank_lines), records


@properties
@given(layouts(), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.booleans())
def test_any_layout_reads_the_same(scratch, layout, newline, ends_with_newline, zipped):
    lines, records = layout
    content = (newline.join(lines) + newline * ends_with_newline).encode()
    assert read_bytes(scratch, gzip.compress(content) if zipped else content) == records


@properties
@given(st.lists(st.tuples(headers, sequences), min_size=1, max_size=5))
def test_what_is_written_reads_back(scratch, records):
    handle = io.StringIO()
    assert write_fasta(handle, records) == len(records)
    found = read_bytes(scratch, handle.getvalue().encode())
    assert [(record.description, record.sequence) for record in found] == records
    assert [record.line for record in found] == list(range(1, 2 * len(records), 2))


def test_write_fasta_by_hand():
    handle = io.StringIO()
    assert write_fasta(handle, iter([("a first", "ACGT"), ("b", "N")])) == 2
    assert handle.getvalue() == ">a first\nACGT\n>b\nN\n"
    assert write_fasta(handle, []) == 0


@pytest.mark.parametrize("kind", [str, Path])
def test_path_may_be_text_or_path(tmp_path, kind):
    (tmp_path / "two.fa").write_bytes(TWO)
    assert list(read_fasta(kind(tmp_path / "two.fa"))) == TWO_RECORDS


@pytest.mark.parametrize(
    ("content", "sequence"),
    [
        (b">a\nAC GT\n", "ACGT"),
        (b">a\n  ACGT  \nA\n", "ACGTA"),
        (b"> a\nA", "A"),
        (b"\n\n>a\nA", "A"),
    ],
    ids=["blank inside", "blanks around", "blank before the name", "leading blank lines"],
)
def test_blanks_do_not_matter(tmp_path, content, sequence):
    (record,) = read_bytes(tmp_path / "x.fa", content)
    assert (record.id, record.sequence) == ("a", sequence)


def test_gzip_is_recognised_by_content_whatever_the_name(tmp_path):
    assert read_bytes(tmp_path / "zipped.fa", gzip.compress(TWO)) == TWO_RECORDS
    assert read_bytes(tmp_path / "plain.fa.gz", TWO) == TWO_RECORDS


def test_gzip_of_several_members_as_bgzip_writes_it(tmp_path):
    content = gzip.compress(TWO[:10]) + gzip.compress(TWO[10:])
    assert read_bytes(tmp_path / "x.fa.gz", content) == TWO_RECORDS


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_stdin(monkeypatch, pack):
    stand_in_for_stdin(monkeypatch, pack(TWO))
    assert list(read_fasta("-")) == TWO_RECORDS
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(pack(TWO))))
    assert list(read_fasta(Path("-"))) == TWO_RECORDS


def test_stdin_stays_open(monkeypatch):
    stand_in_for_stdin(monkeypatch, TWO)
    list(read_fasta("-"))
    assert not sys.stdin.buffer.closed
    with refused("stdin", "holds no FASTA record"):
        list(read_fasta("-"))


def test_records_come_one_at_a_time(tmp_path):
    (tmp_path / "x.fa").write_bytes(b">a\nAC\n>b\n>c\nG\n")
    records = read_fasta(tmp_path / "x.fa")
    assert next(records) == Record("a", "a", "AC", 1)
    with refused("line 3", "'b'", "no sequence"):
        next(records)


PACKED = gzip.compress(TWO * 50)
WRONG = {
    "empty": (b"", ["holds no FASTA record"]),
    "blank lines only": (b"\n \n\r\n", ["holds no FASTA record"]),
    "sequence only": (b"ACGT\nAC\n", ["line 1", "expected a header", "'>'", "'ACGT'"]),
    "text before the first header": (b"\n\nsome words\n>a\nA\n", ["line 3", "'some words'"]),
    "comment": (b"; old style\n>a\nA\n", ["line 1", "expected a header"]),
    "BED": (b"chr1\t10\t20\n", ["line 1", "not FASTA"]),
    "header without name": (b">\nACGT\n", ["line 1", "header without a name"]),
    "later header without name": (b">a\nAC\n\n>  \nACGT\n", ["line 4", "header without a name"]),
    "no sequence": (b">a b\n>c\nACGT\n", ["line 1", "'a'", "no sequence"]),
    "no sequence at the end": (b">a\nAC\nGT\n>c\n", ["line 4", "'c'", "no sequence"]),
    "blank sequence": (b">a\n  \n\n", ["line 1", "'a'", "no sequence"]),
    "header alone": (b">a", ["line 1", "'a'", "no sequence"]),
    "all bytes": (bytes(range(256)), ["not a text file"]),
    "image": (b"\x89PNG\r\n\x1a\n\x00\x00", ["not a text file"]),
    "garbage after a header": (b">a\nACGT\n>b\n\xff\xfe\x00", ["not a text file"]),
    "null bytes": (b"\x00" * 100, ["line 1", "not FASTA"]),
    "truncated gzip": (PACKED[:-20], ["truncated or damaged gzip"]),
    "gzip without its checksum": (PACKED[:-8], ["truncated or damaged gzip"]),
    "start of gzip": (PACKED[:2], ["truncated or damaged gzip"]),
    "damaged gzip": (PACKED[:14] + b"\xff\xff" + PACKED[16:], ["truncated or damaged gzip"]),
    "gzip with a wrong checksum": (PACKED[:-8] + b"\0" * 8, ["truncated or damaged gzip"]),
    "gzip and more": (PACKED + b"more", ["truncated or damaged gzip"]),
    "gzip of nothing": (gzip.compress(b""), ["holds no FASTA record"]),
    "gzip of garbage": (gzip.compress(b"\xff" * 9), ["not a text file"]),
}


@pytest.mark.parametrize(("content", "words"), WRONG.values(), ids=WRONG)
def test_wrong_file_is_named_with_what_is_wrong(tmp_path, content, words):
    path = tmp_path / "peaks.fa"
    with refused(path, *words):
        read_bytes(path, content)


@pytest.mark.parametrize("name", ["empty", "sequence only", "truncated gzip", "all bytes"])
def test_wrong_stdin_is_called_stdin(monkeypatch, name):
    content, words = WRONG[name]
    stand_in_for_stdin(monkeypatch, content)
    with refused("stdin", *words):
        list(read_fasta("-"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.fa", "No such file"),
        ("folder", "Is a directory"),
        ("file/below.fa", "Not a directory"),
    ],
)
def test_path_that_cannot_be_opened(tmp_path, name, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with refused(tmp_path / name, "cannot be read", reason):
        list(read_fasta(tmp_path / name))


def test_open_text_leaves_errors_of_its_user_alone(tmp_path):
    (tmp_path / "x").write_text("1\n")
    with pytest.raises(KeyError, match="mine"), open_text(tmp_path / "x") as handle:
        assert handle.read() == "1\n"
        raise KeyError("mine")


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not here")
@pytest.mark.parametrize(
    ("name", "count", "bases"),
    [
        ("mT1_tal1_center300.hg19.fa.gz", 5003, 5003 * 300),
        ("lambda_virus.fa.gz", 1, 48_502),
        ("chr22_20-21M.fa", 1, 1_000_000),
    ],
)
def test_real_files(name, count, bases):
    records = list(read_fasta(REAL / name))
    assert len(records) == count
    assert sum(len(record.sequence) for record in records) == bases


@pytest.mark.parametrize(
    "content",
    [">gène β\nACGT\n".encode(), b"\xef\xbb\xbf>gene x\nACGT\n"],
    ids=["UTF-8", "byte-order mark"],
)
def test_headers_may_be_utf_8(tmp_path, content):
    path = tmp_path / "x.fa"
    path.write_bytes(content)
    (record,) = read_fasta(path)
    assert record.id in ("gène", "gene")
    assert (record.sequence, record.line) == ("ACGT", 1)
