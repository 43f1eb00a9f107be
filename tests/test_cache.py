"""The cache of simulated datasets: where it is, and that it simulates once."""

import multiprocessing
import shutil
from pathlib import Path

import pytest

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.errors import InputError
from tal1_hvd.simulation import cache
from tal1_hvd.simulation.settings import SimulationSettings

pytestmark = pytest.mark.usefixtures("encode_motifs_are_read_once")

SETTINGS = SimulationSettings(length=100, center=70, positives=20, negatives=20)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Give each test a home and a cache of its own, and one process to simulate in."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "usable_cores", lambda: 1)
    return tmp_path / "home"


def test_dataset_is_made_once_under_xdg_cache_home(tmp_path, home):
    told = []
    made = cache.cached_dataset(SETTINGS, told.append)
    assert made.parent == tmp_path / "cache" / "tal1_hvd" / "datasets"
    assert SETTINGS.task in made.name
    assert len(open_dataset(made)) == 40
    assert len(told) == 1
    assert "40 sequences" in told[0] and str(made) in told[0]

    changed = (made / "dataset.json").stat().st_mtime_ns
    assert cache.cached_dataset(SETTINGS, told.append) == made
    assert len(told) == 1
    assert (made / "dataset.json").stat().st_mtime_ns == changed
    assert not home.exists()


def test_what_a_killed_process_left_is_removed():
    made = cache.cached_dataset(SETTINGS)
    shutil.rmtree(made)
    left, other = (made.with_name(f".{name}.x1.tmp") for name in (made.name, "presence-abc"))
    for folder in (left, other):
        folder.mkdir()
        (folder / "sequences.npy").touch()
    cache.cached_dataset(SETTINGS)
    assert other.exists()
    assert not left.exists()


@pytest.mark.parametrize("value", [None, ""])
def test_cache_is_in_the_home_folder_by_default(home, monkeypatch, value):
    if value is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    made = cache.cached_dataset(SETTINGS)
    assert made.parent == home / ".cache" / "tal1_hvd" / "datasets"


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"gc": 0.5}, {"task": "presence"}, {"negatives": 30}]
)
def test_other_settings_are_other_data(other):
    changed = SimulationSettings(**{**vars(SETTINGS), **other})
    first, second = cache.cached_dataset(SETTINGS), cache.cached_dataset(changed)
    assert first != second
    parameters = open_dataset(second).description["parameters"]
    assert {name: parameters[name] for name in other} == other


def test_another_format_version_is_made_anew(monkeypatch):
    first = cache.cached_dataset(SETTINGS)
    monkeypatch.setattr(cache, "FORMAT_VERSION", 999)
    assert cache.cached_dataset(SETTINGS) != first


def test_changed_motif_file_is_other_data(tmp_path):
    motif_file = tmp_path / "motif.jaspar"

    def made_with(strong, weak):
        motif_file.write_text(f">M1\n{strong} {strong}\n{weak} {weak}\n0 0\n0 0\n")
        given = vars(SETTINGS) | {"motifs": ("M1",), "motif_file": str(motif_file)}
        return (cache.cached_dataset(SimulationSettings(**given)) / "sequences.npy").read_bytes()

    assert made_with(1, 0) != made_with(0, 1)


def test_failed_simulation_leaves_no_dataset():
    broken = SimulationSettings(**{**vars(SETTINGS), "motifs": ("TAL1_known",)})
    with pytest.raises(InputError, match="--motif: 'TAL1_known'"):
        cache.cached_dataset(broken)
    folder = Path(cache.cached_dataset(SETTINGS)).parent
    assert [path for path in folder.iterdir() if path.is_dir()] == [cache.cached_dataset(SETTINGS)]


@pytest.mark.parametrize("in_the_way", ["", "tal1_hvd", "tal1_hvd/datasets"])
def test_unwritable_cache(tmp_path, in_the_way):
    obstacle = tmp_path / "cache" / in_the_way
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    obstacle.write_text("a file in the way")
    with pytest.raises(InputError, match=r"cache cannot be written.*--data.*XDG_CACHE_HOME") as why:
        cache.cached_dataset(SETTINGS)
    assert str(tmp_path / "cache") in str(why.value)
    assert obstacle.read_text() == "a file in the way"


def ask(barrier, answers):
    """Ask for the dataset as a process of its own; the environment names the cache."""
    cache.usable_cores = lambda: 1
    told = []
    barrier.wait(60)
    answers.put((str(cache.cached_dataset(SETTINGS, told.append)), len(told)))


def test_processes_at_once_simulate_once():
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    processes = [context.Process(target=ask, args=(barrier, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    (first, told_first), (second, told_second) = (answers.get(timeout=60) for _ in range(2))
    assert first == second
    assert sorted([told_first, told_second]) == [0, 1]
    assert len(open_dataset(first)) == 40
    folders = [path for path in Path(first).parent.iterdir() if path.is_dir()]
    assert folders == [Path(first)]
