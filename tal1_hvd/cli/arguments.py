"""Arguments from flags and from YAML files, by the same names."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tal1_hvd.errors import InputError


class _Help(argparse.HelpFormatter):
    """Keeps paragraphs as they are written, and leaves room for long option names."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=100)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.strip().splitlines())


class Parser(argparse.ArgumentParser):
    """A parser whose errors are `InputError` and whose values can come from ``--config FILE``."""

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("formatter_class", _Help)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise InputError, which the command line reports in one line."""
        _, unknown, given = message.partition("unrecognized arguments: ")
        near = difflib.get_close_matches(
            given.split("=")[0].split(" ")[0], self._option_string_actions, n=1
        )
        hint = f"did you mean {near[0]}? " if unknown and near else ""
        raise InputError(f"{message} ({hint}see '{self.prog} --help')")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse flags, and before them those of a configuration file, so that flags win.

        Parameters
        ----------
        argv : sequence of str

        Returns
        -------
        argparse.Namespace

        Raises
        ------
        InputError
            A flag or a line of the file is unknown or has a wrong value.
        """
        self.add_argument(
            "--config", metavar="FILE", help="YAML file with options, named as the flags are"
        )
        finder = Parser(prog=self.prog, add_help=False)
        finder.add_argument("--config")
        file = finder.parse_known_args(argv)[0].config
        configured = [] if file is None else self._from_file(Path(file))
        found = self.parse_args([*configured, *argv])
        if getattr(found, "out", None) == "":
            # As an unset variable of a shell gives it; it would stand for the working folder.
            raise InputError("--out: the name is empty")
        return found

    def _from_file(self, path: Path) -> list[str]:
        """Return a configuration file as flags."""
        # Here, so that what an environment lacks is met where it is said in a line.
        from tal1_hvd.data.yaml_file import read_yaml

        try:
            values = read_yaml(path)
        except OSError as error:
            raise InputError(f"--config: {path}: {error.strerror}") from None
        except ValueError as error:
            raise InputError(f"--config: {path}: not YAML: {error}") from None
        if values is None:
            return []
        if not isinstance(values, dict):
            raise InputError(f"--config: {path}: expected lines of 'option: value'")
        argv: list[str] = []
        for key, value in values.items():
            flag = "--" + str(key).replace("_", "-")
            action = self._option_string_actions.get(flag)
            if action is None or flag in ("--config", "--help"):
                raise InputError(f"--config: {path}: unknown option {key!r}")
            argv += self._as_flags(path, flag, action, value)
        return argv

    def _as_flags(self, path: Path, flag: str, action: argparse.Action, value: Any) -> list[str]:
        if value is None:
            return []
        if action.nargs == 0:
            if not isinstance(value, bool):
                raise InputError(f"--config: {path}: {flag[2:]} must be true or false")
            return [flag] if value else []
        items = value if isinstance(value, list) else [value]
        for item in items:
            # A word of a list that starts with a dash would be taken for a flag of its own.
            is_flag = action.nargs is not None and isinstance(item, str) and item.startswith("-")
            if isinstance(item, dict | list | bool) or is_flag:
                raise InputError(f"--config: {path}: {flag[2:]} cannot be {item!r}")
            try:
                self._get_value(action, str(item))
            except argparse.ArgumentError as error:
                raise InputError(f"--config: {path}: {flag[2:]}: {error.message}") from None
        if action.nargs is None:
            if len(items) != 1:
                raise InputError(f"--config: {path}: {flag[2:]} takes one value")
            # One word, so that a value that starts with a dash stays a value.
            return [f"{flag}={items[0]}"]
        return [flag, *map(str, items)]


def add_setting(
    parser: argparse.ArgumentParser, flag: str, default: Any, help: str, **kwargs: Any
) -> None:
    """Add an option that stands in the result only if the user gave it.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    flag : str
    default : object
        Said in the help; None says nothing.
    help : str
    **kwargs
        For `add_argument`.
    """
    if default is not None:
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        help = f"{help} (default: {shown})"
    if kwargs.get("action") is None and default is not None:
        kwargs.setdefault("type", str if isinstance(default, tuple) else type(default))
    if "choices" not in kwargs and "action" not in kwargs:
        kwargs.setdefault("metavar", flag.lstrip("-").split("-")[-1].upper())
    parser.add_argument(flag, default=argparse.SUPPRESS, help=help, **kwargs)
