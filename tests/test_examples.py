"""The command lines of README.md and docs/: this version takes their options."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from tal1_hvd.cli.arguments import Parser
from tal1_hvd.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Of the script itself, before those of `train`; each takes a value.
ELASTIC = ("--ranks", "--min", "--max", "--hosts", "--interface")


def lines(page: Path) -> list[str]:
    """Return a page's command lines: those in blocks for a shell, and those within its text."""
    text = page.read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shown = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return shown + re.findall(r"`((?:tal1-hvd|mpirun|horovodrun) [^`\n]+)`", text)


def calls(line: str) -> list[tuple[str, list[str]]]:
    """Return the package's commands in a command line, each with its arguments."""
    words = shlex.split(line, comments=True)
    found = []
    for at, word in enumerate(words):
        rest = words[at + 1 :]
        rest = rest[: rest.index("&&")] if "&&" in rest else rest
        if word.endswith("tal1-hvd") and rest and rest[0] in COMMANDS:
            found.append((rest[0], rest[1:]))
        elif word == "tal1_hvd.train" or word.endswith("slurm.sbatch"):
            found.append(("train", rest))
        elif word == "launch/elastic":
            while rest and rest[0] in ELASTIC:
                rest = rest[2:]
            found.append(("train", ["--elastic", *rest]))
    return found


EXAMPLES = [
    pytest.param(name, words, id=f"{page.name}: {name} {' '.join(words)}")
    for page in PAGES
    for line in lines(page)
    for name, words in calls(line)
    if "--help" not in words
]


@pytest.mark.parametrize(("name", "words"), EXAMPLES)
def test_options_are_known(name: str, words: list[str]) -> None:
    command = import_module(f"tal1_hvd.cli.{COMMANDS[name][0]}")
    parser = Parser(prog=f"tal1-hvd {name}")
    command.add_arguments(parser)
    # What a shell or the reader puts in is a number.
    parser.parse(["1" if word == "S" or "$" in word else word for word in words])


def test_every_launcher_has_an_example() -> None:
    shown = "\n".join(line for page in PAGES for line in lines(page) if calls(line))
    for launcher in (
        "mpirun -np",
        "horovodrun -np",
        "horovodrun --gloo",
        "sbatch launch/slurm.sbatch",
        "--launcher ray",
        "--launcher spark",
        "launch/elastic",
        "--strategy multiworker",
    ):
        assert launcher in shown
