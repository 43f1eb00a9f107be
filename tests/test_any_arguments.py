"""Configuration files of any content: taken, or refused in words."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tal1_hvd.cli import simulate as simulate_command
from tal1_hvd.cli import train as train_command
from tal1_hvd.cli.arguments import Parser
from tal1_hvd.errors import InputError
from tal1_hvd.simulation.settings import SimulationSettings
from tal1_hvd.training.settings import TrainSettings, read_settings
from tests.parsing import DEFAULTS, parse

properties = settings(derandomize=True, deadline=None, max_examples=150)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("arguments") / "config.yaml"


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    # argparse itself drops a lone "--".
    | st.text(max_size=8).filter(lambda text: text != "--")
    | st.dates()
    | st.sampled_from(["-x", "--seed", "fast", "1e3"])
)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars)
names = st.sampled_from(["seed", "rate", "motif", "mode", "max_sites", "name", "quick", "nope"])


@properties
@given(st.dictionaries(names, values, max_size=3))
def test_any_mapping_is_taken_or_refused(scratch, mapping):
    scratch.write_text(yaml.safe_dump(mapping, allow_unicode=True), encoding="utf-8")
    try:
        found = parse("--config", scratch)
    except InputError:
        return
    for key, value in mapping.items():
        if value is not None:
            assert same(found[key], value)


def same(found, value):
    """Say whether an option holds a YAML value: itself, its only item, or what it spells."""
    if isinstance(found, list):
        return found == [str(item) for item in (value if isinstance(value, list) else [value])]
    value = value[0] if isinstance(value, list) else value
    return str(found) == str(value) or found == float(value) or math.isnan(found)


@properties
@given(st.binary(max_size=40) | st.text("seed:name[]{}-&*!|>'\"#%@,\n 0123.\t", max_size=40))
def test_any_bytes_are_taken_or_refused(scratch, content):
    scratch.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        found = parse("--config", scratch)
    except InputError:
        return
    assert set(found) <= {*DEFAULTS, "seed", "rate", "motif", "mode", "max_sites"}


counts = st.integers(1, 10**9)
paths = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
fractions = st.floats(0, 1)
train_settings = st.builds(
    TrainSettings,
    data=st.none() | paths,
    epochs=counts,
    batch_size=counts,
    accumulation=counts,
    optimizer=st.sampled_from(["adam", "lamb", "lars"]),
    rate_scaling=st.sampled_from(["linear", "sqrt", "none"]),
    learning_rate=st.floats(1e-12, 1e6),
    warmup_examples=counts,
    seed=st.integers(0, 2**63),
    threads=st.none() | st.integers(1, 1024),
    strategy=st.sampled_from(["auto", "horovod", "single"]),
    patience=st.none() | counts,
    precision=st.sampled_from(["float32", "float64", "mixed"]),
    shuffle=st.sampled_from(["global", "shard"]),
    compression=st.sampled_from(["none", "fp16"]),
    cache_mb=st.integers(0, 10**6),
    stall_timeout=st.floats(0, 1e6),
) | st.builds(TrainSettings, elastic=st.just(True), fixed_global_batch=st.booleans())


@properties
@given(train_settings)
def test_settings_of_a_run_are_a_configuration_file(scratch, wanted):
    scratch.write_text(wanted.to_yaml(1), encoding="utf-8")
    parser = Parser(prog="tal1-hvd train")
    train_command.add_arguments(parser)
    found = vars(parser.parse(["--config", str(scratch)]))
    for key in ("config", "out", "resume", "ranks", "launcher", "timeline"):
        del found[key]
    data = None if wanted.data is None else str(Path(wanted.data).absolute())
    assert (
        TrainSettings(**found)
        == read_settings(scratch)[0]
        == dataclasses.replace(wanted, data=data)
    )


@properties
@given(
    length=st.integers(500, 3000),
    gc=fractions,
    motifs=st.lists(st.sampled_from(["TAL1_known4", "GATA_known1", "-odd"]), min_size=1),
    seed=st.integers(0, 2**63),
)
def test_settings_of_a_simulation_are_a_configuration_file(scratch, length, gc, motifs, seed):
    values = {"out": "x", "length": length, "gc": gc, "motif": motifs, "seed": seed}
    scratch.write_text(yaml.safe_dump(values))
    parser = Parser(prog="tal1-hvd simulate")
    simulate_command.add_arguments(parser)
    try:
        found = vars(parser.parse(["--config", str(scratch)]))
    except InputError:
        assert "-odd" in motifs
        return
    assert {key: found[key] for key in values} == values
    assert SimulationSettings(length=found["length"], gc=found["gc"]).gc == gc
