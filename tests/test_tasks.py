"""What each task plants in its positives and its negatives, and which settings it refuses."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.errors import InputError
from tal1_hvd.simulation.motifs import load_motifs
from tal1_hvd.simulation.settings import TASK_SUMMARIES, SimulationSettings
from tal1_hvd.simulation.simulate import simulate
from tal1_hvd.simulation.tasks import embedders

pytestmark = pytest.mark.usefixtures("encode_motifs_are_read_once")

TAL1, GATA, AP1 = "TAL1_known4", "GATA_disc1", "AP1_disc1"
COUNT, LENGTH = 300, 200


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    """Simulate a task; return its positives and negatives, each a list of the sites in order."""

    def planted(**settings):
        out = tmp_path_factory.mktemp("task") / "data"
        given = {"positives": COUNT, "negatives": COUNT, "length": LENGTH, "center": LENGTH}
        data = open_dataset(simulate(SimulationSettings(**given | settings), out))
        sites = {name: [] for name in data.ids()}
        for site in data.sites():
            sites[site.sequence_id].append(site)
        groups = [sorted(group, key=lambda site: site.start) for group in sites.values()]
        for group in groups:
            assert all(0 <= site.start < site.end <= LENGTH for site in group)
            assert all(a.end <= b.start for a, b in pairwise(group))
        return tuple(
            [group for group, label in zip(groups, data.labels, strict=True) if label == wanted]
            for wanted in (1, 0)
        )

    return planted


def assert_uniform(values, levels):
    counts = Counter(values)
    assert set(counts) == set(levels)
    observed = [counts[level] for level in levels]
    assert len(observed) == 1 or stats.chisquare(observed).pvalue > 0.001


def assert_only(groups, motif):
    assert {site.motif for group in groups for site in group} <= {motif}


def test_density_localization(plant):
    positives, negatives = plant(center=70)
    for groups in (positives, negatives):
        assert_only(groups, TAL1)
        assert_uniform(map(len, groups), range(2, 5))
    assert all(site.start >= 65 and site.end <= 135 for group in positives for site in group)
    outside = [site for group in negatives for site in group if site.end <= 65 or site.start >= 135]
    assert len(outside) > sum(map(len, negatives)) / 2


def test_presence(plant):
    positives, negatives = plant(task="presence", min_sites=1, max_sites=3)
    assert_only(positives, TAL1)
    assert_uniform(map(len, positives), range(1, 4))
    assert not any(negatives)


def test_single_motif_detection(plant):
    positives, negatives = plant(task="single-motif-detection", motifs=(GATA,))
    assert_only(positives, GATA)
    assert {len(group) for group in positives} == {1}
    assert not any(negatives)
    starts = [group[0].start for group in positives]
    assert stats.kstest(starts, stats.randint(0, LENGTH - 10 + 1).cdf).pvalue > 0.001


@pytest.mark.parametrize("fewest", [1, 3])
def test_motif_counting(plant, fewest):
    positives, negatives = plant(task="motif-counting", min_sites=fewest, max_sites=fewest + 1)
    for groups in (positives, negatives):
        assert_only(groups, TAL1)
    assert_uniform(map(len, positives), (fewest, fewest + 1))
    assert_uniform(map(len, negatives), range(fewest))


@pytest.mark.parametrize("others", [(GATA,), (GATA, AP1)])
def test_multi_motif_embedding(plant, others):
    positives, negatives = plant(task="multi-motif-embedding", motifs=(TAL1, *others))
    for groups, targets in ((positives, 1), (negatives, 0)):
        motifs = [Counter(site.motif for site in group) for group in groups]
        assert {count[TAL1] for count in motifs} == {targets}
        assert max(count[other] for count in motifs for other in others) == 1
        assert_uniform([count.total() - targets for count in motifs], range(len(others) + 1))
        assert_uniform((other for count in motifs for other in count if other != TAL1), others)


@pytest.mark.parametrize(("low", "high"), [(2, 5), (0, 0), (7, 7)])
def test_heterodimer_grammar(plant, low, high):
    positives, negatives = plant(
        task="heterodimer-grammar", motifs=(TAL1, GATA), min_spacing=low, max_spacing=high
    )
    gaps = []
    for groups in (positives, negatives):
        assert all(sorted(site.motif for site in group) == [GATA, TAL1] for group in groups)
        strands = [tuple(site.strand for site in sorted(g, key=lambda s: s.motif)) for g in groups]
        assert_uniform(strands, [(a, b) for a in "+-" for b in "+-"])
        gaps.append(np.array([second.start - first.end for first, second in groups]))
    assert_uniform(gaps[0], range(low, high + 1))
    near = (low <= gaps[1]) & (gaps[1] <= high)
    assert near.mean() < 0.15
    assert gaps[1].max() > 100
    # Negatives hold the two in either order.
    assert 0.4 < np.mean([first.motif == TAL1 for first, _ in negatives]) < 0.6


def test_heterodimer_pairs_lie_anywhere(plant):
    motifs = load_motifs([TAL1, GATA])
    positives, _ = plant(
        task="heterodimer-grammar", motifs=(TAL1, GATA), min_spacing=3, max_spacing=3
    )
    width = sum(motif.pwmSize for motif in motifs) + 3
    starts = [group[0].start for group in positives]
    assert stats.kstest(starts, stats.randint(0, LENGTH - width + 1).cdf).pvalue > 0.001


@pytest.mark.parametrize("task", TASK_SUMMARIES)
def test_strands_are_drawn_alike_in_every_task(plant, task):
    motifs = (TAL1, GATA) if task in ("multi-motif-embedding", "heterodimer-grammar") else (TAL1,)
    for groups in plant(task=task, motifs=motifs):
        strands = [site.strand for group in groups for site in group]
        assert set(strands) <= {"+", "-"}
        if strands:
            assert stats.binomtest(strands.count("+"), len(strands)).pvalue > 0.001


@pytest.mark.parametrize(
    ("task", "motifs", "wanted"),
    [
        ("density-localization", (), "takes 1, got 0"),
        ("density-localization", (TAL1, GATA), "takes 1, got 2"),
        ("presence", (TAL1, GATA), "takes 1, got 2"),
        ("single-motif-detection", (TAL1, GATA), "takes 1, got 2"),
        ("motif-counting", (TAL1, GATA), "takes 1, got 2"),
        ("multi-motif-embedding", (TAL1,), "takes 2 or more, got 1"),
        ("heterodimer-grammar", (TAL1,), "takes 2, got 1"),
        ("heterodimer-grammar", (TAL1, GATA, AP1), "takes 2, got 3"),
    ],
)
def test_number_of_motifs(task, motifs, wanted):
    with pytest.raises(InputError, match=f"--motif: {task} {wanted}"):
        embedders(SimulationSettings(task=task, motifs=motifs), load_motifs(motifs))


def test_multi_motif_embedding_refuses_its_first_motif_among_the_others():
    # Negatives, which are told apart by lacking the first motif, would carry it.
    motifs = (TAL1, GATA, TAL1)
    with pytest.raises(InputError, match=f"--motif.*{TAL1}"):
        embedders(
            SimulationSettings(task="multi-motif-embedding", motifs=motifs), load_motifs(motifs)
        )


# In the worst case a placed site of 10 bp leaves 19 starts fewer to the next ones.
@pytest.mark.parametrize(
    ("option", "needed", "settings"),
    [
        ("center", 67, {}),
        ("center", 10, {"min_sites": 1, "max_sites": 1}),
        ("length", 48, {"task": "presence", "max_sites": 3}),
        ("length", 10, {"task": "single-motif-detection"}),
        ("length", 29, {"task": "motif-counting", "max_sites": 2}),
        ("length", 29, {"task": "multi-motif-embedding", "motifs": (TAL1, GATA)}),
        ("length", 48, {"task": "multi-motif-embedding", "motifs": (TAL1, GATA, AP1)}),
        ("length", 40, {"task": "heterodimer-grammar", "motifs": (TAL1, GATA), "max_spacing": 20}),
        # The pair takes 20 bp, but one site of a negative may leave the other no place in 28.
        (
            "length",
            29,
            {
                "task": "heterodimer-grammar",
                "motifs": (TAL1, GATA),
                "min_spacing": 0,
                "max_spacing": 0,
            },
        ),
    ],
)
def test_sites_have_room_or_are_refused(tmp_path, option, needed, settings):
    def given(size):
        region = {"center": size} if option == "center" else {"center": 1, "length": size}
        return SimulationSettings(**settings | region, positives=20, negatives=20)

    tight = given(needed - 1)
    wanted = f"--{option}: {needed - 1} bp .*at least {needed} bp"
    with pytest.raises(InputError, match=wanted):
        embedders(tight, load_motifs(tight.motifs))
    data = open_dataset(simulate(given(needed), tmp_path / "data"))
    assert {site.sequence_id for site in data.sites()} >= set(data.ids()[:20])


def test_room_is_reckoned_with_the_widest_motif():
    motifs = ("TAL1_disc1", TAL1)  # 19 and 10 bp: 38 bp may be too few for both
    settings = SimulationSettings(
        task="multi-motif-embedding", motifs=motifs, length=38, center=1, max_sites=2
    )
    with pytest.raises(InputError, match="--length: 38 bp"):
        embedders(settings, load_motifs(motifs))
