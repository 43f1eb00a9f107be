"""What the programs that train for comparison share: their flags, and the course they write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from tal1_hvd.data.dataset import Dataset, open_dataset

BATCH = 64

Course = dict[str, list[float]]


def main(train: Callable[[Dataset, int, int], Course]) -> int:
    """Train on a dataset and write the course as JSON.

    Parameters
    ----------
    train : callable
        From a dataset, epochs and a seed to `accuracy` on the validation split after each epoch,
        and `seconds` from the end of the first step to that of each epoch.

    Returns
    -------
    int
        0.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    course = train(open_dataset(args.data, verify=False), args.epochs, args.seed)
    args.out.write_text(json.dumps(course))
    return 0
