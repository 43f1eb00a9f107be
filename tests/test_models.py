"""The published network, computed again by hand, and the registry that builds it by name."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from tal1_hvd.errors import InputError
from tal1_hvd.models.paper import paper
from tal1_hvd.models.registry import (
    PRECISIONS,
    build_model,
    model_summaries,
    require_length,
)


def random_codes(count, length, seed=0):
    """Return sequences with some N in them."""
    rng = np.random.default_rng(seed)
    return rng.choice(5, (count, length), p=[0.24, 0.24, 0.24, 0.24, 0.04]).astype(np.uint8)


def by_hand(model, codes):
    """Return the scores as NumPy computes them in float64 from the model's weights."""
    kernel, bias, weights, offset = [np.asarray(w, np.float64) for w in model.get_weights()]
    one_hot = np.concatenate([np.eye(4), np.zeros((1, 4))])[codes]
    windows = np.lib.stride_tricks.sliding_window_view(one_hot, 10, axis=1)
    hidden = np.maximum(np.einsum("npcw,wcf->npf", windows, kernel[0]) + bias, 0)
    pools = hidden.shape[1] // 35
    pooled = hidden[:, : 35 * pools].reshape(len(codes), pools, 35, 15).max(axis=2)
    return 1 / (1 + np.exp(-(pooled.reshape(len(codes), -1) @ weights + offset)))


def with_biases(model):
    """Give all of a model's weights values that show: the initial biases are zero."""
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def published():
    return paper(1500, seed=3)


def test_published_size(published):
    assert published.count_params() == 1_246
    assert published.name == "paper"


def test_layers(published):
    shapes = {
        type(layer).__name__: tuple(layer.output.shape[1:])
        for layer in published.layers
        if len(layer.output.shape) != 3
    }
    assert published.input_shape == (None, 1500)
    assert keras.backend.standardize_dtype(published.inputs[0].dtype) == "uint8"
    assert published.output_shape == (None, 1)
    assert {name: shapes[name] for name in ("Reshape", "Conv2D", "MaxPooling2D", "Flatten")} == {
        "Reshape": (1, 1500, 4),
        "Conv2D": (1, 1491, 15),
        "MaxPooling2D": (1, 42, 15),
        "Flatten": (630,),
    }
    convolution, dense = published.get_layer("convolution"), published.get_layer("probability")
    assert convolution.kernel.shape == (1, 10, 4, 15)
    assert (convolution.padding, convolution.strides) == ("valid", (1, 1))
    assert convolution.activation is keras.activations.relu
    assert dense.kernel.shape == (630, 1)
    assert dense.activation is keras.activations.sigmoid


def test_only_keras_own_layers(published):
    for layer in published.layers:
        assert type(layer).__module__.startswith("keras."), layer


@pytest.mark.parametrize(("length", "parameters"), [(44, 631), (78, 631), (79, 646), (200, 691)])
def test_parameters_at_other_lengths(length, parameters):
    # 615 of the convolution, 15 for each whole pooling window, 1 offset.
    assert paper(length).count_params() == parameters


@pytest.mark.parametrize("length", [43, 10, 1])
def test_too_short(length):
    with pytest.raises(InputError, match=f"'paper' needs .* at least 44 bp, these have {length}"):
        paper(length)


def test_initial_weights(published):
    kernel, bias, weights, offset = published.get_weights()
    assert not bias.any()
    assert not offset.any()
    # Glorot and Bengio 2010: uniform within sqrt(6 / (fan in + fan out)).
    for values, fans in ((kernel, 10 * 4 + 10 * 15), (weights, 630 + 1)):
        limit = np.sqrt(6 / fans)
        assert np.abs(values).max() <= limit
        assert np.abs(values).max() > 0.9 * limit
        assert abs(values.mean()) < 0.1 * limit


def test_weights_are_those_of_the_seed():
    def weights(seed):
        return np.concatenate([w.ravel() for w in paper(100, seed).get_weights()])

    keras.utils.set_random_seed(1)
    first = [weights(seed) for seed in (0, 1, 2)]
    keras.utils.set_random_seed(2)
    second = [weights(seed) for seed in (0, 1, 2)]
    np.testing.assert_array_equal(first, second)
    assert len({tuple(values) for values in first}) == 3


def test_layers_draw_apart():
    """No layer of one seed starts from the draws of another layer or seed."""
    draws = [w.ravel()[:15] for seed in range(4) for w in paper(44, seed).get_weights() if w.any()]
    scaled = {tuple(np.round(draw / np.abs(draw).max(), 4)) for draw in draws}
    assert len(draws) == len(scaled) == 8


@pytest.mark.parametrize("biases", [False, True], ids=["initial", "with biases"])
def test_forward_pass_by_hand(published, biases):
    model = with_biases(paper(1500)) if biases else published
    codes = random_codes(20, 1500)
    scores = model(codes).numpy()
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, by_hand(model, codes), atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [44, 79, 150])
def test_forward_pass_by_hand_in_float64(length):
    model = with_biases(paper(length, dtype="float64"))
    codes = random_codes(20, length)
    scores = model(codes).numpy()
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, by_hand(model, codes), atol=1e-13, rtol=0)


def test_n_is_all_zeros():
    model = with_biases(paper(150, dtype="float64"))
    _, bias, weights, offset = model.get_weights()
    logit = np.tile(np.maximum(bias, 0), 4) @ weights[:, 0] + offset[0]
    score = model(np.full((1, 150), 4, dtype=np.uint8)).numpy()
    assert score[0, 0] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-14)


def test_initial_network_knows_nothing_of_n(published):
    assert published(np.full((1, 1500), 4, dtype=np.uint8)).numpy().tolist() == [[0.5]]


def test_each_base_has_its_own_column():
    """A filter that looks for one base at its first place scores that base alone."""
    codes = np.repeat(np.arange(5, dtype=np.uint8)[:, None], 44, axis=1)
    model = paper(44, dtype="float64")
    for base in range(4):
        kernel, weights = np.zeros((1, 10, 4, 15)), np.zeros((15, 1))
        kernel[0, 0, base, 7], weights[7] = 1, 1
        model.set_weights([kernel, np.zeros(15), weights, np.zeros(1)])
        found = np.log(1 / (1 / model(codes).numpy()[:, 0] - 1))
        np.testing.assert_allclose(found, np.arange(5) == base, atol=1e-12)


@pytest.mark.parametrize(
    ("precision", "compute", "kept"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("mixed", "bfloat16", "float32"),
    ],
)
def test_precisions(precision, compute, kept):
    model = build_model("paper", 100, 0, precision)
    assert {variable.dtype for variable in model.variables} == {kept}
    assert model.get_layer("convolution").compute_dtype == compute
    scores = model(random_codes(4, 100)).numpy()
    assert scores.dtype == kept
    tolerance = 2e-2 if compute == "bfloat16" else 1e-6
    np.testing.assert_allclose(scores, by_hand(model, random_codes(4, 100)), atol=tolerance)


def takes(name, length):
    try:
        require_length(name, length)
    except InputError:
        return False
    return True


class TestRegistry:
    def test_builds_the_published_network(self):
        built, direct = build_model("paper", 120, 5), paper(120, 5)
        for ours, theirs in zip(built.get_weights(), direct.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_summaries(self):
        assert "1,246 parameters" in model_summaries()["paper"]
        for summary in model_summaries().values():
            assert summary
            assert "\n" not in summary

    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("name", model_summaries())
    def test_every_model_gives_probabilities(self, name, precision):
        scores = build_model(name, 300, 1, precision)(random_codes(3, 300)).numpy()
        assert scores.shape == (3, 1)
        assert np.all((scores > 0) & (scores < 1))

    def test_unknown_model(self):
        with pytest.raises(InputError, match="--model: 'papper' is none of paper"):
            build_model("papper", 100, 0)

    @pytest.mark.parametrize("name", model_summaries())
    def test_shortest_length(self, name):
        """What the registry tells before Keras is imported is what the builder says itself."""
        shortest = next(length for length in range(1, 1000) if takes(name, length))
        assert build_model(name, shortest, 0).input_shape == (None, shortest)
        with pytest.raises(InputError, match=f"--model: {name} needs .* at least {shortest} bp"):
            build_model(name, shortest - 1, 0)
        if name == "paper":
            with pytest.raises(InputError):
                paper(shortest - 1)

    def test_listing_does_not_import_keras(self):
        code = (
            "import sys, tal1_hvd.models.registry as r; r.model_summaries();"
            "sys.exit(bool({'keras', 'tensorflow', 'horovod'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
