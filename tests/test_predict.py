"""Scores of FASTA records: spans, order, file layouts, both strands, constant memory."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.encoding import decode, encode, fit_length, reverse_complement
from tal1_hvd.data.fasta import Record
from tal1_hvd.errors import InputError
from tal1_hvd.inference.predict import Prediction, predict_records
from tal1_hvd.inference.trained_model import load
from tests.commands import call

LENGTH = 150
HEADER = "id\tstart\tend\tstrand\tscore"
CHUNK = 1024


class FakeModel:
    """Scores a sequence by its share of A, and notes what it was given."""

    length = 8

    def __init__(self):
        self.calls = []

    def predict(self, codes, both_strands):
        self.calls.append((codes.copy(), both_strands))
        return np.mean(codes == 0, axis=1, dtype=np.float32)


def record(sequence, number=0):
    return Record(f"r{number}", f"r{number} more words", sequence, 2 * number + 1)


def predict(sequences, **options):
    model = FakeModel()
    records = [record(sequence, i) for i, sequence in enumerate(sequences)]
    return model, list(predict_records(model, records, "x.fa", **options))


@pytest.mark.parametrize(
    ("sequence", "on_length", "codes", "span"),
    [
        ("ACGTACGT", "error", "ACGTACGT", (0, 8)),
        ("ACGTACGT", "pad", "ACGTACGT", (0, 8)),
        ("ACGTACGT", "center-crop", "ACGTACGT", (0, 8)),
        ("acgtnRYu", "error", "ACGTNNNT", (0, 8)),
        ("ACGTAC", "pad", "NACGTACN", (0, 6)),
        ("ACGTACG", "pad", "ACGTACGN", (0, 7)),
        ("A", "pad", "NNNANNNN", (0, 1)),
        ("TACGTACGTA", "center-crop", "ACGTACGT", (1, 9)),
        ("ACGTACGTA", "center-crop", "ACGTACGT", (0, 8)),
        ("GGTACGTACGTA", "center-crop", "TACGTACG", (2, 10)),
        ("A" * 50 + "ACGTACGT" + "C" * 50, "center-crop", "ACGTACGT", (50, 58)),
    ],
)
@pytest.mark.parametrize("both", [False, True])
def test_what_is_scored(sequence, on_length, codes, span, both):
    model, found = predict([sequence], on_length=on_length, both_strands=both)
    assert found == [Prediction("r0", *span, "." if both else "+", codes.count("A") / 8)]
    ((given_codes, given_both),) = model.calls
    assert [decode(row) for row in given_codes] == [codes]
    assert given_both is both


@pytest.mark.parametrize(
    ("sequence", "on_length", "words"),
    [
        ("ACGT", "error", ["has 4 bp", "takes 8", "--on-length pad"]),
        ("ACGT", "center-crop", ["has 4 bp", "takes 8", "--on-length pad"]),
        ("ACGTACGTA", "error", ["has 9 bp", "takes 8", "--on-length center-crop"]),
        ("ACGTACGTA", "pad", ["has 9 bp", "takes 8", "--on-length center-crop"]),
        ("ACGTACG*", "error", ["'*'", "position 8"]),
        ("AC-T", "pad", ["'-'", "position 3"]),
        ("XACGTACGTACGT", "center-crop", ["'X'", "position 1"]),
    ],
)
def test_refused_record_is_named_with_its_line(sequence, on_length, words):
    with pytest.raises(InputError) as caught:
        predict(["A" * 8, "C" * 8, sequence], on_length=on_length)
    for word in ["x.fa, line 5: record 'r2'", *words]:
        assert word in str(caught.value)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.text("ACGTN", min_size=1, max_size=20), max_size=12), st.sampled_from("pc"))
def test_any_records(sequences, kind):
    on_length = "pad" if kind == "p" else "center-crop"
    fitting = [s for s in sequences if (len(s) <= 8 if kind == "p" else len(s) >= 8)]
    _, found = predict(fitting, on_length=on_length)
    assert [p.id for p in found] == [f"r{i}" for i in range(len(fitting))]
    for sequence, p in zip(fitting, found, strict=True):
        assert p.end - p.start == min(len(sequence), 8)
        # Around the centre: what is left out on the two sides differs by one base at most.
        assert 0 <= len(sequence) - p.end - p.start <= 1
        assert p.score == np.mean(fit_length(encode(sequence), 8)[0] == 0)


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_records_are_taken_a_chunk_at_a_time(count):
    taken, told = 0, []

    def records():
        nonlocal taken
        for i in range(count):
            taken += 1
            yield record("ACGTACGT", i)

    model = FakeModel()
    predictions = predict_records(model, records(), "x.fa", progress=told.append)
    assert taken == 0
    for i, prediction in enumerate(predictions):
        assert prediction.id == f"r{i}"
        assert taken <= CHUNK * (i // CHUNK + 1)
    assert taken == sum(told) == count
    assert [len(codes) for codes, _ in model.calls] == told
    assert max(told, default=0) <= CHUNK


def test_predictions_before_a_bad_chunk_come_out():
    records = (record("ACGTACGT" if i != 2000 else "ACGT", i) for i in range(3000))
    predictions = predict_records(FakeModel(), records, "x.fa")
    found = [next(predictions) for _ in range(CHUNK)]
    assert found[-1].id == f"r{CHUNK - 1}"
    with pytest.raises(InputError, match="line 4001: record 'r2000'"):
        next(predictions)


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
