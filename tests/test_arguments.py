"""Options from flags and from --config files: the same names, and flags win."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest

from tal1_hvd.errors import InputError
from tests.parsing import DEFAULTS, parse


@contextmanager
def refused(*words):
    """Expect an InputError that holds all the words."""
    with pytest.raises(InputError) as caught:
        yield
    for word in words:
        assert str(word) in str(caught.value)


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a configuration file."""

    def write(text):
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_settings_that_were_not_given_do_not_stand_in_the_result():
    assert parse() == DEFAULTS


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("seed: 3", "seed", 3),
        ("seed: '3'", "seed", 3),
        ("seed: [3]", "seed", 3),
        ("seed: -5", "seed", -5),
        ("seed: 1_000", "seed", 1000),
        ("rate: 1e-3", "rate", 0.001),
        ("rate: -1.5", "rate", -1.5),
        ("rate: 2", "rate", 2.0),
        ("rate: .inf", "rate", math.inf),
        ("name: word", "name", "word"),
        ("name: two words", "name", "two words"),
        ("name: ''", "name", ""),
        ("name: 12", "name", "12"),
        ("name: 2024-01-31", "name", "2024-01-31"),
        ("name: é", "name", "é"),
        ("name: -x", "name", "-x"),
        ("name: --quick", "name", "--quick"),
        ("name: a=b", "name", "a=b"),
        ("motif: a", "motif", ["a"]),
        ("motif: [a, 1, c d]", "motif", ["a", "1", "c d"]),
        ("motif: [-3, 4]", "motif", ["-3", "4"]),
        ("motif:\n- a\n- b\n", "motif", ["a", "b"]),
        ("mode: fast", "mode", "fast"),
        ("max-sites: 7", "max_sites", 7),
        ("max_sites: 7", "max_sites", 7),
        ("quick: true", "quick", True),
        ("quick: false", "quick", False),
        ("name: null", "name", "none"),
        ("name:", "name", "none"),
    ],
)
def test_line_of_a_file(config, line, key, value):
    path = config(line)
    assert parse("--config", path) == DEFAULTS | {"config": str(path), key: value}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n", "seed: null\nmotif:\n"])
def test_file_that_sets_nothing(config, text):
    path = config(text)
    assert parse("--config", path) == DEFAULTS | {"config": str(path)}


@pytest.mark.parametrize(
    ("text", "argv", "key", "value"),
    [
        ("seed: 3", ["--seed", "4"], "seed", 4),
        ("seed: 3", ["--seed=0"], "seed", 0),
        ("motif: [a, b, c]", ["--motif", "d"], "motif", ["d"]),
        ("mode: fast", ["--mode", "slow"], "mode", "slow"),
        ("name: file", ["--name", ""], "name", ""),
        ("quick: false", ["--quick"], "quick", True),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["config-first", "config-last"])
def test_flags_win(config, text, argv, key, value, first):
    path = config(text)
    flag = [f"--config={path}"]
    assert parse(*(flag + argv if first else argv + flag))[key] == value


def test_file_and_flags_and_positional_together(config):
    path = config("seed: 3\nmotif: [x, y]\nquick: true\n")
    found = parse("reads.fa", "--rate", "2", "--config", path)
    assert found == DEFAULTS | {
        "config": str(path),
        "seed": 3,
        "motif": ["x", "y"],
        "quick": True,
        "rate": 2.0,
        "input": "reads.fa",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("nope: 1", ["config.yaml", "unknown option 'nope'"], id="unknown"),
        pytest.param("see: 1", ["unknown option 'see'"], id="abbreviated"),
        pytest.param("--seed: 1", ["unknown option '--seed'"], id="with-dashes"),
        pytest.param("1: 2", ["unknown option 1"], id="number-as-key"),
        pytest.param("input: x", ["unknown option 'input'"], id="positional"),
        pytest.param("config: x", ["unknown option 'config'"], id="config-in-config"),
        pytest.param("help: true", ["unknown option 'help'"], id="help"),
        pytest.param("- seed", ["config.yaml", "option: value"], id="list"),
        pytest.param("seed", ["option: value"], id="word"),
        pytest.param("a: b: c", ["config.yaml", "not YAML"], id="not-yaml"),
        pytest.param("a: [", ["not YAML"], id="unclosed"),
        pytest.param("? [a]\n: b", ["not YAML"], id="list-as-key"),
        pytest.param("name: \0", ["not YAML"], id="nul"),
        pytest.param(b"name: \xff", ["config.yaml", "not YAML"], id="not-utf8"),
        pytest.param("x: !!python/object:os.system y", ["not YAML"], id="python-object"),
        pytest.param("seed: 2020-13-45", ["config.yaml", "not YAML"], id="no-such-date"),
        pytest.param("seed: !!int x", ["config.yaml", "not YAML"], id="tagged-int"),
        pytest.param(f"seed: {'1' * 5000}", ["config.yaml"], id="huge-int"),
        pytest.param(f"seed: {'[' * 1000}", ["config.yaml", "not YAML"], id="deep"),
        pytest.param("seed: x", ["config.yaml", "seed", "'x'"], id="word-for-int"),
        pytest.param("seed: 1.5", ["seed", "'1.5'"], id="float-for-int"),
        pytest.param("seed: 1e3", ["seed", "'1e3'"], id="exponent-for-int"),
        pytest.param("seed: true", ["seed", "True"], id="bool-for-int"),
        pytest.param("seed: 2024-01-31", ["seed", "2024-01-31"], id="date-for-int"),
        pytest.param("rate: fast", ["rate", "'fast'"], id="word-for-float"),
        pytest.param("name: yes", ["name", "True"], id="bool-for-word"),
        pytest.param("name: {a: b}", ["name", "{'a': 'b'}"], id="mapping-for-word"),
        pytest.param("seed: [1, 2]", ["seed", "one value"], id="list-for-int"),
        pytest.param("seed: []", ["seed", "one value"], id="empty-list-for-int"),
        pytest.param("motif: [[a]]", ["motif", "['a']"], id="list-in-list"),
        pytest.param("motif: [a, true]", ["motif", "True"], id="bool-in-list"),
        pytest.param("motif: []", ["motif"], id="empty-list"),
        pytest.param("motif: &a [*a]", ["alias"], id="list-of-itself"),
        pytest.param("seed: 0x" + "f" * 5000, ["5002 characters"], id="endless-number"),
        pytest.param("rate: 1" + ":59" * 500 + ".5", ["characters"], id="endless-base-60"),
        pytest.param("seed: !!int ''", ["not YAML"], id="tag-without-a-number"),
        pytest.param("name: !!timestamp x", ["not YAML"], id="tag-without-a-time"),
        pytest.param(
            "name: !!python/object/apply:os.getcwd []", ["python/object"], id="python-object"
        ),
        pytest.param("name: " + "x" * 70_000, ["65,536"], id="long"),
        pytest.param("quick: 1", ["quick", "true or false"], id="number-for-bool"),
        pytest.param("quick: 'true'", ["quick", "true or false"], id="word-for-bool"),
        pytest.param("quick: [true]", ["quick", "true or false"], id="list-for-bool"),
        pytest.param("mode: medium", ["mode", "medium", "fast"], id="not-a-choice"),
        pytest.param("max_sites: x", ["max-sites", "'x'"], id="underscore"),
    ],
)
def test_bad_file(config, text, words):
    with refused(*words):
        parse("--config", config(text))


LAUGHS = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
MERGES = [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]


@pytest.mark.parametrize(
    "bomb", [["a0: &a0 [x]", *LAUGHS], ["a0: &a0 {x: 1}", *MERGES]], ids=["lists", "merges"]
)
def test_aliases_cannot_multiply(config, bomb):
    with refused("not YAML", "alias"):
        parse("--config", config("\n".join(bomb)))


def test_aliases_of_a_long_word(config):
    with refused("not YAML", "write out what it stands for"):
        parse("--config", config(f"name: &a {'x' * 30_000}\nmotif: [{'*a, ' * 5_000}]"))


def test_list_cannot_smuggle_flags_in(config):
    """A value that starts with a dash stays a value, or is refused, in a list too."""
    try:
        found = parse("--config", config("motif: [a, --seed, '5', --quick]"))
    except InputError:
        return
    assert found["motif"] == ["a", "--seed", "5", "--quick"]
    assert "seed" not in found
    assert not found["quick"]


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_config_that_cannot_be_read(tmp_path, kind):
    path = tmp_path / "nowhere" if kind == "missing" else tmp_path
    with refused("--config", path):
        parse("--config", path)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--nope"], ["--nope"]),
        (["--see", "1"], ["--see"]),
        (["--conf", "x.yaml"], ["--conf"]),
        (["--seed"], ["--seed", "one argument"]),
        (["--seed", "x"], ["--seed", "'x'"]),
        (["--seed", "1.0"], ["--seed", "'1.0'"]),
        (["--rate", "x"], ["--rate", "'x'"]),
        (["--mode", "medium"], ["--mode", "'medium'", "fast"]),
        (["--motif"], ["--motif"]),
        (["--quick=1"], ["--quick"]),
        (["one", "two"], ["two"]),
        (["--config"], ["--config", "one argument"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_flags(argv, words):
    """Every complaint is an InputError that points to the help, and nothing is printed."""
    with refused(*words, "tal1-hvd test --help"):
        parse(*argv)


def test_help_names_defaults(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--seed SEED seed (default: 0)",
        "--rate RATE rate (default: 0.5)",
        "motifs (default: a b)",
        "--mode {slow,fast} mode (default: slow)",
        "--max-sites SITES sites --name",
        "--config FILE YAML file",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("given", "hint"),
    [("--sed=3", "did you mean --seed? "), ("--rat 3", "did you mean --rate? "), ("--xyz", "")],
)
def test_misspelt_option(given, hint):
    with refused(f"({hint}see '"):
        parse(*given.split())
