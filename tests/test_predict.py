"""Scores of FASTA records: spans, refusals, constant memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal1_hvd.data.encoding import decode, encode, fit_length
from tal1_hvd.data.fasta import Record
from tal1_hvd.errors import InputError
from tal1_hvd.inference.predict import Prediction, predict_records

LENGTH = 150
HEADER = "id\tstart\tend\tstrand\tscore"
CHUNK = 1024


class FakeModel:
    """Scores a sequence by its share of A, and notes what it was given."""

    length = 8

    def __init__(self):
        self.calls = []

    def predict(self, codes, both_strands):
        self.calls.append((codes.copy(), both_strands))
        return np.mean(codes == 0, axis=1, dtype=np.float32)


def record(sequence, number=0):
    return Record(f"r{number}", f"r{number} more words", sequence, 2 * number + 1)


def predict(sequences, **options):
    model = FakeModel()
    records = [record(sequence, i) for i, sequence in enumerate(sequences)]
    return model, list(predict_records(model, records, "x.fa", **options))


@pytest.mark.parametrize(
    ("sequence", "on_length", "codes", "span"),
    [
        ("ACGTACGT", "error", "ACGTACGT", (0, 8)),
        ("ACGTACGT", "pad", "ACGTACGT", (0, 8)),
        ("ACGTACGT", "center-crop", "ACGTACGT", (0, 8)),
        ("acgtnRYu", "error", "ACGTNNNT", (0, 8)),
        ("ACGTAC", "pad", "NACGTACN", (0, 6)),
        ("ACGTACG", "pad", "ACGTACGN", (0, 7)),
        ("A", "pad", "NNNANNNN", (0, 1)),
        ("TACGTACGTA", "center-crop", "ACGTACGT", (1, 9)),
        ("ACGTACGTA", "center-crop", "ACGTACGT", (0, 8)),
        ("GGTACGTACGTA", "center-crop", "TACGTACG", (2, 10)),
        ("A" * 50 + "ACGTACGT" + "C" * 50, "center-crop", "ACGTACGT", (50, 58)),
    ],
)
@pytest.mark.parametrize("both", [False, True])
def test_what_is_scored(sequence, on_length, codes, span, both):
    model, found = predict([sequence], on_length=on_length, both_strands=both)
    assert found == [Prediction("r0", *span, "." if both else "+", codes.count("A") / 8)]
    ((given_codes, given_both),) = model.calls
    assert [decode(row) for row in given_codes] == [codes]
    assert given_both is both


@pytest.mark.parametrize(
    ("sequence", "on_length", "words"),
    [
        ("ACGT", "error", ["has 4 bp", "takes 8", "--on-length pad"]),
        ("ACGT", "center-crop", ["has 4 bp", "takes 8", "--on-length pad"]),
        ("ACGTACGTA", "error", ["has 9 bp", "takes 8", "--on-length center-crop"]),
        ("ACGTACGTA", "pad", ["has 9 bp", "takes 8", "--on-length center-crop"]),
        ("ACGTACG*", "error", ["'*'", "position 8"]),
        ("AC-T", "pad", ["'-'", "position 3"]),
        ("XACGTACGTACGT", "center-crop", ["'X'", "position 1"]),
    ],
)
def test_refused_record_is_named_with_its_line(sequence, on_length, words):
    with pytest.raises(InputError) as caught:
        predict(["A" * 8, "C" * 8, sequence], on_length=on_length)
    for word in ["x.fa, line 5: record 'r2'", *words]:
        assert word in str(caught.value)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.text("ACGTN", min_size=1, max_size=20), max_size=12), st.sampled_from("pc"))
def test_any_records(sequences, kind):
    on_length = "pad" if kind == "p" else "center-crop"
    fitting = [s for s in sequences if (len(s) <= 8 if kind == "p" else len(s) >= 8)]
    _, found = predict(fitting, on_length=on_length)
    assert [p.id for p in found] == [f"r{i}" for i in range(len(fitting))]
    for sequence, p in zip(fitting, found, strict=True):
        assert p.end - p.start == min(len(sequence), 8)
        # Around the centre: what is left out on the two sides differs by one base at most.
        assert 0 <= len(sequence) - p.end - p.start <= 1
        assert p.score == np.mean(fit_length(encode(sequence), 8)[0] == 0)


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_records_are_taken_a_chunk_at_a_time(count):
    taken, told = 0, []

    def records():
        nonlocal taken
        for i in range(count):
            taken += 1
            yield record("ACGTACGT", i)

    model = FakeModel()
    predictions = predict_records(model, records(), "x.fa", progress=told.append)
    assert taken == 0
    for i, prediction in enumerate(predictions):
        assert prediction.id == f"r{i}"
        assert taken <= CHUNK * (i // CHUNK + 1)
    assert taken == sum(told) == count
    assert [len(codes) for codes, _ in model.calls] == told
    assert max(told, default=0) <= CHUNK


def test_predictions_before_a_bad_chunk_come_out():
    records = (record("ACGTACGT" if i != 2000 else "ACGT", i) for i in range(3000))
    predictions = predict_records(FakeModel(), records, "x.fa")
    found = [next(predictions) for _ in range(CHUNK)]
    assert found[-1].id == f"r{CHUNK - 1}"
    with pytest.raises(InputError, match="line 4001: record 'r2000'"):
        next(predictions)
