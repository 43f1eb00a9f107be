"""Checkpoints come back bit by bit, or are refused; a run's progress decides how it goes on."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import pickle
import tracemalloc
import zipfile

import keras
import numpy as np
import pytest

from tal1_hvd.aggregation.base import assign
from tal1_hvd.errors import InputError
from tal1_hvd.training import checkpoint
from tal1_hvd.training.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    Progress,
    load_checkpoint,
    require_fit,
    save_checkpoint,
)

MODEL = [
    np.array([[0.1, -0.0], [np.inf, 1e-45]], dtype=np.float32),
    np.array([np.nan, -1e308, 1 / 3]),
]
OPTIMIZER = [np.int64(12_345_678_901), np.float32(1e-3), np.zeros((0, 2), np.float32)]
BEST = [array[::-1].copy() for array in MODEL]
MEMBERS = [
    f"{group}/{i}"
    for group, arrays in (("model", MODEL), ("optimizer", OPTIMIZER), ("best", BEST))
    for i in range(len(arrays))
]
PROGRESS = Progress(
    epoch=3,
    best_epoch=2,
    best_loss=0.1 + 0.2,
    train_seconds=1 / 3,
    history=[{"epoch": i, "validation_loss": i * 1e-17, "auroc": None} for i in (1, 2, 3)],
    examples=640,
    sums=[[1 / 3, 300.0], [2 / 3, 20.0]],
    steps=40,
    seen=5120,
)

# What a run's own checkpoints look like.
OWN = Checkpoint(Progress(), MODEL, OPTIMIZER, MODEL)


def variables(arrays):
    return [keras.Variable(array, dtype=array.dtype.name) for array in arrays]


def bits(arrays):
    return [(array.dtype, array.shape, array.tobytes()) for array in map(np.asarray, arrays)]


def contents(loaded):
    groups = [bits(group) for group in (loaded.model, loaded.optimizer, loaded.best)]
    return [json.dumps(dataclasses.asdict(loaded.progress)), *groups]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "last.npz"
    save_checkpoint(path, Checkpoint(PROGRESS, MODEL, OPTIMIZER, BEST))
    return path


def rezip(path, changes):
    """Replace parts of a checkpoint's zip file by other bytes."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()} | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def members(path):
    with np.load(path) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def resume():
    """Load and check as a resumed run does, and return all that it then goes on from."""

    def resume(path):
        loaded = load_checkpoint(path)
        require_fit(path, loaded, OWN)
        return contents(loaded)

    return resume


def refused(path, text="not a checkpoint, or damaged"):
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: {text}")


class TestRoundTrip:
    def test_bit_by_bit(self, path):
        loaded = load_checkpoint(path)
        assert bits(loaded.model) == bits(MODEL)
        assert bits(loaded.optimizer) == bits(OPTIMIZER)
        assert bits(loaded.best) == bits(BEST)
        assert loaded.progress == PROGRESS

    def test_before_the_first_epoch(self, tmp_path):
        save_checkpoint(tmp_path / "x.npz", Checkpoint(Progress(), MODEL, [], []))
        loaded = load_checkpoint(tmp_path / "x.npz")
        assert loaded.progress == Progress()
        assert (loaded.optimizer, loaded.best) == ([], [])

    def test_more_than_ten_variables_keep_their_order(self, tmp_path):
        arrays = [np.float32(i) for i in range(25)]
        save_checkpoint(tmp_path / "x.npz", Checkpoint(Progress(), arrays, [], []))
        assert [int(array) for array in load_checkpoint(tmp_path / "x.npz").model] == list(
            range(25)
        )

    def test_assign(self, path):
        targets = variables([np.ones_like(array) for array in MODEL])
        assign(targets, load_checkpoint(path).model)
        assert bits(targets) == bits(MODEL)

    def test_nothing_is_pickled(self, path):
        assert all(array.dtype != object for array in members(path).values())


class TestDamage:
    @pytest.mark.parametrize("part", np.linspace(0, 0.999, 12))
    def test_truncated(self, path, part):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(part * len(whole))])
        refused(path)

    @pytest.mark.parametrize("missing", [1, 2, 21, 22, 23, 100])
    def test_truncated_by_a_few_bytes(self, path, missing):
        path.write_bytes(path.read_bytes()[:-missing])
        refused(path)

    def test_flipped_bits(self, path, resume):
        """A flipped bit is noticed, or it stands where it does not matter."""
        whole, undamaged = path.read_bytes(), resume(path)
        # Some bytes of the arrays, and more of the directory behind them.
        positions = [*range(0, len(whole) - 600, 9), *range(len(whole) - 600, len(whole), 2)]
        bits = np.random.default_rng(0).integers(8, size=len(positions))
        wrong = {}
        for position, bit in zip(positions, bits, strict=True):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                if resume(path) != undamaged:
                    wrong[position, int(bit)] = "other contents"
            except InputError:
                pass
            except Exception as error:
                wrong[position, int(bit)] = repr(error)
        assert wrong == {}

    @pytest.mark.parametrize("member", ["note", *MEMBERS])
    def test_missing_member(self, path, resume, member):
        arrays = members(path)
        del arrays[member]
        np.savez(path, **arrays)
        with pytest.raises(InputError):
            resume(path)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint\n", b"\x80\x04N."])
    def test_other_files(self, path, content):
        path.write_bytes(content)
        refused(path)

    def test_single_array(self, path):
        with path.open("wb") as handle:
            np.save(handle, np.zeros(3))
        refused(path)

    def test_missing_or_folder(self, tmp_path):
        refused(tmp_path / "none.npz")
        refused(tmp_path)

    @pytest.mark.parametrize(
        "note",
        [
            b"{",
            b"\xff",
            b"[]",
            b"null",
            b"{}",
            b'{"format_version": 1}',
            b'{"format_version": 1, "progress": 3}',
            b'{"format_version": 1, "progress": {"epochs": 3}}',
            b'{"format_version": 1, "progress": {"epoch": "3"}}',
            b'{"format_version": 1, "progress": {"epoch": 3}}',
            b'{"format_version": 1, "progress": {"best_epoch": 1}}',
        ],
    )
    def test_notes_of_others(self, path, note):
        np.savez(path, **members(path) | {"note": np.frombuffer(note, np.uint8)})
        refused(path)

    @pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1", None])
    def test_other_versions(self, path, version):
        note = json.dumps({"format_version": version, "progress": {}}).encode()
        np.savez(path, **members(path) | {"note": np.frombuffer(note, np.uint8)})
        refused(path, f"checkpoint format version {version!r}, this version reads 1")

    @pytest.mark.parametrize("member", ["model/0", "note", "best/0"])
    def test_pickle_is_not_opened(self, path, tmp_path, member):
        trap = tmp_path / "sprung"

        class Trap:
            def __reduce__(self):
                return trap.touch, ()

        np.savez(path, allow_pickle=True, **members(path) | {member: np.array([Trap()])})
        refused(path)
        assert not trap.exists()

    @pytest.mark.parametrize(
        "shape", [(10**12,), (10**9,), (2**62, 4), (-1,), (10**30,), (0, 10**30)]
    )
    @pytest.mark.parametrize("member", ["model/0", "note"])
    def test_array_that_is_smaller_than_it_says(self, path, member, shape):
        header = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, description)
        rezip(path, {f"{member}.npy": header.getvalue()})
        refused(path)

    def test_header_that_is_no_python(self, path):
        header = b"{'descr': '|u1',n_or: False, 'shape': (40,.. }"
        rezip(path, {"model/0.npy": b"\x93NUMPY\1\0" + bytes([len(header), 0]) + header})
        refused(path)

    def test_compressed_to_a_thousandth(self, path):
        arrays = members(path) | {"model/0": np.zeros(10_000_000, np.float32)}
        np.savez_compressed(path, **arrays)
        refused(path, "not a checkpoint, or damaged (note.npy in it is compressed)")

    def test_compressed_and_said_to_be_small(self, path):
        """Python's zipfile unpacks first, and cuts off what is more than was said."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
            archive.writestr("note.npy", b"0" * 100_000_000)
            archive.infolist()[0].file_size = 40
        assert path.stat().st_size < 1000
        tracemalloc.start()
        refused(path, "not a checkpoint, or damaged (note.npy in it is compressed)")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.stop()

    def test_header_nested_beyond_the_parser(self, path):
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"-" * 9000 + b"1,)}\n"
        size = len(header).to_bytes(2, "little")
        rezip(path, {"model/0.npy": b"\x93NUMPY\1\0" + size + header})
        refused(path)

    @pytest.mark.parametrize("row", [{"epoch": "1"}, {"epoch": 2, "more": [1]}, {"epoch": 2}, {}])
    def test_history_of_something_else(self, path, row):
        arrays = members(path)
        note = json.loads(arrays["note"].tobytes())
        note["progress"]["history"][-1] = row
        note["progress"]["history"][0]["more"] = 1
        np.savez(path, **arrays | {"note": np.frombuffer(json.dumps(note).encode(), np.uint8)})
        refused(path, "not a checkpoint, or damaged (its progress makes no sense")

    def test_pickle_in_place_of_the_file(self, path, tmp_path):
        class Trap:
            def __reduce__(self):
                return (tmp_path / "sprung").touch, ()

        path.write_bytes(pickle.dumps(Trap()))
        refused(path)
        assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("group", ["model", "optimizer", "best"])
@pytest.mark.parametrize(
    "others",
    [
        lambda arrays: arrays[:-1],
        lambda arrays: [*arrays, arrays[0]],
        lambda arrays: arrays[::-1],
        lambda arrays: [np.reshape(arrays[0], (1, -1)), *arrays[1:]],
        lambda arrays: [np.asarray(arrays[0], np.complex128), *arrays[1:]],
        lambda arrays: [],
    ],
    ids=["fewer", "more", "other order", "other shape", "other dtype", "none"],
)
def test_other_models_checkpoint(path, group, others):
    own = {"model": MODEL, "optimizer": OPTIMIZER, "best": MODEL}
    groups = own | {group: others(own[group])}
    with pytest.raises(InputError) as caught:
        found = Checkpoint(PROGRESS, **groups)
        require_fit(path, found, OWN)
    assert str(caught.value).startswith(f"{path}: holds other variables than this run's")


def test_own_models_checkpoint(path):
    require_fit(path, load_checkpoint(path), OWN)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr
)
def test_interrupted_write_keeps_the_one_before(path, monkeypatch, error):
    before = path.read_bytes()

    def interrupted(handle, **arrays):
        handle.write(b"PK half a checkpoint")
        handle.flush()
        raise error

    monkeypatch.setattr(checkpoint.np, "savez", interrupted)
    with pytest.raises(type(error)):
        save_checkpoint(path, Checkpoint(Progress(epoch=9), MODEL, [], []))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["last.npz"]
