"""Scores that do not depend on what else is scored."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tal1_hvd.data.encoding import UNKNOWN
from tal1_hvd.models.paper import paper
from tal1_hvd.models.scoring import Scorer

LENGTH = 120


@pytest.fixture(scope="module")
def model():
    return paper(LENGTH, seed=1)


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    array = rng.integers(0, 5, (300, LENGTH), dtype=np.uint8)
    array.flags.writeable = False
    return array


@pytest.fixture(scope="module")
def scorer(model):
    return Scorer(model, batch=64)


@pytest.fixture(scope="module")
def scores(scorer, sequences):
    return scorer(sequences)


def test_one_score_a_sequence(scores, model, sequences):
    assert scores.shape == (300,)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, model(sequences).numpy()[:, 0], atol=1e-6, rtol=0)


def test_length(scorer):
    assert scorer.length == LENGTH


@pytest.mark.parametrize("together", [1, 2, 63, 64, 65, 128, 300])
def test_same_bits_whatever_a_sequence_is_scored_with(scorer, scores, sequences, together):
    parts = [scorer(sequences[at : at + together]) for at in range(0, 300, together)]
    assert np.concatenate(parts).tobytes() == scores.tobytes()


def test_same_bits_as_the_network_called_on_the_same_shape(model, scores, sequences):
    padded = np.full((64, LENGTH), UNKNOWN, dtype=np.uint8)
    padded[:44] = sequences[256:]
    # As a graph, too: TensorFlow fuses a graph's operations, and rounds otherwise.
    direct = tf.function(model)(padded, training=False).numpy()[:44, 0]
    assert direct.tobytes() == scores[256:].tobytes()


@pytest.mark.parametrize("batch", [1, 7, 128, 512])
def test_other_batches_round_alike(model, scores, sequences, batch):
    np.testing.assert_allclose(Scorer(model, batch)(sequences), scores, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "rows",
    [[0], [299, 0, 150], [5, 5, 5], list(range(299, -1, -1)), list(range(100, 164))],
    ids=["one", "some", "repeated", "backwards", "a batch"],
)
def test_rows_come_in_the_order_asked_for(scorer, scores, sequences, rows):
    found = scorer(sequences, np.array(rows))
    assert found.tobytes() == scores[rows].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_empty(dtype):
    scorer = Scorer(paper(60, dtype=dtype), batch=2)
    sequences = np.zeros((3, 60), dtype=np.uint8)
    for found in (
        scorer(sequences[:0]),
        scorer(sequences, np.array([], dtype=np.int64)),
        scorer(sequences)[:0],
    ):
        assert found.shape == (0,)
        assert found.dtype == dtype


def test_memory_map(tmp_path, scorer, scores, sequences):
    np.save(tmp_path / "sequences.npy", sequences)
    mapped = np.load(tmp_path / "sequences.npy", mmap_mode="r")
    assert scorer(mapped).tobytes() == scores.tobytes()
    assert scorer(mapped, np.array([7, 3])).tobytes() == scores[[7, 3]].tobytes()


def test_follows_the_models_weights(sequences):
    model = paper(LENGTH, seed=1)
    scorer = Scorer(model, batch=64)
    before = scorer(sequences)
    model.set_weights(paper(LENGTH, seed=2).get_weights())
    after = scorer(sequences)
    assert np.all(before != after)
    np.testing.assert_allclose(after, model(sequences).numpy()[:, 0], atol=1e-6, rtol=0)


def test_network_is_traced_once_for_one_shape(model, sequences):
    shapes = []

    class Watched:
        input_shape, outputs = model.input_shape, model.outputs

        def __call__(self, codes, training):
            shapes.append((tuple(codes.shape), training))
            return model(codes, training=training)

    scorer = Scorer(Watched(), batch=16)
    for count in (1, 16, 40):
        scorer(sequences[:count])
    assert shapes == [((16, LENGTH), False)]
