"""The dataset folder: what is written, what is opened, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tal1_hvd import __version__
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.dataset_writer import create_dataset
from tal1_hvd.data.encoding import decode, encode
from tal1_hvd.data.files import sha256
from tal1_hvd.data.sites import Site
from tests.helpers import names, refused

SEQUENCES = ["ACGTN", "AAAAA", "CAGCT", "TTTGN"]
LABELS = [1, 1, 0, 0]
SPLITS = [0, 1, 0, 2]
IDS = ["p0", "p1", "n0", "n1"]
SITES = [Site("p0", 1, 4, "TAL1_known4", "+"), Site("n1", 0, 5, "GATA1", "-")]
DATA_FILES = ["ids.txt", "labels.npy", "sequences.npy", "sites.bed", "splits.npy"]


def make(out, **changes):
    """Write the toy dataset."""
    options = {
        "labels": np.array(LABELS),
        "splits": np.array(SPLITS),
        "ids": IDS,
        "task": "toy",
        "parameters": {"gc": 0.4, "motifs": ["TAL1_known4"]},
        "seed": 7,
        "sites": SITES,
    } | changes
    with create_dataset(out, 4, 5) as writer:
        for row, sequence in enumerate(SEQUENCES):
            writer.put(row, encode(sequence)[None])
        writer.finish(**options)
    return out


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "data")


def describe(folder, **changes):
    """Change lines of dataset.json; None takes one out."""
    file = folder / "dataset.json"
    description = json.loads(file.read_text()) | changes
    kept = {key: value for key, value in description.items() if value is not None}
    file.write_text(json.dumps(kept))


def test_files_by_hand(folder):
    assert names(folder) == sorted([*DATA_FILES, "dataset.json"])
    assert (folder / "ids.txt").read_text() == "p0\np1\nn0\nn1\n"
    assert (folder / "sites.bed").read_text() == (
        "p0\t1\t4\tTAL1_known4\t0\t+\nn1\t0\t5\tGATA1\t0\t-\n"
    )
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("sequences", "labels", "splits")}
    assert {array.dtype.name for array in arrays.values()} == {"uint8"}
    assert arrays["sequences"].tolist()[0] == [0, 1, 2, 3, 4]
    assert arrays["sequences"].shape == (4, 5)
    assert arrays["labels"].tolist() == LABELS
    assert arrays["splits"].tolist() == SPLITS


def test_description_by_hand(folder):
    description = json.loads((folder / "dataset.json").read_text())
    assert description == {
        "format_version": 1,
        "tool_version": __version__,
        "task": "toy",
        "parameters": {"gc": 0.4, "motifs": ["TAL1_known4"]},
        "seed": 7,
        "alphabet": "ACGTN",
        "length": 5,
        "count": 4,
        "positives": 2,
        "negatives": 2,
        "splits": {"train": 2, "validation": 1, "test": 1},
        "sha256": {name: sha256(folder / name) for name in DATA_FILES},
    }


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["text", "Path"])
def test_what_was_written_is_opened(folder, kind):
    dataset = open_dataset(kind(folder))
    assert (len(dataset), dataset.length) == (4, 5)
    assert isinstance(dataset.sequences, np.memmap)
    assert [decode(row) for row in dataset.sequences] == SEQUENCES
    assert dataset.labels.tolist() == LABELS
    assert dataset.splits.tolist() == SPLITS
    assert dataset.ids() == IDS
    assert dataset.sites() == SITES
    assert dataset.description["seed"] == 7


def test_opened_sequences_cannot_be_changed(folder):
    with pytest.raises(ValueError, match="read-only"):
        open_dataset(folder).sequences[0, 0] = 3


@pytest.mark.parametrize(
    ("split", "rows"),
    [("train", [0, 2]), ("validation", [1]), ("test", [3]), ("all", [0, 1, 2, 3])],
)
def test_rows_of_a_split(folder, split, rows):
    assert open_dataset(folder).rows(split).tolist() == rows


def test_only_simulated_data_has_sites_or_none(tmp_path):
    imported, simulated = (make(tmp_path / str(sites), sites=sites) for sites in (None, []))
    assert "sites.bed" not in names(imported)
    assert (simulated / "sites.bed").read_text() == ""
    assert open_dataset(imported).sites() == open_dataset(simulated).sites() == []


def test_equal_data_gives_equal_bytes(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    for name in names(one):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"parameters": {}, "seed": 8, "task": "other"}, True),
        ({"labels": np.array([1, 0, 0, 0])}, False),
        ({"splits": np.array([0, 1, 2, 2])}, False),
    ],
    ids=["all equal", "other words", "other labels", "other splits"],
)
def test_fingerprint_is_that_of_the_arrays(tmp_path, folder, changes, same):
    other = open_dataset(make(tmp_path / "other", **changes))
    assert (open_dataset(folder).fingerprint == other.fingerprint) == same


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "data").mkdir()
    assert len(open_dataset(make(tmp_path / "data"))) == 4


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), create_dataset(tmp_path / "data", 4, 5) as writer:
        writer.put(0, np.zeros((4, 5), dtype=np.uint8))
        raise RuntimeError
    with pytest.raises(TypeError, match="JSON"):
        make(tmp_path / "data", parameters={"path": tmp_path})
    assert names(tmp_path) == []


def test_existing_dataset_is_not_replaced(folder):
    before = (folder / "dataset.json").read_bytes()
    with refused(folder, "exists already"):
        make(folder, task="other")
    assert (folder / "dataset.json").read_bytes() == before
    assert names(folder.parent) == ["data"]


def test_dataset_under_a_file(tmp_path):
    (tmp_path / "file").write_text("old")
    with refused(tmp_path / "file" / "data", "cannot be written"):
        make(tmp_path / "file" / "data")
    assert names(tmp_path) == ["file"]


def test_missing_folder_tells_how_to_make_one(tmp_path):
    with refused(tmp_path / "none", "no such dataset folder", "simulate", "import"):
        open_dataset(tmp_path / "none")


def test_folder_of_something_else(tmp_path):
    with refused(tmp_path, "not a dataset folder", "no dataset.json"):
        open_dataset(tmp_path)


def test_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "x.fa").write_text(">a\nA\n")
    with refused(tmp_path / "x.fa", "a file, not a dataset folder"):
        open_dataset(tmp_path / "x.fa")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b'{"count": 4'], ids=["empty", "{", "binary", "cut"]
)
def test_description_that_is_no_json(folder, content):
    (folder / "dataset.json").write_bytes(content)
    with refused(folder / "dataset.json", "cannot be read"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("content", "version"),
    [
        ("[]", "None"),
        ("{}", "None"),
        ('{"format_version": 2}', "2"),
        ('{"format_version": "1"}', "'1'"),
    ],
)
def test_other_format_version(folder, content, version):
    (folder / "dataset.json").write_text(content)
    with refused(
        folder / "dataset.json", f"format version {version}", "reads version 1", "make the dataset"
    ):
        open_dataset(folder)


@pytest.mark.parametrize("value", [None, "wrong", []], ids=["missing", "text", "list"])
@pytest.mark.parametrize(
    ("key", "kind"), [("count", "int"), ("length", "int"), ("sha256", "dict"), ("task", "str")]
)
def test_incomplete_description(folder, key, kind, value):
    if kind == "str" and value == "wrong":
        value = 5
    describe(folder, **{key: value})
    with refused(folder / "dataset.json", repr(key), kind):
        open_dataset(folder)


@pytest.mark.parametrize("key", ["count", "length"])
@pytest.mark.parametrize("value", [0, -1])
def test_dataset_of_nothing(folder, key, value):
    describe(folder, **{key: value})
    with refused(folder / "dataset.json", "no sequences"):
        open_dataset(folder)


@pytest.mark.parametrize("name", DATA_FILES)
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with refused(folder / name, "cannot be read", "No such file"):
        open_dataset(folder)


@pytest.mark.parametrize("name", DATA_FILES)
@pytest.mark.parametrize("edit", ["last byte", "longer", "emptied"])
def test_edited_file_is_caught(folder, name, edit):
    content = bytearray((folder / name).read_bytes())
    if edit == "last byte":
        content[-1] ^= 1
    content = {"longer": content + b"\n", "emptied": b""}.get(edit, content)
    (folder / name).write_bytes(content)
    with refused(
        folder / name, "was changed", "make the dataset again", sha256(folder / name)[:12]
    ):
        open_dataset(folder)


@pytest.mark.parametrize("name", ["sequences.npy", "labels.npy", "splits.npy", "ids.txt"])
def test_file_without_checksum_is_not_taken_on_trust(folder, name):
    checksums = open_dataset(folder).description["sha256"]
    describe(folder, sha256={key: value for key, value in checksums.items() if key != name})
    with refused(folder / "dataset.json", name):
        open_dataset(folder)


def test_checksums_can_be_left_unchecked(folder):
    (folder / "ids.txt").write_text("a\nb\nc\nd\n")
    assert open_dataset(folder, verify=False).ids() == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("name", "wanted", "array", "found"),
    [
        ("sequences.npy", "(4, 5)", np.zeros((4, 6), np.uint8), "uint8 of shape (4, 6)"),
        ("sequences.npy", "(4, 5)", np.zeros((3, 5), np.uint8), "uint8 of shape (3, 5)"),
        ("sequences.npy", "(4, 5)", np.zeros((4, 5), np.int64), "int64 of shape (4, 5)"),
        ("labels.npy", "(4,)", np.zeros(5, np.uint8), "uint8 of shape (5,)"),
        ("labels.npy", "(4,)", np.zeros((4, 1), np.uint8), "uint8 of shape (4, 1)"),
        ("splits.npy", "(4,)", np.zeros(4, np.float32), "float32 of shape (4,)"),
        ("splits.npy", "(4,)", np.zeros(4, bool), "bool of shape (4,)"),
    ],
)
def test_array_of_wrong_type_or_shape(folder, name, wanted, array, found):
    np.save(folder / name, array)
    with refused(folder / name, f"expected uint8 of shape {wanted}", f"got {found}"):
        open_dataset(folder, verify=False)


@pytest.mark.parametrize("cache_mb", [0, 512])
def test_columns_one_after_the_other(folder, cache_mb):
    """They would be read as rows where only a part is kept in memory."""
    codes = np.load(folder / "sequences.npy")
    np.save(folder / "sequences.npy", np.asfortranarray(codes))
    with refused(folder / "sequences.npy", "rows one after the other", "got columns"):
        open_dataset(folder, verify=False, cache_mb=cache_mb)


def test_file_cut_short_later(folder):
    dataset = open_dataset(folder)
    dataset.require_whole()
    file = folder / "sequences.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with refused(file, "was cut short after it was opened"):
        dataset.require_whole()
    file.unlink()
    dataset.require_whole()


def spoil(file, how):
    """Make an array's file unreadable."""
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif how == "cut in the header":
        file.write_bytes(file.read_bytes()[:20])
    elif how == "pickle":
        np.save(file, np.array([{}, None, 1, 2], dtype=object))
    elif how == "npz":
        with file.open("wb") as handle:
            np.savez(handle, np.zeros(4, np.uint8))
    else:
        file.write_bytes({"empty": b"", "text": b"1\n1\n0\n0\n", "zip": b"PK\x03\x04 garbage"}[how])


@pytest.mark.parametrize("name", ["sequences.npy", "labels.npy", "splits.npy"])
@pytest.mark.parametrize(
    "how", ["missing", "truncated", "cut in the header", "pickle", "npz", "empty", "text", "zip"]
)
def test_unreadable_array_is_named(folder, name, how):
    spoil(folder / name, how)
    with refused(folder / name):
        open_dataset(folder, verify=False)


@pytest.mark.parametrize("name", ["sequences.npy", "labels.npy", "splits.npy"])
@pytest.mark.parametrize("shape", ["(1000000000000,)", "(-1,)", f"({10**30},)", "(4,..", "()"])
def test_array_that_is_smaller_than_it_says(folder, name, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode()
    (folder / name).write_bytes(b"\x93NUMPY\1\0\x76\0" + header + b"\n1234")
    with refused(folder / name):
        open_dataset(folder, verify=False)


@pytest.mark.parametrize(("name", "value"), [("labels", 2), ("splits", 3), ("splits", 255)])
def test_unknown_label_or_split(tmp_path, name, value):
    folder = make(tmp_path / "data", **{name: np.array([0, 1, value, 0])})
    with refused(folder / f"{name}.npy", f"{name} other than 0"):
        open_dataset(folder)
