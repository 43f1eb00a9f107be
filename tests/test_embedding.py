"""Sites are planted where, and as, simdna plants them from the same random state."""

from __future__ import annotations

import numpy as np
import pytest
import simdna
from hypothesis import given
from hypothesis import strategies as st
from simdna.synthetic import EmbedInABackground, GenerateSequenceNTimes
from simdna.synthetic.core import PriorEmbeddedThings_numpyArrayBacked
from simdna.synthetic.embeddables import StringEmbeddable

from tal1_hvd.data.encoding import decode, encode
from tal1_hvd.simulation.background import NumpyBackground
from tal1_hvd.simulation.embedding import Codes, Occupied, embed
from tal1_hvd.simulation.motifs import load_motifs
from tal1_hvd.simulation.settings import TASK_SUMMARIES, SimulationSettings
from tal1_hvd.simulation.tasks import embedders

pytestmark = pytest.mark.usefixtures("encode_motifs_are_read_once")

COUNT = 30
TWO = ("TAL1_known4", "GATA_known1")


def background(settings):
    return NumpyBackground(settings.length, settings.gc, COUNT, np.random.default_rng(3))


def sites(embeddings):
    return [(e.startPos, len(e.what), e.what.getDescription(), str(e.what)) for e in embeddings]


@pytest.fixture(autouse=True)
def state():
    """Leave simdna's random state as it was."""
    before = simdna.random.get_state()
    simdna.random.seed(7)
    yield
    simdna.random.set_state(before)


@pytest.mark.parametrize("label", [0, 1], ids=["positives", "negatives"])
@pytest.mark.parametrize("task", TASK_SUMMARIES)
def test_same_sequences_and_state_as_simdnas(task, label, capsys):
    motifs = TWO if task in ("multi-motif-embedding", "heterodimer-grammar") else TWO[:1]
    # So short that sites often meet, and simdna tries again.
    settings = SimulationSettings(task=task, motifs=motifs, length=90, center=80)
    planting = embedders(settings, load_motifs(motifs))[label]
    theirs = GenerateSequenceNTimes(EmbedInABackground(background(settings), planting), COUNT)
    expected = [(made.seq, sites(made.embeddings)) for made in theirs.generateSequences()]
    after, warned = simdna.random.rand(), capsys.readouterr().out
    simdna.random.seed(7)
    block = background(settings)
    planted = [sites(embed(block.generateBackground(), planting)) for _ in range(COUNT)]
    found = [(decode(row), own) for row, own in zip(block.codes, planted, strict=True)]
    assert found == expected
    assert (simdna.random.rand(), capsys.readouterr().out) == (after, warned)


def test_words_are_written_as_codes():
    row = encode("AAAACCCC")
    codes = Codes(row)
    codes[2:6] = "GTTG"
    assert decode(row) == "AAGTTGCC"
    assert "".join(codes) == "AAGTTGCC"
    assert len(codes) == 8


@given(st.lists(st.tuples(st.integers(0, 18), st.integers(1, 6)), max_size=6))
def test_occupied_as_by_simdna(places):
    ours, theirs = Occupied(20), PriorEmbeddedThings_numpyArrayBacked(20)
    for start, width in places:
        stop = min(start + width, 20)
        assert ours.canEmbed(start, stop) == theirs.canEmbed(start, stop)
        # Pairs of sites mark their places twice.
        for prior in (ours, theirs):
            prior.addEmbedding(start, StringEmbeddable("A" * (stop - start), "a"))
        assert ours.getNumOccupiedPos() == theirs.getNumOccupiedPos()
    assert ours.getTotalPos() == theirs.getTotalPos()
    assert sites(ours.getEmbeddings()) == sites(theirs.getEmbeddings())
