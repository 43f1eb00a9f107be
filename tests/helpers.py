"""What unit tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tal1_hvd.data.dataset_writer import create_dataset
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


def forget_launcher() -> None:
    """Take what a launcher says out of the environment, as one may have started the tests."""
    for name in list(os.environ):
        if name.startswith(("HOROVOD_", "OMPI_", "PMI_", "SLURM_", "TF_CONFIG")):
            del os.environ[name]


def make_data(
    path: str | Path,
    splits: Sequence[int] = (0,) * 28 + (1,) * 8 + (2,) * 4,
    labels: Sequence[int] | None = None,
    length: int = 150,
) -> Path:
    """Write a dataset of random sequences, labelled 0 and 1 in turn unless said; return it."""
    rng = np.random.default_rng(1)
    count = len(splits)
    with create_dataset(path, count, length) as writer:
        writer.put(0, rng.integers(0, 4, (len(splits), length), dtype=np.uint8))
        writer.finish(
            labels=np.arange(count) % 2 if labels is None else np.array(labels),
            splits=np.array(splits),
            ids=[f"s{i}" for i in range(count)],
            task="imported",
            parameters={},
            seed=0,
        )
    return Path(path)
