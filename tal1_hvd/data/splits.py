"""Which sequences train, which choose the model, which test it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tal1_hvd.data.dataset import SPLITS
from tal1_hvd.errors import InputError

VALIDATION_FRACTION = 0.2
TEST_FRACTION = 0.1


def stratified_split(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw 70 % train, 20 % validation, 10 % test, with equal shares of each class.

    Parameters
    ----------
    labels : np.ndarray, shape=(n,), dtype=uint8
    seed : int

    Returns
    -------
    np.ndarray, shape=(n,), dtype=uint8
        0 train, 1 validation, 2 test.

    Raises
    ------
    InputError
        A class is too small to stand in every split.
    """
    # scikit-learn takes a second to import.
    from sklearn.model_selection import train_test_split

    # scikit-learn's own seeds end at 32 bits.
    draws = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    rows = np.arange(len(labels))
    validation_count = round(VALIDATION_FRACTION * len(rows))
    test_count = round(TEST_FRACTION * len(rows))
    members: dict[str, np.ndarray] = {}
    try:
        members["train"], rest = train_test_split(
            rows, test_size=validation_count + test_count, stratify=labels, random_state=draws
        )
        members["validation"], members["test"] = train_test_split(
            rest, test_size=test_count, stratify=labels[rest], random_state=draws
        )
    except ValueError:
        raise _too_few(labels) from None
    splits = np.empty(len(labels), dtype=np.uint8)
    for name, chosen in members.items():
        if len(np.unique(labels[chosen])) < 2:
            raise _too_few(labels)
        splits[chosen] = SPLITS[name]
    return splits


def _too_few(labels: np.ndarray) -> InputError:
    return InputError(
        f"{np.sum(labels == 1)} positives and {np.sum(labels == 0)} negatives are too few for a "
        "split into 70 % train, 20 % validation and 10 % test; at least 10 of each are needed"
    )


def chromosome_split(
    chromosomes: Sequence[str], test: Sequence[str], validation: Sequence[str]
) -> np.ndarray:
    """Hold out whole chromosomes.

    Parameters
    ----------
    chromosomes : sequence of str, length n
        Chromosome of each sequence.
    test, validation : sequence of str
        Chromosomes that go to these splits; all others train.

    Returns
    -------
    np.ndarray, shape=(n,), dtype=uint8
        0 train, 1 validation, 2 test.

    Raises
    ------
    InputError
        A chromosome is named for both splits or does not occur, or a split stays empty.
    """
    both = sorted(set(test) & set(validation))
    if both:
        raise InputError(f"--test-chroms and --valid-chroms both name {', '.join(both)}")
    present = set(chromosomes)
    for option, wanted in (("--test-chroms", test), ("--valid-chroms", validation)):
        if not wanted:
            raise InputError(f"{option}: a split by chromosome needs at least one chromosome")
        missing = sorted(set(wanted) - present)
        if missing:
            raise InputError(
                f"{option}: no sequence lies on {', '.join(missing)}; "
                f"the data has {', '.join(sorted(present))}"
            )
    code = dict.fromkeys(test, SPLITS["test"]) | dict.fromkeys(validation, SPLITS["validation"])
    splits = np.array([code.get(name, SPLITS["train"]) for name in chromosomes], dtype=np.uint8)
    if not np.any(splits == SPLITS["train"]):
        raise InputError(
            "--test-chroms and --valid-chroms hold out every chromosome; none is left to train on"
        )
    return splits
