"""Scores of the records of a FASTA file, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from tal1_hvd.data.encoding import encode, fit_length
from tal1_hvd.data.fasta import Record
from tal1_hvd.errors import InputError
from tal1_hvd.inference.trained_model import TrainedModel

ON_LENGTH = ("error", "pad", "center-crop")
_AT_ONCE = 1024


class Prediction(NamedTuple):
    """The score of a record.

    Attributes
    ----------
    id : str
    start, end : int
        What was scored, in bp of the record, 0-based half-open.
    strand : str
        ``+``, or ``.`` for the mean of both.
    score : float
        Probability of a positive.
    """

    id: str
    start: int
    end: int
    strand: str
    score: float


def predict_records(
    model: TrainedModel,
    records: Iterable[Record],
    source: str,
    on_length: str = "error",
    both_strands: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> Iterator[Prediction]:
    """Score records in their order.

    Parameters
    ----------
    model : TrainedModel
    records : iterable of Record
        Read 1,024 at a time.
    source : str
        The file's name, for errors.
    on_length : {"error", "pad", "center-crop"}
        What to do with a record that is not of the model's length: pad makes a short one longer
        with N on both sides, center-crop makes a long one shorter on both sides; each leaves the
        other kind an error.
    both_strands : bool
        Mean over the record and its reverse complement.
    progress : callable
        Told how many more are done.

    Yields
    ------
    Prediction

    Raises
    ------
    InputError
        A record has a wrong length or letter; the text names it and its line.
    """
    strand = "." if both_strands else "+"
    remaining = iter(records)
    while chunk := list(islice(remaining, _AT_ONCE)):
        codes = np.empty((len(chunk), model.length), dtype=np.uint8)
        spans = []
        for i, record in enumerate(chunk):
            codes[i], span = _fit(record, model.length, source, on_length)
            spans.append(span)
        scores = model.predict(codes, both_strands)
        for record, (start, end), score in zip(chunk, spans, scores, strict=True):
            yield Prediction(record.id, start, end, strand, float(score))
        progress(len(chunk))


def _fit(
    record: Record, length: int, source: str, on_length: str
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return a record's codes in the model's length, and the span of the record they stand for."""
    where = f"{source}, line {record.line}: record {record.id!r}"
    found = len(record.sequence)
    if found < length and on_length != "pad":
        raise InputError(
            f"{where} has {found} bp, the model takes {length}; use --on-length pad to add N"
        )
    if found > length and on_length != "center-crop":
        raise InputError(
            f"{where} has {found} bp, the model takes {length}; use --on-length center-crop to "
            f"score its central {length} bp"
        )
    try:
        codes, start = fit_length(encode(record.sequence), length)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return codes, (max(start, 0), min(start + length, found))
