"""Sites are those that simdna draws from the same random state."""

from __future__ import annotations

import numpy as np
import pytest
import simdna
from simdna.pwm import PWM
from simdna.synthetic import PwmSampler

from tal1_hvd.simulation.motifs import load_motifs
from tal1_hvd.simulation.pwm_sampler import QuickPwmSampler

pytestmark = pytest.mark.usefixtures("encode_motifs_are_read_once")


@pytest.fixture(autouse=True)
def state():
    """Leave simdna's random state as it was."""
    before = simdna.random.get_state()
    yield
    simdna.random.set_state(before)


def drawn(sampler, count=2000):
    simdna.random.seed(7)
    return [sampler.generateSubstring() for _ in range(count)], simdna.random.rand()


@pytest.mark.parametrize("name", ["TAL1_known4", "GATA_known1", "CTCF_known1"])
def test_same_sites_and_state_as_simdnas(name):
    (motif,) = load_motifs([name])
    assert drawn(QuickPwmSampler(motif)) == drawn(PwmSampler(motif))


def test_random_matrices():
    rng = np.random.default_rng(0)
    for width in (1, 2, 31):
        motif = PWM("M").addRows(rng.dirichlet([0.2] * 4, width).tolist()).finalise(0)
        assert drawn(QuickPwmSampler(motif), 500) == drawn(PwmSampler(motif), 500)


def test_certain_bases_and_the_rest_of_rounding():
    third = 1 / 3
    rows = [[0, 0, 1, 0], [0, 0, 0, 1], [third, third, third - 1e-5, 0]]
    motif = PWM("M").addRows(rows).finalise(0)
    sites, _ = drawn(QuickPwmSampler(motif))
    assert {site[:2] for site, _ in sites} == {"GT"}
    assert {name for _, name in sites} == {"M"}
    assert (sites, _) == drawn(PwmSampler(motif))


def test_describes_itself_as_simdnas():
    (motif,) = load_motifs(["TAL1_known4"])
    assert QuickPwmSampler(motif).getJsonableObject() == PwmSampler(motif).getJsonableObject()
