"""YAML files of options, whoever wrote them: what is read is never much larger than the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

# More than all options together take; the parser needs a second for so much.
_LONGEST = 1 << 16
# More than any number that an option takes, and few enough to be printed.
_LONGEST_NUMBER = 100


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses what grows while it is read."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # Lists of aliases of lists of aliases double with every line.
        if self.check_event(yaml.AliasEvent):
            raise ValueError("an alias (*); write out what it stands for")
        return super().compose_node(parent, index)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Return a number."""
        if len(node.value) > _LONGEST_NUMBER:
            raise ValueError(f"a number of {len(node.value)} characters")
        if node.tag.endswith("int"):
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def read_yaml(path: Path) -> Any:
    """Read a small YAML file.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is not YAML, or too long, or would grow.
    """
    with path.open() as handle:
        text = handle.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        raise ValueError(f"longer than {_LONGEST:,} characters")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (derived from the safe loader)
    # The rest is what its constructors stumble over where a tag (!!int) does not fit the value.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        yaml.YAMLError,
    ) as error:
        raise ValueError(str(error)) from None
