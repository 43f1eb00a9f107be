"""Settings of a run: the published defaults, what is refused, and their file."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from tal1_hvd.errors import InputError
from tal1_hvd.training.settings import CHANGEABLE, TrainSettings, read_settings

OTHER = TrainSettings(
    data="/some/data",
    epochs=3,
    batch_size=8,
    accumulation=2,
    optimizer="lamb",
    rate_scaling="sqrt",
    learning_rate=1e-5,
    warmup_examples=0,
    seed=2**40,
    threads=3,
    strategy="single",
    patience=4,
    precision="mixed",
    shuffle="shard",
    compression="fp16",
    cache_mb=7,
    stall_timeout=0.5,
)


def test_defaults_are_the_published_experiments():
    settings = TrainSettings()
    assert (settings.model, settings.epochs, settings.batch_size) == ("paper", 50, 64)
    assert (settings.learning_rate, settings.accumulation) == (1e-3, 1)
    assert (settings.seed, settings.shuffle, settings.precision) == (0, "global", "float32")
    assert settings.patience is None
    assert settings.data is None


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 1},
        {"batch_size": 1},
        {"seed": 0},
        {"warmup_examples": 0},
        {"cache_mb": 0},
        {"stall_timeout": 0},
        {"patience": None},
        {"patience": 1},
        {"threads": None},
        {"learning_rate": 1e-30},
        {"strategy": "horovod"},
    ],
)
def test_limits_are_allowed(given):
    assert dataclasses.asdict(TrainSettings(**given)).items() >= given.items()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"epochs": 0}, "--epochs: must be at least 1, got 0"),
        ({"batch_size": 0}, "--batch-size: must be at least 1, got 0"),
        ({"batch_size": -64}, "--batch-size: must be at least 1, got -64"),
        ({"accumulation": 0}, "--accumulation: must be at least 1, got 0"),
        ({"warmup_examples": -1}, "--warmup-examples: must be at least 0, got -1"),
        ({"seed": -1}, "--seed: must be at least 0, got -1"),
        ({"threads": 0}, "--threads: must lie between 1 and 1024, got 0"),
        ({"patience": 0}, "--patience: must be at least 1, got 0"),
        ({"cache_mb": -1}, "--cache-mb: must be at least 0, got -1"),
        ({"stall_timeout": -1.5}, "--stall-timeout: must be at least 0, got -1.5"),
        ({"stall_timeout": float("nan")}, "--stall-timeout: must be at least 0, got nan"),
        ({"learning_rate": 0.0}, "--learning-rate: must be above 0 and at most 1e+30, got 0.0"),
        (
            {"learning_rate": float("nan")},
            "--learning-rate: must be above 0 and at most 1e+30, got nan",
        ),
        (
            {"learning_rate": float("inf")},
            "--learning-rate: must be above 0 and at most 1e+30, got inf",
        ),
        ({"model": "papper"}, "--model: 'papper' is none of paper"),
        ({"strategy": "mpi"}, "--strategy: 'mpi' is none of auto, horovod, mirrored, "),
        ({"precision": "half"}, "--precision: 'half' is none of float32, float64, mixed"),
        ({"shuffle": "none"}, "--shuffle: 'none' is none of global, shard"),
        ({"compression": "zip"}, "--compression: 'zip' is none of none, fp16"),
        (
            {"compression": "fp16", "strategy": "mirrored"},
            "--compression: fp16 needs --strategy horovod, got mirrored",
        ),
        ({"aggregation": "gossip", "shuffle": "shard"}, "--shuffle: gossip and an asynchronous"),
        (
            {"aggregation": "parameter-server", "staleness": 0, "shuffle": "shard"},
            "--shuffle: gossip and an asynchronous server",
        ),
        ({"elastic": True, "strategy": "mirrored"}, "--strategy: --elastic needs horovod, got mir"),
        ({"elastic": True, "shuffle": "shard"}, "--shuffle: --elastic needs global, got shard"),
        (
            {"elastic": True, "aggregation": "gossip"},
            "--aggregation: --elastic needs allreduce, got gossip",
        ),
        ({"fixed_global_batch": True}, "--fixed-global-batch: goes with --elastic"),
    ],
)
def test_refused(given, text):
    with pytest.raises(InputError) as caught:
        TrainSettings(**given)
    assert str(caught.value).startswith(text)


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainSettings().epochs = 3


class TestFile:
    @pytest.fixture
    def file(self, tmp_path):
        return tmp_path / "config.yaml"

    @pytest.mark.parametrize("settings", [TrainSettings(), OTHER], ids=["defaults", "others"])
    def test_round_trip(self, file, settings):
        file.write_text(settings.to_yaml(2))
        assert read_settings(file) == (settings, 2)

    def test_data_is_named_for_any_folder(self, file, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        file.write_text(TrainSettings(data="sub/data").to_yaml(1))
        assert read_settings(file)[0].data == str(tmp_path / "sub" / "data")

    def test_every_setting_is_written_as_its_flag_is_called(self):
        names = list(yaml.safe_load(TrainSettings().to_yaml(1)))
        fields = [f.name.replace("_", "-") for f in dataclasses.fields(TrainSettings)]
        assert names == [*fields, "ranks"]
        assert "batch-size" in names

    def test_settings_left_out_have_their_defaults(self, file):
        file.write_text("epochs: 7\nbatch-size: 16\nranks: 3\n")
        assert read_settings(file) == (TrainSettings(epochs=7, batch_size=16), 3)

    @pytest.mark.parametrize(
        "text", ["", "epochs", "epochs: 7\nseed: 1\n", "- epochs: 3", "{epochs: 3", "3: 3"]
    )
    def test_damaged(self, file, text):
        file.write_text(text)
        with pytest.raises(InputError, match=r"config\.yaml: not a run's settings"):
            read_settings(file)

    @pytest.mark.parametrize(
        "text",
        [
            "epochs: ten",
            "epochs: [3]",
            "epochs: 2.5",
            "epochs:",
            "batch-size: 64.0",
            "batch-size: true",
            "learning-rate: fast",
            "seed: 1.5",
            "threads: 1.5",
            "patience: {}",
            "data: 5",
            "model: [paper]",
            "stall-timeout:",
            "ranks:",
            "ranks: auto",
            "ranks: 0",
            "ranks: true",
        ],
    )
    def test_other_types(self, file, text):
        file.write_text(text if text.startswith("ranks") else f"{text}\nranks: 1\n")
        name = text.partition(":")[0]
        with pytest.raises(InputError, match=rf"config\.yaml: {name} cannot be "):
            read_settings(file)

    @pytest.mark.parametrize("text", ["learning-rate: 1", "stall-timeout: 2", "data:", "patience:"])
    def test_whole_numbers_and_nothing_where_they_are_allowed(self, file, text):
        file.write_text(f"{text}\nranks: 1\n")
        read_settings(file)

    def test_unknown_setting(self, file):
        file.write_text("epochs: 3\nepoch: 3\nranks: 1\n")
        with pytest.raises(InputError, match=r"config\.yaml: unknown setting 'epoch'"):
            read_settings(file)

    def test_refused_value(self, file):
        file.write_text("epochs: 0\nranks: 1\n")
        with pytest.raises(InputError, match="--epochs: must be at least 1, got 0"):
            read_settings(file)

    def test_missing(self, file):
        with pytest.raises(InputError, match=r"config\.yaml: not a run's settings"):
            read_settings(file)

    @pytest.mark.parametrize("text", ["a: &a [1]\nb: [*a, *a]", "seed: 0x" + "f" * 5000])
    def test_cannot_grow(self, file, text):
        file.write_text(f"ranks: 1\n{text}\n")
        with pytest.raises(InputError, match=r"config\.yaml: not a run's settings: a"):
            read_settings(file)

    def test_not_text(self, file):
        file.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match=r"config\.yaml: not a run's settings"):
            read_settings(file)


def test_differences():
    base = TrainSettings()
    assert base.differences(TrainSettings()) == {}
    other = dataclasses.replace(base, epochs=7, patience=2)
    assert other.differences(base) == {"epochs": (7, 50), "patience": (2, None)}
    assert base.differences(other) == {"epochs": (50, 7), "patience": (None, 2)}
    names = {field.name for field in dataclasses.fields(base)}
    # Of models there may be only one; aggregation does not go with compression.
    assert names - set(OTHER.differences(base)) == {
        "model",
        "aggregation",
        "staleness",
        "elastic",
        "fixed_global_batch",
    }


def test_changeable_are_settings_that_do_not_decide_what_is_computed():
    names = {field.name for field in dataclasses.fields(TrainSettings)}
    assert names >= CHANGEABLE
    assert not CHANGEABLE & {"model", "seed", "learning_rate", "batch_size", "precision", "shuffle"}
