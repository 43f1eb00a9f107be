"""What unit tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tal1_hvd.errors import InputError


@contextmanager
def refused(*words: object) -> Iterator[None]:
    """Expect an InputError of one line that holds all the words."""
    with pytest.raises(InputError) as caught:
        yield
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert str(word) in text


def names(folder: Path) -> list[str]:
    """Return everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())
