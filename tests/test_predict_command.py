"""``tal1-hvd predict``: order, file layouts, both strands, bad records."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pytest

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.encoding import decode, encode, reverse_complement
from tal1_hvd.inference.trained_model import load
from tests.commands import call

LENGTH = 150
HEADER = "id\tstart\tend\tstrand\tscore"
CHUNK = 1024


@pytest.fixture(scope="module")
def sequences(small_data):
    """Return the first sequences of each class."""
    rows = open_dataset(small_data).sequences
    return {f"s{i}": decode(rows[i]) for i in [*range(150), *range(400, 550)]}


def fasta(sequences, newline="\n", width=None):
    lines = []
    for name, sequence in sequences.items():
        step = width or max(1, len(sequence))
        lines += [f">{name}", *(sequence[i : i + step] for i in range(0, len(sequence), step))]
    return "".join(line + newline for line in lines).encode()


@pytest.fixture
def tsv(small_run, tmp_path):
    """Return a function that predicts on a file's content and returns the lines of the result."""

    def predicted(content, *flags, name="in.fa"):
        path, out = tmp_path / name, tmp_path / "out.tsv"
        path.write_bytes(content if isinstance(content, bytes) else fasta(content))
        assert call("predict", "--run", small_run, path, "--out", out, *flags) == 0
        lines = out.read_bytes().decode("ascii").split("\n")
        assert lines.pop() == ""
        assert {p.name for p in tmp_path.iterdir()} == {name, "out.tsv"}
        out.unlink()
        path.unlink()
        return lines

    return predicted


def test_columns_and_order(tsv, small_run, sequences):
    header, *lines = tsv(sequences)
    assert header == HEADER
    scores = load(small_run).predict(list(sequences.values()))
    assert lines == [
        f"{name}\t0\t{LENGTH}\t+\t{score:.6g}"
        for name, score in zip(sequences, scores.tolist(), strict=True)
    ]
    assert len(set(scores.tolist())) > 250


def test_any_order_of_records_gives_the_same_lines(tsv, sequences):
    shuffled = dict(np.random.default_rng(0).permutation(list(sequences.items())).tolist())
    header, *lines = tsv(sequences)
    by_id = dict(zip(sequences, lines, strict=True))
    assert tsv(shuffled) == [header, *(by_id[name] for name in shuffled)]


@pytest.mark.parametrize("flags", [[], ["--both-strands"]], ids=["one-strand", "both-strands"])
def test_alone_or_among_thousands(tsv, sequences, flags):
    many = {f"{copy}{name}": s for copy in range(5) for name, s in sequences.items()}
    header, *lines = tsv(many, *flags)
    for number in (0, 1, 127, 128, 700, CHUNK - 1, CHUNK, len(many) - 1):
        name = list(many)[number]
        assert tsv({name: many[name]}, *flags) == [header, lines[number]]
    # A sequence's score does not depend on its place either.
    count = len(sequences)
    scores = [line.rsplit("\t", 1)[1] for line in lines]
    assert all(scores[:count] == scores[i * count : (i + 1) * count] for i in range(5))


LAYOUTS = {
    "gzip": lambda s: gzip.compress(fasta(s)),
    "two-gzip-members": lambda s: gzip.compress(fasta(s)[:1000]) + gzip.compress(fasta(s)[1000:]),
    "crlf": lambda s: fasta(s, "\r\n", 60),
    "cr": lambda s: fasta(s, "\r", 60),
    "wrapped": lambda s: fasta(s, width=60),
    "a-base-a-line": lambda s: fasta(s, width=1),
    "no-last-newline": lambda s: fasta(s)[:-1],
    "blank-lines": lambda s: b"\n\n" + fasta(s, "\n\n", 70),
    "lower-case": lambda s: fasta({name: sequence.lower() for name, sequence in s.items()}),
    "rna": lambda s: fasta({name: sequence.replace("T", "U") for name, sequence in s.items()}),
    "descriptions": lambda s: fasta({f"{name} and\tmore > words": s[name] for name in s}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_read_the_same(tsv, sequences, layout):
    few = dict(list(sequences.items())[:20])
    assert tsv(LAYOUTS[layout](few)) == tsv(few)


def test_gzip_needs_no_name(tsv, sequences):
    content = gzip.compress(fasta(sequences))
    assert tsv(content, name="a.fa.gz") == tsv(content, name="b.txt") == tsv(sequences)


@pytest.mark.parametrize("zipped", [False, True])
def test_stdin_to_stdout(tsv, small_run, sequences, monkeypatch, capsys, zipped):
    content = gzip.compress(fasta(sequences)) if zipped else fasta(sequences)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert call("predict", "--run", small_run, "-") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == tsv(sequences)
    assert err == ""


def test_ambiguous_letters_count_as_n(tsv, sequences):
    first = sequences["s0"]
    codes = {code: first[:60] + code * 5 + first[65:] for code in "NRYSWKMBDHVnrywsk"}
    _, *lines = tsv(codes)
    assert len({line.rsplit("\t", 1)[1] for line in lines}) == 1


def test_both_strands_of_the_other_strand(tsv, sequences):
    other = {
        name: decode(reverse_complement(encode(sequence))) for name, sequence in sequences.items()
    }
    lines = tsv(sequences, "--both-strands")
    assert tsv(other, "--both-strands") == lines
    assert {line.split("\t")[3] for line in lines[1:]} == {"."}
    assert tsv(other)[1:] != tsv(sequences)[1:]


def test_both_strands_is_the_mean(tsv, small_run, sequences):
    other = [decode(reverse_complement(encode(sequence))) for sequence in sequences.values()]
    model = load(small_run)
    means = (model.predict(list(sequences.values())) + model.predict(other)) / 2
    _, *lines = tsv(sequences, "--both-strands")
    assert [line.rsplit("\t", 1)[1] for line in lines] == [f"{x:.6g}" for x in means.tolist()]


def test_pad(tsv, sequences):
    first = sequences["s0"]
    short = {"same": first, "short": first[10:139], "one": "A"}
    padded = {"short": "N" * 10 + first[10:139] + "N" * 11, "one": "N" * 74 + "A" + "N" * 75}
    _, same, *lines = tsv(short, "--on-length", "pad")
    _, *by_hand = tsv(padded)
    assert same == tsv({"same": first})[1]
    assert [line.split("\t")[:4] for line in lines] == [
        ["short", "0", "129", "+"],
        ["one", "0", "1", "+"],
    ]
    assert [x.rsplit("\t", 1)[1] for x in lines] == [x.rsplit("\t", 1)[1] for x in by_hand]


def test_center_crop(tsv, sequences):
    first, second = sequences["s0"], sequences["s1"]
    long = {"same": first, "even": "AC" + first + "GT", "odd": "A" + second + "GT"}
    _, *lines = tsv(long, "--on-length", "center-crop")
    _, *by_hand = tsv({"same": first, "even": first, "odd": second})
    assert [line.split("\t")[:4] for line in lines] == [
        ["same", "0", "150", "+"],
        ["even", "2", "152", "+"],
        ["odd", "1", "151", "+"],
    ]
    assert [x.rsplit("\t", 1)[1] for x in lines] == [x.rsplit("\t", 1)[1] for x in by_hand]


def test_test_split_again(tsv, small_run, small_data, tmp_path_factory):
    """The run's own predictions of the test split come out of its exported sequences."""
    exported = tmp_path_factory.mktemp("exported") / "test.fa"
    assert call("export", "--data", small_data, "--split", "test", "--out", exported) == 0
    rows = [line.split("\t") for line in (small_run / "predictions.tsv").read_text().splitlines()]
    assert rows[0] == ["id", "label", "score"]
    assert tsv(exported.read_bytes())[1:] == [
        f"{name}\t0\t{LENGTH}\t+\t{float(score):.6g}" for name, _, score in rows[1:]
    ]


def test_configuration_file(small_run, sequences, tmp_path, capsys):
    (tmp_path / "in.fa").write_bytes(fasta({"short": sequences["s0"][:100]}))
    config = tmp_path / "config.yaml"
    config.write_text(f"run: {small_run}\non-length: pad\nboth_strands: true\n")
    assert call("predict", "--config", config, tmp_path / "in.fa") == 0
    assert capsys.readouterr().out.splitlines()[1].split("\t")[:4] == ["short", "0", "100", "."]


@pytest.mark.parametrize("where", ["file", "stdout"])
@pytest.mark.parametrize("bad", ["ACGT", "*" * LENGTH, ""], ids=["short", "letter", "empty"])
def test_bad_record_late_in_a_file(small_run, sequences, tmp_path, capsys, where, bad):
    many = {f"{copy}{name}": s for copy in range(7) for name, s in sequences.items()}
    name = list(many)[1999]
    (tmp_path / "in.fa").write_bytes(fasta(many | {name: bad}))
    out = tmp_path / "out.tsv" if where == "file" else "-"
    assert call("predict", "--run", small_run, tmp_path / "in.fa", "--out", out) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in.fa"]
    stdout, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith(f"tal1-hvd: error: {tmp_path / 'in.fa'}, line 3999: record '{name}'")
    # A stream has passed on what came before, in whole lines.
    assert len(stdout.splitlines()) == (0 if where == "file" else 1 + CHUNK)


@pytest.mark.parametrize("bad", ["ACGT", "*" * LENGTH], ids=["short", "letter"])
def test_bad_record_early_leaves_nothing_on_stdout(small_run, sequences, tmp_path, capsys, bad):
    (tmp_path / "in.fa").write_bytes(fasta(sequences | {"s149": bad}))
    assert call("predict", "--run", small_run, tmp_path / "in.fa") == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["file", "folder", "dangling-link", "input"])
def test_existing_output_stays_as_it_is(small_run, sequences, tmp_path, capsys, kind):
    source = tmp_path / "in.fa"
    source.write_bytes(fasta(sequences))
    out = tmp_path / "out.tsv"
    {
        "file": lambda: out.write_text("mine"),
        "folder": out.mkdir,
        "dangling-link": lambda: out.symlink_to("nowhere"),
        "input": lambda: out.symlink_to(source),
    }[kind]()
    before = {path: path.lstat() for path in tmp_path.iterdir()}
    assert call("predict", "--run", small_run, source, "--out", out) == 2
    assert f"{out}: exists already" in capsys.readouterr().err
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.iterdir()} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }


def test_output_here_without_a_folder(small_run, sequences, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.fa").write_bytes(fasta(sequences))
    assert call("predict", "--run", small_run, "in.fa", "--out", "out.tsv") == 0
    assert Path("out.tsv").read_text().startswith(HEADER)
