"""Datasets that are written in shards: what lies where, and that they read as one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.dataset_writer import create_dataset
from tal1_hvd.data.files import sha256
from tal1_hvd.data.sites import Site
from tests.helpers import names, refused

COUNT, LENGTH = 7, 10
CODES = np.random.default_rng(1).integers(0, 5, (COUNT, LENGTH), dtype=np.uint8)
LABELS = np.array([1, 1, 1, 0, 0, 0, 0])
SPLITS = np.array([0, 1, 2, 0, 1, 2, 0])
IDS = [f"s{number}" for number in range(COUNT)]
SITES = [Site("s0", 1, 4, "A", "+"), Site("s3", 0, 5, "B", "-"), Site("s3", 6, 9, "B", "+")]
FILES = ["ids.txt", "labels.npy", "sequences.npy", "sites.bed", "splits.npy"]


def make(out, shard_bytes, blocks=((0, 7),), sites=SITES):
    """Write the toy dataset, in blocks of rows."""
    with create_dataset(out, COUNT, LENGTH, shard_bytes) as writer:
        for start, stop in blocks:
            writer.put(start, CODES[start:stop])
        writer.finish(
            labels=LABELS,
            splits=SPLITS,
            ids=IDS,
            task="toy",
            parameters={},
            seed=0,
            sites=None if sites is None else iter(sites),
        )
    return out


def lines(*sites):
    return "".join(
        f"{s.sequence_id}\t{s.start}\t{s.end}\t{s.motif}\t0\t{s.strand}\n" for s in sites
    )


def test_files_by_hand(tmp_path):
    folder = make(tmp_path / "data", 35)
    assert names(folder) == ["dataset.json", "shards"]
    assert names(folder / "shards") == ["00000", "00001", "00002"]
    shards = [folder / "shards" / name for name in names(folder / "shards")]
    assert [names(shard) for shard in shards] == [FILES] * 3
    assert [np.load(shard / "sequences.npy").tolist() for shard in shards] == [
        CODES[:3].tolist(),
        CODES[3:6].tolist(),
        CODES[6:].tolist(),
    ]
    assert [np.load(shard / "labels.npy").tolist() for shard in shards] == [[1] * 3, [0] * 3, [0]]
    assert [np.load(shard / "splits.npy").tolist() for shard in shards] == [[0, 1, 2]] * 2 + [[0]]
    assert [(shard / "ids.txt").read_text() for shard in shards] == [
        "s0\ns1\ns2\n",
        "s3\ns4\ns5\n",
        "s6\n",
    ]
    assert [(shard / "sites.bed").read_text() for shard in shards] == [
        lines(SITES[0]),
        lines(*SITES[1:]),
        "",
    ]
    description = json.loads((folder / "dataset.json").read_text())
    assert (description["count"], description["shards"]) == (7, [3, 3, 1])
    assert description["sha256"] == {
        f"shards/0000{number}/{name}": sha256(shard / name)
        for number, shard in enumerate(shards)
        for name in FILES
    }


@pytest.mark.parametrize("shard_bytes", [1, 10, 25, 60, 69])
@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("blocks", [[(0, 7)], [(5, 7), (0, 2), (2, 5)]], ids=["whole", "blocks"])
def test_shards_read_as_one(tmp_path, shard_bytes, cache_mb, blocks):
    dataset = open_dataset(make(tmp_path / "data", shard_bytes, blocks), cache_mb=cache_mb)
    assert (len(dataset), dataset.length) == (COUNT, LENGTH)
    assert np.array_equal(dataset.sequences[:], CODES)
    assert np.array_equal(dataset.labels, LABELS)
    assert np.array_equal(dataset.splits, SPLITS)
    assert dataset.ids() == IDS
    assert dataset.sites() == SITES
    assert dataset.rows("test").tolist() == [2, 5]


def test_what_fits_is_no_shard(tmp_path):
    folder = make(tmp_path / "data", 70)
    assert names(folder) == sorted([*FILES, "dataset.json"])
    assert "shards" not in json.loads((folder / "dataset.json").read_text())
    assert isinstance(open_dataset(folder).sequences, np.memmap)
    assert np.array_equal(open_dataset(folder, cache_mb=0).sequences[:], CODES)


def test_no_sites(tmp_path):
    folder = make(tmp_path / "data", 35, sites=None)
    assert "sites.bed" not in names(folder / "shards" / "00000")
    assert open_dataset(folder).sites() == []


def test_sites_out_of_order(tmp_path):
    with pytest.raises(ValueError, match="'s0' are not in the order"):
        make(tmp_path / "data", 35, sites=SITES[::-1])
    assert not names(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "data", 35)


@pytest.mark.parametrize("name", FILES)
def test_edited_shard(folder, name):
    file = folder / "shards" / "00001" / name
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with refused(file, "was changed after it was made"):
        open_dataset(folder)


@pytest.mark.parametrize("name", ["ids.txt", "sequences.npy"])
def test_missing_file_of_a_shard(folder, name):
    (folder / "shards" / "00002" / name).unlink()
    for verify in (True, False):
        with refused(folder / "shards" / "00002" / name, "cannot be read"):
            open_dataset(folder, verify=verify)


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        ([3, 3], "its shards hold 6 rows, not 7"),
        ([3, 3, 1, 0], "'shards' is not a list"),
        ([3, 3, True], "'shards' is not a list"),
        ([3, 5, -1], "'shards' is not a list"),
        ("331", "'shards' is not a list"),
        (7, "'shards' is not a list"),
        (None, "'shards' is not a list"),
        ([], "its shards hold 0 rows"),
        ([7], "has .*sequences.npy|expected uint8"),
        ([1, 3, 3], "expected uint8 of shape"),
        ([3, 3, 0.5, 0.5], "'shards' is not a list"),
    ],
    ids=str,
)
def test_damaged_list_of_shards(folder, shards, words):
    file = folder / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shards": shards}))
    with pytest.raises(ValueError, match=words):
        open_dataset(folder)


def test_checksum_of_a_shard_is_missing(folder):
    file = folder / "dataset.json"
    description = json.loads(file.read_text())
    del description["sha256"]["shards/00001/labels.npy"]
    file.write_text(json.dumps(description))
    with refused(file, "has no SHA-256 of shards/00001/labels.npy"):
        open_dataset(folder)


def test_fingerprint_depends_on_every_shard(tmp_path, folder):
    other = make(tmp_path / "other", 35)
    assert open_dataset(other).fingerprint == open_dataset(folder).fingerprint
    changed = folder / "shards" / "00002" / "sequences.npy"
    stored = np.load(changed, mmap_mode="r+")
    stored[0, 0] = (stored[0, 0] + 1) % 4
    stored.flush()
    file = folder / "dataset.json"
    description = json.loads(file.read_text())
    description["sha256"]["shards/00002/sequences.npy"] = sha256(changed)
    file.write_text(json.dumps(description))
    assert open_dataset(other).fingerprint != open_dataset(folder).fingerprint
