"""``tal1_hvd.load(run).predict(sequences)``: a trained model as a Python object."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tal1_hvd
from tal1_hvd.data.dataset import open_dataset
from tal1_hvd.data.encoding import UNKNOWN, decode, reverse_complement
from tal1_hvd.errors import InputError
from tal1_hvd.inference import trained_model

LENGTH = 150


@pytest.fixture(scope="module")
def model(small_run):
    return tal1_hvd.load(small_run)


@pytest.fixture(scope="module")
def codes(small_data):
    """Return 300 sequences, some with N; read-only."""
    array = open_dataset(small_data).sequences[250:550].copy()
    array[::7, 20:30] = UNKNOWN
    array.flags.writeable = False
    return array


@pytest.fixture(scope="module")
def scores(model, codes):
    return model.predict(codes)


def test_scores_are_probabilities(scores):
    assert scores.shape == (300,)
    assert scores.dtype == np.float32
    assert np.all((scores > 0) & (scores < 1))
    assert len(np.unique(scores)) > 290


def test_length_and_model(model):
    assert model.length == LENGTH
    assert isinstance(model, tal1_hvd.TrainedModel)
    assert model.model.count_params() == 15 * (10 * 4 + 1) + 15 * (141 // 35) + 1


def test_loading_again_gives_the_same_bits(small_run, codes, scores):
    for again in (tal1_hvd.load(str(small_run)), trained_model.load(small_run)):
        assert again.predict(codes).tobytes() == scores.tobytes()


def test_plain_keras_gives_the_same_scores(small_run, codes, scores):
    plain = keras.saving.load_model(small_run / "model.keras")
    np.testing.assert_allclose(plain(codes).numpy()[:, 0], scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(plain.predict(codes, verbose=0)[:, 0], scores, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_plain_keras_needs_nothing_of_ours(small_run, tmp_path):
    code = (
        "import sys, keras, numpy as np\n"
        f"model = keras.saving.load_model({str(small_run / 'model.keras')!r})\n"
        f"assert model(np.zeros((2, {LENGTH}), np.uint8)).shape == (2, 1)\n"
        "assert not any(name.startswith('tal1_hvd') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)


def letters(codes, change=str):
    return [change(decode(row)) for row in codes]


@pytest.mark.parametrize(
    "given_as",
    [
        letters,
        lambda codes: tuple(letters(codes)),
        lambda codes: np.array(letters(codes)),
        lambda codes: np.array(letters(codes), dtype=object).tolist(),
        lambda codes: letters(codes, str.lower),
        lambda codes: letters(codes, lambda s: s.replace("T", "u").replace("N", "r")),
        np.asfortranarray,
        lambda codes: np.repeat(codes, 2, axis=0)[::2],
    ],
    ids=["list", "tuple", "array", "objects", "lower", "rna-iupac", "fortran", "strided"],
)
def test_ways_to_give_sequences(model, codes, scores, given_as):
    assert model.predict(given_as(codes)).tobytes() == scores.tobytes()


@settings(derandomize=True, deadline=None, max_examples=25)
@given(rows=st.lists(st.integers(0, 299), max_size=280))
def test_scores_do_not_depend_on_what_else_is_scored(model, codes, scores, rows):
    rows = np.array(rows, dtype=np.int64)
    assert model.predict(codes[rows]).tobytes() == scores[rows].tobytes()


@pytest.mark.parametrize("nothing", [[], (), np.empty((0, LENGTH), np.uint8)])
@pytest.mark.parametrize("both", [False, True])
def test_no_sequences(model, nothing, both):
    found = model.predict(nothing, both_strands=both)
    assert found.shape == (0,)
    assert found.dtype == np.float32


def test_both_strands(model, codes, scores):
    both = model.predict(codes, both_strands=True)
    other = model.predict(reverse_complement(codes))
    np.testing.assert_array_equal(both, (scores + other) / 2)
    reverse = model.predict(reverse_complement(codes), both_strands=True)
    assert reverse.tobytes() == both.tobytes()
    assert not np.allclose(both, scores)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("at_once", [1, 7, 4096])
def test_rows_of_a_dataset(model, small_data, monkeypatch, both, at_once):
    monkeypatch.setattr(trained_model, "_AT_ONCE", at_once)
    dataset = open_dataset(small_data)
    rows = np.array([799, 3, 3, 0, 400, 17, 250, 251], dtype=np.int64)
    found = model.predict_rows(dataset.sequences, rows, both)
    expected = model.predict(np.asarray(dataset.sequences)[rows], both)
    assert found.tobytes() == expected.tobytes()


def test_no_rows_of_a_dataset(model, codes):
    found = model.predict_rows(codes, np.empty(0, dtype=np.int64))
    assert found.shape == (0,)


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        ("A" * LENGTH, ["list of strings", "one string"]),
        (["A" * LENGTH, "A" * 149], ["number 1", "149 bp", "takes 150"]),
        (["A" * 151], ["number 0", "151 bp", "takes 150"]),
        ([""], ["number 0", "0 bp"]),
        (["A" * LENGTH] * 2 + ["A" * 149 + "*"], ["number 2", "'*'", "position 150"]),
        (["é" + "A" * 149], ["number 0", "'é'", "position 1"]),
        (np.zeros((2, 149), np.uint8), ["shape (n, 150)", "(2, 149)"]),
        (np.zeros(LENGTH, np.uint8), ["shape (n, 150)", "(150,)"]),
        (np.zeros((2, LENGTH, 4), np.uint8), ["shape (n, 150)", "(2, 150, 4)"]),
        (np.full((2, LENGTH), 5, np.uint8), ["codes 0 to 4", "5"]),
        ([b"A" * LENGTH], ["number 0", "bytes"]),
        (["A" * LENGTH, None], ["number 1", "NoneType"]),
        (7, ["a list of strings", "int"]),
        (np.zeros((2, LENGTH), np.int64), ["uint8", "int64"]),
        (np.zeros((2, LENGTH), np.float32), ["uint8", "float32"]),
    ],
)
def test_refused_sequences(model, sequences, words):
    with pytest.raises(InputError) as caught:
        model.predict(sequences)
    for word in ["sequences", *words]:
        assert word in str(caught.value)


def float_model(*shape):
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1)])


def two_inputs():
    inputs = [keras.Input((LENGTH,), dtype="uint8") for _ in range(2)]
    return keras.Model(inputs, keras.layers.Concatenate()(inputs))


def any_length():
    inputs = keras.Input((None,), dtype="uint8")
    return keras.Model(inputs, keras.ops.cast(inputs[:, :1], "float32"))


def two_outputs():
    inputs = keras.Input((LENGTH,), dtype="uint8")
    return keras.Model(inputs, keras.ops.cast(inputs[:, :2], "float32"))


@pytest.mark.parametrize(
    "other",
    [two_inputs, any_length, two_outputs, lambda: float_model(), lambda: float_model(LENGTH, 4)],
    ids=["two-inputs", "any-length", "two-outputs", "scalars", "one-hot"],
)
def test_model_of_something_else_is_refused(tmp_path, other):
    """A Keras model that does not take codes to one probability does not come from a run."""
    other().save(tmp_path / "model.keras")
    with pytest.raises(InputError, match=r"model\.keras: not a model of sequences"):
        tal1_hvd.load(tmp_path)


def parts(run):
    """Return what a run's model holds."""
    with zipfile.ZipFile(run / "model.keras") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def refuses(folder, compression=zipfile.ZIP_STORED, **changes):
    """Expect a model of changed parts to be refused, and nothing to be left of it anywhere."""
    inside = folder / "inside" / "run"
    inside.mkdir(parents=True)
    with zipfile.ZipFile(inside / "model.keras", "w", compression) as archive:
        for name, content in changes.items():
            archive.writestr(name, content)
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=r"model\.keras: not a Keras model") as refusal:
        tal1_hvd.load(inside)
    assert sorted(folder.rglob("*")) == before
    return str(refusal.value)


def test_lambda_layer_is_refused(tmp_path):
    """It holds Python's own code."""
    inputs = keras.Input((LENGTH,), dtype="uint8")
    score = keras.layers.Lambda(lambda codes: keras.ops.cast(codes[:, :1], "float32"))(inputs)
    keras.Model(inputs, score).save(tmp_path / "model.keras")
    with pytest.raises(InputError, match=r"model\.keras: not a Keras model.*Lambda"):
        tal1_hvd.load(tmp_path)


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "os", "class_name": "system", "config": "touch sprung"},
        {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "sprung"]}},
        {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "file:///x"}},
        {"module": "builtins", "class_name": "function", "config": "eval"},
    ],
    ids=lambda layer: layer["class_name"],
)
def test_class_that_is_no_layer_is_refused(small_run, tmp_path, monkeypatch, layer):
    monkeypatch.chdir(tmp_path)
    whole = parts(small_run)
    config = json.loads(whole["config.json"])
    config["config"]["layers"][-1] |= {"registered_name": layer["class_name"], **layer}
    refuses(tmp_path, **whole | {"config.json": json.dumps(config)})
    assert not list(tmp_path.rglob("sprung"))


@pytest.mark.parametrize("name", ["../../climbs", "/absolute", "assets/../../../climbs", "more.h5"])
def test_file_that_no_model_holds_is_refused(small_run, tmp_path, name):
    assert f"holds {name!r}" in refuses(tmp_path, **parts(small_run) | {name: b"x"})


def test_compressed_model_is_refused(small_run, tmp_path):
    whole = parts(small_run) | {"metadata.json": b" " * 10_000_000}
    assert ".json in it is compressed" in refuses(tmp_path, zipfile.ZIP_DEFLATED, **whole)


@pytest.mark.parametrize("kind", ["huge", "packed", "external", "link"])
def test_weights_that_are_not_in_the_file_are_refused(small_run, tmp_path, kind):
    whole = parts(small_run)
    weights = io.BytesIO(whole["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        group = file["layers/conv2d/vars"]
        shape = group["0"].shape
        del group["0"]
        if kind == "huge":
            group.create_dataset("0", shape=(10**12,), dtype="f4")
        elif kind == "packed":
            group.create_dataset("0", data=np.zeros(100_000), compression="gzip")
        elif kind == "external":
            group.create_dataset("0", shape, dtype="f4", external=[("/dev/zero", 0, 10_000)])
        else:
            group["0"] = h5py.ExternalLink("/dev/zero", "x")
    refuses(tmp_path, **whole | {"model.weights.h5": weights.getvalue()})


def test_no_such_run(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such run folder"):
        tal1_hvd.load(tmp_path / "nowhere")


def test_unfinished_run(small_run, tmp_path):
    unfinished = tmp_path / "run"
    shutil.copytree(
        small_run, unfinished, ignore=shutil.ignore_patterns("model.keras", "metrics.json")
    )
    with pytest.raises(InputError, match=r"model\.keras: no such file.*finished"):
        tal1_hvd.load(unfinished)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(data=st.data())
def test_damaged_model(small_run, tmp_path_factory, codes, scores, data):
    """Any damaged byte or missing end is an InputError, or changes no score."""
    content = bytearray((small_run / "model.keras").read_bytes())
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1), label="bytes")]
    else:
        content[data.draw(st.integers(0, len(content) - 1), label="at")] ^= 1 << data.draw(
            st.integers(0, 7), label="bit"
        )
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "model.keras").write_bytes(content)
    try:
        found = tal1_hvd.load(folder)
    except InputError as error:
        assert str(folder / "model.keras") in str(error)
    else:
        assert found.predict(codes).tobytes() == scores.tobytes()


def test_public_names():
    assert set(tal1_hvd.__all__) <= set(dir(tal1_hvd))
    for name in tal1_hvd.__all__:
        assert getattr(tal1_hvd, name) is not None
    assert tal1_hvd.load is trained_model.load
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tal1_hvd.nothing
