"""Datasets from real sequences: toy files with answers by hand, and everything that is refused."""

from __future__ import annotations

import gzip
import io
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.encoding import decode
from tal1_hvd.data.importing import (
    DINUCLEOTIDE_SHUFFLE,
    ImportSettings,
    import_dataset,
)
from tal1_hvd.data.sites import Site
from tests.helpers import names, refused

REAL = Path(__file__).parents[2] / "shared" / "data"

POSITIVES = ">chr1:0-4\nACGT\n>chr8:5-9\naacc\n>chr2:0-4\nGGUU\n"
NEGATIVES = ">n1::chr2:9-13(+)\nTTTT\n>chr9:0-4\nCANN\n>chr1:70-74\nARYC\n"
CHROMOSOMES = {"split": "chromosome", "test_chroms": ("chr8", "chr9"), "valid_chroms": ("chr2",)}
RANDOM = {"split": "random", "test_chroms": (), "valid_chroms": ()}
SHUFFLED = {"negatives": DINUCLEOTIDE_SHUFFLE}
FROM_SIMDATA = {"positives": "x.simdata", "negatives": None}
SIMDATA = "seqName\tsequence\tembeddings\tlabel\n"


def stand_in_for_stdin(monkeypatch, text):
    raw = io.BufferedReader(io.BytesIO(text.encode()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Stand in a folder with the toy files, and make `out` there."""
    monkeypatch.chdir(tmp_path)
    Path("p.fa").write_text(POSITIVES)
    Path("n.fa").write_text(NEGATIVES)

    def make(out="out", **settings):
        options = {"positives": "p.fa", "negatives": "n.fa"} | CHROMOSOMES | settings
        return open_dataset(import_dataset(ImportSettings(**options), out))

    return make


def sequences(dataset):
    return [decode(row) for row in dataset.sequences]


def many(count, length=20, locus="seq{}"):
    """Return FASTA of random sequences."""
    rng = np.random.default_rng(count)
    return "".join(
        f">{locus.format(i)}\n{''.join(rng.choice(list('ACGT'), length))}\n" for i in range(count)
    )


def test_import_by_hand(toy):
    dataset = toy(seed=3)
    assert dataset.ids() == [
        "chr1:0-4", "chr8:5-9", "chr2:0-4", "n1::chr2:9-13(+)", "chr9:0-4", "chr1:70-74",
    ]  # fmt: skip
    assert sequences(dataset) == ["ACGT", "AACC", "GGTT", "TTTT", "CANN", "ANNC"]
    assert dataset.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert dataset.splits.tolist() == [0, 2, 1, 1, 2, 0]
    assert dataset.sites() == []
    assert dataset.description["task"] == "imported"
    assert dataset.description["seed"] == 3
    wanted = {"positives": "p.fa", "negatives": "n.fa", "split": "chromosome"}
    assert wanted.items() <= dataset.description["parameters"].items()
    assert dataset.description["parameters"]["test_chroms"] == ["chr8", "chr9"]


def test_gzip_and_stdin_give_the_same_data(toy, monkeypatch):
    Path("p.fa.gz").write_bytes(gzip.compress(POSITIVES.encode()))
    stand_in_for_stdin(monkeypatch, NEGATIVES)
    plain = toy("plain")
    assert toy("other", positives="p.fa.gz", negatives="-").fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (2, ["CG", "AC", "GT", "TT", "AN", "NN"]),
        (3, ["ACG", "AAC", "GGT", "TTT", "CAN", "ANN"]),
        (7, ["NACGTNN", "NAACCNN", "NGGTTNN", "NTTTTNN", "NCANNNN", "NANNCNN"]),
    ],
)
def test_length_crops_or_pads_around_the_centre(toy, length, expected):
    assert sequences(toy(length=length)) == expected


def test_length_lets_sequences_differ(toy):
    Path("p.fa").write_text(">chr1:0-5\nACGTA\n>chr8:5-6\nC\n")
    Path("n.fa").write_text(">chr2:0-3\nCCC\n")
    assert sequences(toy(length=3, test_chroms=("chr8",))) == ["CGT", "NCN", "CCC"]


@pytest.mark.parametrize("copies", [1, 3])
def test_dinucleotide_shuffles_of_each_positive(toy, copies):
    Path("p.fa").write_text(many(6, 50, locus="chr{0}:{0}-50"))
    dataset = toy(
        **SHUFFLED,
        negatives_per_positive=copies,
        test_chroms=("chr0",),
        valid_chroms=("chr1", "chr2"),
    )
    ids = dataset.ids()
    expected = [f"{name}_shuffled{copy}" for name in ids[:6] for copy in range(copies)]
    assert ids[6:] == expected
    assert dataset.labels.tolist() == [1] * 6 + [0] * 6 * copies
    splits = [2, 1, 1, 0, 0, 0]
    assert dataset.splits.tolist() == splits + np.repeat(splits, copies).tolist()
    found = dict(zip(ids, sequences(dataset), strict=True))
    for name in expected:
        peak, shuffle = found[name.split("_")[0]], found[name]
        assert Counter(pairwise(shuffle)) == Counter(pairwise(peak))
        assert shuffle != peak
    assert len(set(found.values())) == len(found)


def test_seed_decides_shuffles_and_split(toy):
    Path("p.fa").write_text(many(30, 40))
    one, same, other = (
        toy(f"out{i}", seed=seed, **SHUFFLED, **RANDOM) for i, seed in enumerate((0, 0, 1))
    )
    for name in names(one.path):
        assert (one.path / name).read_bytes() == (same.path / name).read_bytes()
    assert not np.array_equal(one.sequences, other.sequences)
    assert not np.array_equal(one.splits, other.splits)
    assert one.description["splits"] == {"train": 42, "validation": 12, "test": 6}
    for label in (0, 1):
        assert np.bincount(one.splits[one.labels == label]).tolist() == [21, 6, 3]


@pytest.mark.parametrize(
    ("header", "chromosome"),
    [
        ("chr1:0-4", "chr1"),
        ("chr1:0-4(-)", "chr1"),
        ("peak7::chrX:10-14", "chrX"),
        ("peak7::chrX:10-14(+)", "chrX"),
        ("hg19_dna range=chr2:1-4 5'pad=0 strand=+", "chr2"),
        ("MACS_peak_1 chr7:5-9", "chr7"),
        ("chrUn_KI270742v1:1-5", "chrUn_KI270742v1"),
        ("22:20000001-21000000", "22"),
        ("NC_000022.11:5-9 Homo sapiens", "NC_000022.11"),
    ],
)
def test_chromosome_in_the_header(toy, header, chromosome):
    Path("p.fa").write_text(f">{header}\nACGT\n>train0 5:1-5\nACGT\n")
    Path("n.fa").write_text(">train1 5:9-14\nACGT\n>valid 6:1-5\nACGT\n")
    dataset = toy(test_chroms=(chromosome,), valid_chroms=("6",))
    assert dataset.splits.tolist() == [2, 0, 0, 1]


def test_simdata_holds_both_classes_and_the_sites(toy):
    lines = ["s0\tACGTA\tpos-1_TAL1-CG,pos-3_revComp-GATA-TA\t1\n"]
    lines += [f"s{i}\tAAAAA\t\t{i % 2}\n" for i in range(1, 30)]
    Path("x.simdata").write_text(SIMDATA + "".join(lines))
    dataset = toy(**FROM_SIMDATA, **RANDOM)
    assert dataset.ids() == [f"s{i}" for i in range(30)]
    assert dataset.labels.tolist() == [1, *(i % 2 for i in range(1, 30))]
    assert sequences(dataset)[0] == "ACGTA"
    assert dataset.sites() == [Site("s0", 1, 3, "TAL1", "+"), Site("s0", 3, 5, "GATA", "-")]


def test_simdata_with_two_labels_and_chromosomes(toy):
    Path("x.simdata.gz").write_bytes(
        gzip.compress(
            b"seqName\tsequence\tembeddings\tA\tB\n"
            b"chr1:0-4\tACGT\t\t1\t0\nchr8:0-4\tACGT\t\t1\t1\nchr2:0-4\tACGT\t\t0\t1\n"
        )
    )
    for label, labels in (("A", [1, 1, 0]), ("B", [0, 1, 1])):
        dataset = toy(
            f"out{label}",
            **FROM_SIMDATA | {"positives": "x.simdata.gz"},
            label=label,
            test_chroms=("chr8",),
        )
        assert dataset.labels.tolist() == labels
        assert dataset.splits.tolist() == [0, 2, 1]


BOTH = f"{SIMDATA}chr1:0-4\tACGT\t\t1\nchr2:0-4\tACGT\t\t0\n"

# What is refused: files that replace the toy ones, settings, words of the error.
REFUSED = {
    "positives missing": ({"p.fa": None}, {}, ["p.fa", "cannot be read", "No such file"]),
    "negatives missing": ({"n.fa": None}, {}, ["n.fa", "cannot be read", "No such file"]),
    "negatives not given": (
        {}, {"negatives": None}, ["--negatives", "missing", "FASTA", "dinucleotide-shuffle"],
    ),
    "positives empty": ({"p.fa": ""}, {}, ["p.fa", "no FASTA record"]),
    "negatives empty": ({"n.fa": ""}, {}, ["n.fa", "no FASTA record"]),
    "truncated gzip": (
        {"p.fa": gzip.compress(POSITIVES.encode())[:-12]}, {}, ["p.fa", "truncated or damaged"],
    ),
    "binary": ({"n.fa": b"\xff\xfe\x00"}, {}, ["n.fa", "not a text file"]),
    "protein": (
        {"p.fa": ">a\nACGT\n>b c\n\nAC\nLE\n"}, {},
        ["p.fa, line 3", "'b'", "'L'", "position 3", "not a nucleotide"],
    ),
    "wrong letter in a negative": (
        {"n.fa": ">a\nAC-T\n"}, {}, ["n.fa, line 1", "'a'", "'-'", "position 3"],
    ),
    "wrong letter that a crop would hide": (
        {"p.fa": ">a\n!CGTA\n"}, {"length": 1}, ["p.fa, line 1", "'!'", "position 1"],
    ),
    "unequal lengths": (
        {"p.fa": ">a\nACGT\n>b\nACG\n"}, {}, ["p.fa, line 3", "'b'", "3 bp", "4 bp", "--length"],
    ),
    "negatives of another length": (
        {"n.fa": ">a\nACG\n>b\nACG\n"}, {}, ["n.fa", "3 bp", "4 bp", "--length"],
    ),
    "id twice among positives": (
        {"p.fa": POSITIVES + ">chr8:5-9\nACGT\n"}, {}, ["p.fa", "'chr8:5-9'", "stands before"],
    ),
    "id in both classes": (
        {"n.fa": NEGATIVES + ">chr8:5-9\nACGT\n"}, {}, ["n.fa", "'chr8:5-9'", "stands before"],
    ),
    "no shuffle asked for": ({}, SHUFFLED | {"negatives_per_positive": 0},
                            ["--negatives-per-positive", "0"]),
    "length 0": ({}, {"length": 0}, ["--length", "0"]),
    "length below 0": ({}, {"length": -3}, ["--length", "-3"]),
    "seed below 0": ({"p.fa": many(20)}, RANDOM | SHUFFLED | {"seed": -1}, ["--seed", "-1"]),
    "chromosomes without their split": (
        {}, {"split": "random"}, ["--test-chroms", "--valid-chroms", "--split chromosome"],
    ),
    "header without chromosome": (
        {"n.fa": ">chr1:1-5\nACGT\n>nine\nACGT\n"}, {},
        ["'nine'", "--split chromosome", "chr:start-end"],
    ),
    "no chromosomes given": ({}, {"test_chroms": ()}, ["--test-chroms", "at least one"]),
    "chromosome not there": (
        {}, {"valid_chroms": ("chr7",)}, ["--valid-chroms", "chr7", "chr1, chr2, chr8, chr9"],
    ),
    "chromosome in both": ({}, {"valid_chroms": ("chr8",)}, ["both name chr8"]),
    "all held out": ({}, {"valid_chroms": ("chr1", "chr2")}, ["hold out every chromosome"]),
    "too few": ({}, RANDOM, ["3 positives", "3 negatives", "too few", "at least 10"]),
    "simdata with negatives": (
        {"x.simdata": BOTH}, {"positives": "x.simdata"}, ["--negatives", "leave it out"],
    ),
    "simdata with length": (
        {"x.simdata": BOTH}, FROM_SIMDATA | {"length": 4}, ["--length", "leave it out"],
    ),
    "simdata without lines": ({"x.simdata": SIMDATA}, FROM_SIMDATA, ["x.simdata", "no sequences"]),
    "simdata of one class": (
        {"x.simdata": f"{SIMDATA}s\tACGT\t\t0\n"}, FROM_SIMDATA, ["x.simdata", "no positives"],
    ),
    "simdata of the other class": (
        {"x.simdata": f"{SIMDATA}s\tACGT\t\t1\n"}, FROM_SIMDATA, ["x.simdata", "no negatives"],
    ),
    "simdata of unequal lengths": (
        {"x.simdata": f"{BOTH}chr8:0-5\tACGTA\t\t0\n"}, FROM_SIMDATA,
        ["x.simdata, line 4", "'chr8:0-5'", "5 bp", "4 bp"],
    ),
    "simdata with a wrong letter": (
        {"x.simdata": f"{BOTH}s\tAC!A\t\t0\n"}, FROM_SIMDATA,
        ["x.simdata, line 4", "'!'", "position 3"],
    ),
    "simdata with an id twice": (
        {"x.simdata": f"{BOTH}chr1:0-4\tACGT\t\t0\n"}, FROM_SIMDATA,
        ["x.simdata", "'chr1:0-4'", "stands before"],
    ),
    "simdata of nothing": (
        {"x.simdata": f"{SIMDATA}chr1:0-4\t\t\t1\nchr2:0-4\t\t\t0\nchr8:0-4\t\t\t0\n"},
        FROM_SIMDATA | {"test_chroms": ("chr8",)},
        ["x.simdata, line 2", "'chr1:0-4'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "settings", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_input_leaves_nothing(toy, files, settings, words):
    for name, content in files.items():
        if content is None:
            Path(name).unlink()
        else:
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = names(Path())
    with refused(*words):
        toy(**settings)
    assert names(Path()) == before


def test_stdin_cannot_serve_twice(toy, monkeypatch):
    stand_in_for_stdin(monkeypatch, POSITIVES)
    before = names(Path())
    with refused("stdin"):
        toy(positives="-", negatives="-")
    assert names(Path()) == before


def test_existing_output_is_said_before_anything_is_read(toy):
    Path("out").mkdir()
    Path("out/mine").write_text("mine")
    with refused("out", "exists already", "another name"):
        toy(positives="missing.fa")
    assert names(Path("out")) == ["mine"]
    assert names(Path()) == ["n.fa", "out", "p.fa"]


def test_output_under_a_file(toy):
    with refused("p.fa/out", "cannot be written"):
        toy("p.fa/out")
    assert names(Path()) == ["n.fa", "p.fa"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not here")
def test_real_peaks_by_chromosome(tmp_path):
    peaks = REAL / "mT1_tal1_center300.hg19.fa.gz"
    settings = ImportSettings(
        positives=str(peaks),
        negatives=DINUCLEOTIDE_SHUFFLE,
        split="chromosome",
        test_chroms=("chr8", "chr9"),
        valid_chroms=("chr2", "chr4"),
    )
    dataset = open_dataset(import_dataset(settings, tmp_path / "out"))
    assert dataset.sequences.shape == (10_006, 300)
    assert (dataset.description["positives"], dataset.description["negatives"]) == (5003, 5003)
    pairs = 5 * dataset.sequences[:, :-1] + dataset.sequences[:, 1:]
    counts = np.stack([np.bincount(row, minlength=25) for row in pairs])
    assert np.array_equal(counts[:5003], counts[5003:])
    assert np.array_equal(dataset.splits[:5003], dataset.splits[5003:])
    for name, code in zip(dataset.ids(), dataset.splits, strict=True):
        held_out = {"chr8": 2, "chr9": 2, "chr2": 1, "chr4": 1}
        assert code == held_out.get(name.split(":")[0], 0)
