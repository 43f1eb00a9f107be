"""Datasets as FASTA and simdata, and back again."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
from simdna import synthetic

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.dataset_writer import create_dataset
from tal1_hvd.data.encoding import encode
from tal1_hvd.data.exporting import export_dataset
from tal1_hvd.data.fasta import read_fasta
from tal1_hvd.data.importing import ImportSettings, import_dataset
from tal1_hvd.data.sites import Site
from tests.helpers import names, refused

SEQUENCES = ["ACGTN", "AAAAA", "CAGCT", "TTTGN"]
SITES = [
    Site("n0", 0, 2, "GATA1", "-"),
    Site("p0", 1, 4, "TAL1_known4", "+"),
    Site("p0", 3, 4, "x", "-"),
]


@pytest.fixture
def dataset(tmp_path):
    with create_dataset(tmp_path / "data", 4, 5) as writer:
        for row, sequence in enumerate(SEQUENCES):
            writer.put(row, encode(sequence)[None])
        writer.finish(
            labels=np.array([1, 1, 0, 0]),
            splits=np.array([0, 1, 0, 2]),
            ids=["p0", "p1", "n0", "n1"],
            task="toy",
            parameters={},
            seed=0,
            sites=SITES,
        )
    return open_dataset(tmp_path / "data")


FASTA = {
    "p0": ">p0 label=1 split=train\nACGTN\n",
    "p1": ">p1 label=1 split=validation\nAAAAA\n",
    "n0": ">n0 label=0 split=train\nCAGCT\n",
    "n1": ">n1 label=0 split=test\nTTTGN\n",
}
SIMDATA = {
    "p0": "p0\tACGTN\tpos-1_TAL1_known4-CGT,pos-3_revComp-x-T\t1\n",
    "p1": "p1\tAAAAA\t\t1\n",
    "n0": "n0\tCAGCT\tpos-0_revComp-GATA1-CA\t0\n",
    "n1": "n1\tTTTGN\t\t0\n",
}
HEADER = "seqName\tsequence\tembeddings\tlabel\n"
MEMBERS = [
    ("train", ["p0", "n0"]),
    ("validation", ["p1"]),
    ("test", ["n1"]),
    ("all", ["p0", "p1", "n0", "n1"]),
]


@pytest.mark.parametrize(("split", "ids"), MEMBERS)
@pytest.mark.parametrize("kind", [str, Path])
def test_fasta_by_hand(dataset, tmp_path, split, ids, kind):
    assert export_dataset(dataset, split, kind(tmp_path / "x.fa")) == len(ids)
    assert (tmp_path / "x.fa").read_text() == "".join(FASTA[name] for name in ids)
    assert names(tmp_path) == ["data", "x.fa"]


@pytest.mark.parametrize(("split", "ids"), MEMBERS)
@pytest.mark.parametrize("name", ["x.simdata", "x.simdata.gz"])
def test_simdata_by_hand(dataset, tmp_path, split, ids, name):
    assert export_dataset(dataset, split, tmp_path / name) == len(ids)
    content = (tmp_path / name).read_bytes()
    content = gzip.decompress(content) if name.endswith(".gz") else content
    assert content.decode() == HEADER + "".join(SIMDATA[name] for name in ids)
    assert names(tmp_path) == ["data", name]


@pytest.mark.parametrize("name", ["out.fa", "out.simdata"])
def test_codes_that_are_no_letters(dataset, tmp_path, name):
    codes = np.array(dataset.sequences)
    codes[2, 1] = 200
    with refused(dataset.path, "row 2", "codes other than 0 to 4"):
        export_dataset(dataclasses.replace(dataset, sequences=codes), "all", tmp_path / name)
    assert names(tmp_path) == ["data"]


def test_ids_name_no_files(tmp_path):
    ids = ["../../climbs", "/absolute", "C:\\x", "a/b", *(f"x{i}" for i in range(16))]
    (tmp_path / "x.fa").write_text("".join(f">{name}\nACGTACGT\n" for name in ids))
    settings = ImportSettings(positives=str(tmp_path / "x.fa"), negatives="dinucleotide-shuffle")
    data = open_dataset(import_dataset(settings, tmp_path / "in" / "data"))
    export_dataset(data, "all", tmp_path / "out.fa")
    assert data.ids()[:4] == ids[:4]
    assert names(tmp_path) == ["in", "out.fa", "x.fa"]
    assert names(tmp_path / "in") == ["data"]
    kept = ["dataset.json", "ids.txt", "labels.npy", "sequences.npy", "splits.npy"]
    assert names(data.path) == kept


def test_fasta_named_gz_is_gzip(dataset, tmp_path):
    export_dataset(dataset, "all", tmp_path / "x.fa.gz")
    content = gzip.decompress((tmp_path / "x.fa.gz").read_bytes())
    assert content.decode() == "".join(FASTA.values())


def test_simdna_reads_the_export(dataset, tmp_path):
    export_dataset(dataset, "train", tmp_path / "x.simdata")
    found = synthetic.read_simdata_file(str(tmp_path / "x.simdata"))
    assert found.ids == ["p0", "n0"]
    assert found.labels.tolist() == [[1], [0]]
    embedded = [[(e.startPos, e.what.string) for e in es] for es in found.embeddings]
    assert embedded == [[(1, "CGT"), (3, "T")], [(0, "CA")]]


def test_split_may_be_empty(dataset, tmp_path):
    empty = dataclasses.replace(dataset, splits=np.zeros(4, np.uint8))
    assert export_dataset(empty, "test", tmp_path / "x.fa") == 0
    assert (tmp_path / "x.fa").read_text() == ""


@pytest.fixture
def imported(tmp_path):
    """Make a dataset of 30 and 30 random sequences with loci, split at random."""
    rng = np.random.default_rng(0)
    for name, chromosome in (("p.fa", "chr1"), ("n.fa", "chr2")):
        sequences = ("".join(rng.choice(list("ACGTN"), 12)) for _ in range(30))
        (tmp_path / name).write_text(
            "".join(f">{chromosome}:{i}-{i + 12}\n{s}\n" for i, s in enumerate(sequences))
        )
    settings = ImportSettings(positives=str(tmp_path / "p.fa"), negatives=str(tmp_path / "n.fa"))
    return open_dataset(import_dataset(settings, tmp_path / "imported"))


def test_fasta_comes_back_as_it_was(imported, tmp_path):
    export_dataset(imported, "all", tmp_path / "x.fa")
    records = list(read_fasta(tmp_path / "x.fa"))
    assert [record.id for record in records] == imported.ids()
    codes = {"train": 0, "validation": 1, "test": 2}
    for row, record in enumerate(records):
        assert encode(record.sequence).tolist() == imported.sequences[row].tolist()
        label, split = (word.split("=")[1] for word in record.description.split()[1:])
        assert (int(label), codes[split]) == (imported.labels[row], imported.splits[row])


def test_splits_together_are_the_whole(imported, tmp_path):
    for split in ("train", "validation", "test", "all"):
        export_dataset(imported, split, tmp_path / f"{split}.fa")
    ids = {
        split: [record.id for record in read_fasta(tmp_path / f"{split}.fa")]
        for split in ("train", "validation", "test", "all")
    }
    assert {split: len(found) for split, found in ids.items()} == {
        "train": 42,
        "validation": 12,
        "test": 6,
        "all": 60,
    }
    assert sorted(ids["train"] + ids["validation"] + ids["test"]) == sorted(ids["all"])


def test_simdata_imports_back_to_the_same_data(imported, tmp_path):
    export_dataset(imported, "all", tmp_path / "x.simdata")
    settings = ImportSettings(positives=str(tmp_path / "x.simdata"))
    back = open_dataset(import_dataset(settings, tmp_path / "back"))
    assert back.fingerprint == imported.fingerprint
    assert back.ids() == imported.ids()


@pytest.mark.parametrize("name", ["x.fa", "x.simdata", "x.simdata.gz"])
def test_existing_file_is_not_replaced(dataset, tmp_path, name):
    (tmp_path / name).write_text("old")
    with refused(tmp_path / name, "exists already", "another name"):
        export_dataset(dataset, "all", tmp_path / name)
    assert (tmp_path / name).read_text() == "old"
    assert names(tmp_path) == sorted(["data", name])


@pytest.mark.parametrize("name", ["x.fa", "x.simdata"])
@pytest.mark.parametrize(
    ("folder", "reason"), [("none", "no folder"), ("data/ids.txt", "no folder")]
)
def test_file_where_none_can_be(dataset, tmp_path, name, folder, reason):
    before = names(tmp_path / "data")
    with refused(tmp_path / folder / name, "cannot be written", reason):
        export_dataset(dataset, "all", tmp_path / folder / name)
    assert names(tmp_path) == ["data"]
    assert names(tmp_path / "data") == before


@pytest.mark.parametrize("name", ["x.fa", "x.simdata", "x.simdata.gz"])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_failure_half_way_leaves_nothing(dataset, tmp_path, name):
    spoilt = np.array(dataset.sequences)
    spoilt[2] = 9
    with refused("codes other than"):
        export_dataset(dataclasses.replace(dataset, sequences=spoilt), "all", tmp_path / name)
    assert names(tmp_path) == ["data"]
