"""Random inputs: the command either takes them or refuses them in one line."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal1_hvd.inference import trained_model
from tests.bad_input import (
    EXPORT,
    LENGTH,
    PREDICT,
    SHUFFLE,
    SIMULATE,
    fasta,
    require_one_line,
    run_line,
)

pytestmark = pytest.mark.usefixtures("tensorflow_as_it_is")

fuzz = settings(derandomize=True, deadline=None, max_examples=60)


@pytest.fixture(scope="module")
def scratch(good_inputs, tmp_path_factory):
    """Return a copy of the good inputs that random ones are put into."""
    folder = tmp_path_factory.mktemp("fuzz") / "here"
    shutil.copytree(good_inputs, folder)
    return folder


@pytest.fixture(scope="module")
def model(good_inputs):
    return trained_model.load(good_inputs / "run")


def take_or_refuse(folder, command):
    """Run a command in a folder; if it refuses, nothing of its output may be there."""
    out = folder / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code, printed, err = run_line(command)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    if code == 0:
        assert "error" not in err
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    else:
        require_one_line(code, printed, err)
        assert not out.exists()


def near(text, alphabet):
    """Return random bytes, and random text in which the words of a format are common."""
    return st.binary(max_size=60) | st.lists(st.sampled_from(alphabet.split(" ")), max_size=12).map(
        lambda parts: text + "".join(parts)
    )


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@fuzz
@given(near(">a\nACGT", "> \n >a\n >b\n ACGT acgu N - * \t \r\n ; 12 é \0 \x0b"), st.booleans())
def test_any_fasta_to_import(scratch, content, zipped):
    put(scratch / "p.fa", content)
    if zipped:
        put(scratch / "p.fa", gzip.compress((scratch / "p.fa").read_bytes()))
    take_or_refuse(scratch, SHUFFLE)


@fuzz
@given(content=near(">a\n", "> \n >a\n >b\n ACGT acgu N - * \t \r\n ; 12 é \0 \x0b"))
def test_any_fasta_to_predict(scratch, model, content):
    put(scratch / "q.fa", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained_model, "load", lambda run: model)
        take_or_refuse(scratch, f"{PREDICT} --on-length pad")


@fuzz
@given(
    near(
        "seqName\tsequence\tembeddings\ty\n",
        "a b \t ACGT \n 0 1 pos-1_x-ACG pos-0_revComp-x-AC pos- , x \t\t \r\n \0 -Gap",
    )
)
def test_any_simdata(scratch, content):
    put(scratch / "x.simdata", content)
    take_or_refuse(scratch, "import --out new --positives x.simdata")


@fuzz
@given(
    near(">a\n", ">a\n A C G T [ ] 1 0 -1 2.5 nan inf 1e400 \n x")
    | near(
        "MEME version 4\nALPHABET= ACGT\nBackground letter frequencies\n"
        "A 0.25 C 0.25 G 0.25 T 0.25\nMOTIF a\n"
        "letter-probability matrix: alength= 4 w= 2 nsites= 20 E= 0\n",
        "0.25\t 0.25\t0.25\t0.25\t0.25\n 1 0 -1 nan \n MOTIF \t x",
    )
    | st.lists(st.text("0123.-eina ", max_size=6), min_size=4, max_size=4).map(
        lambda rows: ">a\n" + "".join(f"{b} [{r}]\n" for b, r in zip("ACGT", rows, strict=True))
    )
)
def test_any_motif_file(scratch, content):
    put(scratch / "m", content)
    take_or_refuse(scratch, f"{SIMULATE} --motif-file m --motif a")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@fuzz
@given(
    st.binary(max_size=40)
    | json_values.map(json.dumps)
    | st.dictionaries(
        st.sampled_from(["format_version", "count", "length", "sha256", "task", "splits"]),
        json_values,
        min_size=1,
    )
)
def test_any_description_of_a_dataset(scratch, good_inputs, content):
    if isinstance(content, dict):
        whole = json.loads((good_inputs / "data" / "dataset.json").read_text())
        content = json.dumps(whole | content)
    put(scratch / "data" / "dataset.json", content)
    try:
        take_or_refuse(scratch, EXPORT)
    finally:
        shutil.copy(good_inputs / "data" / "dataset.json", scratch / "data" / "dataset.json")


@fuzz
@given(near("", "split data : - \n x 1 0.5 [ ] { } ' \" ! & * # ,\t true train test null"))
def test_any_configuration(scratch, content):
    put(scratch / "c.yaml", content)
    take_or_refuse(scratch, f"{EXPORT} --config c.yaml")


@st.composite
def damages(draw, content):
    """Draw damaged versions of a file: cut short, some bits flipped, or other bytes."""
    kind = draw(st.sampled_from(["cut", "flip", "flip", "flip", "other"]))
    if kind == "other":
        return draw(st.binary(max_size=60))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    damaged = bytearray(content)
    # A zip file's directory is at its end, and is read first.
    places = st.integers(0, len(content) - 1) | st.integers(len(content) - 2500, len(content) - 1)
    for at in draw(st.lists(places, min_size=1, max_size=3)):
        damaged[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(damaged)


@fuzz
@given(data=st.data())
def test_any_damaged_checkpoint(scratch, good_inputs, data):
    last = Path("run", "checkpoints", "last.npz")
    (scratch / last).write_bytes(data.draw(damages((good_inputs / last).read_bytes())))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(scratch)
        # The run is finished: a checkpoint that is taken is not trained on.
        code, out, err = run_line("train --out run --resume")
    if code == 0:
        assert err.endswith("already finished after epoch 1; nothing to do\n")
    else:
        require_one_line(code, out, err)


@settings(fuzz, max_examples=25)
@given(data=st.data())
def test_any_damaged_model(scratch, good_inputs, data):
    content = (good_inputs / "run" / "model.keras").read_bytes()
    (scratch / "other" / "model.keras").write_bytes(data.draw(damages(content)))
    put(scratch / "q.fa", fasta(1, LENGTH, 3))
    take_or_refuse(scratch, PREDICT.replace("run run", "run other"))
